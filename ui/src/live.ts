// A job as it is at this moment: loaded once, then kept current by its stream until it ends.

import { useEffect, useRef, useState } from "preact/hooks";

import { get } from "./api";
import { RunSeries } from "./series";
import { follow, type Line } from "./stream";
import { ENDED, type Job, type JobEvent, type ListOf } from "./types";

/** The page is drawn no more often than this, however many steps a second come. */
const DRAW_EVERY = 200;
const EVENTS = 100;

export interface LiveJob {
  job: Job | null;
  series: RunSeries;
  /** What was told, newest first. The points' own events are left out: they are in the curves. */
  events: JobEvent[];
  /** Whether the server has events before these. */
  hasOlder: boolean;
  /** Load more of them: one at least, if any is left. */
  loadOlder: () => Promise<void>;
  line: Line;
  error: Error | null;
  /** What a call answered, until the stream says more. */
  put: (job: Job) => void;
}

export function useLiveJob(id: string): LiveJob {
  const state = useRef({
    job: null as Job | null,
    events: [] as JobEvent[],
    /** The last one that was read, while the server has older ones. */
    oldest: null as string | null,
    line: { state: "connecting" } as Line,
  });
  const [series] = useState(() => new RunSeries(id));
  const [error, setError] = useState<Error | null>(null);
  const [, draw] = useState(0);
  const due = useRef<number | undefined>(undefined);
  const drawSoon = (): void => {
    due.current ??= setTimeout(() => {
      due.current = undefined;
      draw((was) => was + 1);
    }, DRAW_EVERY);
  };

  const path = `/fine_tuning/jobs/${encodeURIComponent(id)}`;

  const readEvents = async (after: string | null, signal?: AbortSignal): Promise<void> => {
    const was = state.current.events.length;
    do {
      const query = `limit=${EVENTS}${after ? `&after=${after}` : ""}`;
      const page = await get<ListOf<JobEvent>>(`${path}/events?${query}`, signal);
      state.current.events = [...state.current.events, ...page.data.filter(isTold)];
      after = state.current.oldest = page.has_more ? page.last_id : null;
    } while (after && state.current.events.length === was);
    draw((turn) => turn + 1);
  };

  useEffect(() => {
    const stop = new AbortController();
    const reload = async (): Promise<void> => {
      await series.load(stop.signal);
      drawSoon();
    };
    const open = async (): Promise<void> => {
      state.current.job = await get<Job>(path, stop.signal);
      draw((was) => was + 1);
      await reload();
      if (ENDED.includes(state.current.job.status)) {
        await readEvents(null, stop.signal);
        state.current.line = { state: "ended" };
        drawSoon();
        return;
      }
      await follow(
        id,
        series.cursor,
        {
          job: (job) => {
            state.current.job = job;
            drawSoon();
          },
          // From the first one on: there are none before these.
          event: (event) => {
            if (!isTold(event)) return;
            state.current.events = [event, ...state.current.events];
            drawSoon();
          },
          point: (point) => {
            series.add(point);
            // Should it fail, the curves are whole without it, and it is tried again in a while.
            if (series.full) void reload().catch(() => undefined);
            drawSoon();
          },
          line: (line) => {
            state.current.line = line;
            drawSoon();
          },
        },
        stop.signal,
      );
    };
    open().catch((failed: Error) => {
      if (!stop.signal.aborted) setError(failed);
    });
    return () => {
      stop.abort();
      clearTimeout(due.current);
      due.current = undefined;
    };
  }, [id]);

  const put = (job: Job): void => {
    state.current.job = job;
    draw((was) => was + 1);
  };
  const { job, events, oldest, line } = state.current;
  const loadOlder = (): Promise<void> => readEvents(oldest);
  return { job, events, hasOlder: oldest !== null, loadOlder, line, series, error, put };
}

function isTold(event: JobEvent): boolean {
  return event.type === "message";
}
