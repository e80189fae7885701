// The curves of one run or of several laid over one another, a chart for each metric.

import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";

import { Chart, type Curve, type Zoom } from "./chart";
import { words } from "./format";
import { type RunSeries, smooth } from "./series";

export interface Run {
  label: string;
  series: RunSeries;
}

/** Of the machine rather than of the model: shown last. */
const OF_THE_RUN = ["learning_rate", "grad_norm", "tokens_per_second", "samples_per_second", "epoch"];

function names(runs: Run[]): string[] {
  const found = new Set<string>();
  for (const run of runs) for (const one of run.series.series.values()) found.add(one.name);
  const rank = (name: string): number => {
    if (name === "loss") return -1;
    const place = OF_THE_RUN.indexOf(name);
    return place < 0 ? 0 : place + 1;
  };
  return [...found].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}

function curvesOf(name: string, runs: Run[], weight: number): Curve[] {
  const curves: Curve[] = [];
  runs.forEach((run, index) => {
    for (const split of ["train", "valid"] as const) {
      const one = run.series.series.get(`${name} ${split}`);
      if (!one) continue;
      const alone = runs.length === 1;
      const said = split === "train" ? "Training" : "Validation";
      const curve: Curve = {
        label: alone ? said : `${run.label}${split === "valid" ? ", validation" : ""}`,
        color: alone ? (split === "train" ? 0 : 1) : index,
        dashed: !alone && split === "valid",
        steps: one.step.slice(),
        values: one.value.slice(),
      };
      if (split === "train" && weight > 0) {
        curves.push({ ...curve, label: `${curve.label}, as measured`, faint: true });
        curves.push({ ...curve, values: smooth(curve.values, weight) });
      } else curves.push(curve);
    }
  });
  return curves;
}

/** `version` rises when the runs have new points; `over` says that none will come. */
export function Curves(props: { runs: Run[]; version: number; over: boolean }): JSX.Element {
  const { runs, version } = props;
  const [weight, setWeight] = useState(0);
  const [log, setLog] = useState(false);
  const [zoom, setZoom] = useState<Zoom>(null);
  const charts = useMemo(
    () => names(runs).map((name) => ({ name, curves: curvesOf(name, runs, weight) })),
    [runs, version, weight],
  );
  const last = Math.max(1, ...charts.flatMap((c) => c.curves.map((curve) => curve.steps.at(-1) ?? 0)));
  const bound = (side: 0 | 1, text: string): void => {
    const next: [number, number] = zoom ? [...zoom] : [0, last];
    next[side] = Number(text);
    if (text !== "" && next[0] < next[1]) setZoom(next);
  };

  if (charts.length === 0) {
    const none = "No step has been measured yet. The curves grow here as they come.";
    return <p class="empty">{props.over ? "No step was measured." : none}</p>;
  }
  return (
    <div class="curves">
      <div class="controls">
        <label>
          Smoothing
          <input
            type="range"
            min={0}
            max={0.99}
            step={0.01}
            value={weight}
            onInput={(event) => setWeight(Number(event.currentTarget.value))}
          />
          <output>{weight.toFixed(2)}</output>
        </label>
        <label>
          <input type="checkbox" checked={log} onChange={() => setLog(!log)} />
          Log scale
        </label>
        <span class="steps">
          <label>
            Steps
            <input
              type="number"
              min={0}
              value={zoom ? zoom[0] : 0}
              onChange={(event) => bound(0, event.currentTarget.value)}
            />
          </label>
          <label>
            to
            <input
              type="number"
              min={1}
              value={zoom ? zoom[1] : last}
              onChange={(event) => bound(1, event.currentTarget.value)}
            />
          </label>
          <button type="button" disabled={zoom === null} onClick={() => setZoom(null)}>
            All steps
          </button>
        </span>
      </div>
      <p class="hint">Drag over a chart to zoom in; a double click shows all steps again.</p>
      <div class="charts">
        {charts.map(({ name, curves }, index) => (
          <div key={name} class={index === 0 ? "wide" : undefined}>
            <Chart
              title={words(name)}
              curves={curves}
              log={log}
              zoom={zoom}
              onZoom={setZoom}
              height={index === 0 ? 300 : 200}
            />
          </div>
        ))}
      </div>
    </div>
  );
}
