// The metric series of one run: what the server downsampled of its past, and each step as it comes.

import { get } from "./api";
import type { MetricPoint, MetricSeries } from "./types";

/** Points asked for of each series: more than a screen is wide, so that a zoom still shows detail. */
const POINTS = 4000;
/** Live points after which the past is asked for anew, so that drawing stays cheap. */
const LIVE = 8000;

export class RunSeries {
  series = new Map<string, MetricSeries>();
  /** Rises with each change. */
  version = 0;
  private live = 0;
  private readonly jobId: string;

  constructor(jobId: string) {
    this.jobId = jobId;
  }

  async load(signal: AbortSignal): Promise<void> {
    this.live = 0;
    const path = `/fine_tuning/jobs/${encodeURIComponent(this.jobId)}/metrics?points=${POINTS}`;
    const { data } = await get<{ data: MetricSeries[] }>(path, signal);
    const loaded = new Map(data.map((one) => [`${one.name} ${one.split}`, one]));
    // What came by the stream while the answer was on its way.
    for (const [id, was] of this.series) {
      const one = loaded.get(id);
      if (!one) loaded.set(id, was);
      else {
        const from = was.step.findLastIndex((step) => step <= (one.step.at(-1) ?? -1)) + 1;
        one.step.push(...was.step.slice(from));
        one.value.push(...was.value.slice(from));
      }
    }
    this.series = loaded;
    this.version += 1;
  }

  /** Add a step that came by the stream. A step that is known is left as it is. */
  add(point: MetricPoint): void {
    for (const [name, value] of Object.entries(point.values)) {
      const id = `${name} ${point.split}`;
      let one = this.series.get(id);
      if (!one) {
        one = { name, split: point.split, step: [], value: [] };
        this.series.set(id, one);
      }
      if (point.step <= (one.step.at(-1) ?? -1)) continue;
      one.step.push(point.step);
      one.value.push(value);
    }
    this.live += 1;
    this.version += 1;
  }

  get full(): boolean {
    return this.live > LIVE;
  }

  /** Where a stream goes on after what was loaded: all events, and the points beyond the last. */
  get cursor(): string | null {
    let step = -1;
    let split = "t";
    for (const one of this.series.values()) {
      const last = one.step.at(-1) ?? -1;
      if (last > step || (last === step && one.split === "valid")) {
        step = last;
        split = one.split.charAt(0);
      }
    }
    return step < 0 ? null : `0.${step}${split}`;
  }
}

/** Exponential smoothing, freed of the bias of its beginning (as Adam frees its moments). */
export function smooth(values: (number | null)[], weight: number): (number | null)[] {
  let sum = 0;
  let norm = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    norm = weight * norm + (1 - weight);
    return sum / norm;
  });
}
