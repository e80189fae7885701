// One chart: uPlot in the page's colours, as wide as its place.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { value } from "./format";
import { THEME_CHANGED } from "./theme";

export interface Curve {
  label: string;
  /** Which of the palette's colours. */
  color: number;
  /** Behind a smoothed curve: the measured values. */
  faint?: boolean;
  dashed?: boolean;
  steps: number[];
  values: (number | null)[];
}

export type Zoom = [number, number] | null;

/** The palette's colours: `--c0` to `--c7`. */
export const COLORS = 8;
const FONT = "12px system-ui, sans-serif";

/** What a colour of the stylesheet is at this moment: a canvas knows no `light-dark()`. */
function color(name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function options(
  curves: Curve[],
  log: boolean,
  size: { width: number; height: number },
  zoomed: (zoom: Zoom) => void,
): uPlot.Options {
  const text = color("muted");
  const grid = { stroke: color("line"), width: 1 };
  const axis = { stroke: text, grid, ticks: { ...grid, size: 4 }, font: FONT };
  return {
    ...size,
    scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
    axes: [
      { ...axis, size: 32, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? value(tick) : "")) },
      { ...axis, size: 58, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : value(tick))) },
    ],
    series: [
      { label: "Step", value: (_, step) => (step === null ? "–" : value(step)) },
      ...curves.map((curve): uPlot.Series => {
        const stroke = color(`c${curve.color % COLORS}`);
        return {
          label: curve.label,
          stroke,
          alpha: curve.faint ? 0.3 : 1,
          width: curve.faint ? 1 : 1.75,
          ...(curve.dashed && { dash: [6, 4] }),
          points: { show: curve.values.length <= 40, size: 5, fill: stroke },
          value: (_, at) => value(at),
        };
      }),
    ],
    cursor: {
      sync: { key: "curves" },
      drag: { x: true, y: false, setScale: false },
      points: { size: 7 },
      bind: {
        dblclick: () => () => {
          zoomed(null);
          return null;
        },
      },
    },
    hooks: {
      setSelect: [
        (plot) => {
          const { left, width } = plot.select;
          if (width < 3) return;
          const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          zoomed([Math.floor(from), Math.ceil(to)]);
        },
      ],
    },
  };
}

function aligned(curves: Curve[], log: boolean): uPlot.AlignedData {
  const tables = curves.map((curve): uPlot.AlignedData => [
    curve.steps,
    log ? curve.values.map((at) => (at !== null && at > 0 ? at : null)) : curve.values,
  ]);
  return tables.length ? uPlot.join(tables) : [[]];
}

export function Chart(props: {
  title: string;
  curves: Curve[];
  log: boolean;
  zoom: Zoom;
  onZoom: (zoom: Zoom) => void;
  height: number;
}): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const onZoom = useRef(props.onZoom);
  onZoom.current = props.onZoom;
  const [theme, setTheme] = useState(0);
  // What a plot is made for; when it differs the plot is made anew, else it gets new data alone.
  const made = JSON.stringify([
    theme,
    props.log,
    props.height,
    props.curves.map((c) => [c.label, c.color, c.faint, c.dashed, c.values.length <= 40]),
  ]);

  useEffect(() => {
    const changed = (): void => setTheme((was) => was + 1);
    window.addEventListener(THEME_CHANGED, changed);
    return () => window.removeEventListener(THEME_CHANGED, changed);
  }, []);

  useEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const size = { width: element.clientWidth, height: props.height };
    const shown = new uPlot(
      options(props.curves, props.log, size, (zoom) => onZoom.current(zoom)),
      [[]],
      element,
    );
    plot.current = shown;
    const watcher = new ResizeObserver(() =>
      shown.setSize({ width: element.clientWidth, height: props.height }),
    );
    watcher.observe(element);
    return () => {
      watcher.disconnect();
      shown.destroy();
      plot.current = null;
    };
  }, [made]);

  useEffect(() => {
    const shown = plot.current;
    if (!shown) return;
    shown.setData(aligned(props.curves, props.log), props.zoom === null);
    if (props.zoom) shown.setScale("x", { min: props.zoom[0], max: props.zoom[1] });
  }, [made, props.curves, props.zoom]);

  return (
    <figure class="chart">
      <figcaption>{props.title}</figcaption>
      <div ref={place} role="img" aria-label={described(props.title, props.curves)} />
    </figure>
  );
}

/** The chart for those who don't see it: how much there is of each curve, and where it leads. */
function described(title: string, curves: Curve[]): string {
  const told = curves
    .filter((curve) => !curve.faint && curve.values.length > 0)
    .map(
      (c) =>
        `${c.label}: ${c.values.length} points, from ${value(c.values[0])} at step ${c.steps[0]} ` +
        `to ${value(c.values.at(-1))} at step ${c.steps.at(-1)}`,
    );
  return `${title}. ${told.join("; ")}`;
}
