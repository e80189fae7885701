// A job's stream of server-sent events, read by fetch because EventSource sends no headers.
//
// Each message carries a cursor as its id. After a cut the next connection sends the last one, so
// that nothing is missed and nothing comes twice.

import { ApiError, request } from "./api";
import type { Job, JobEvent, MetricPoint } from "./types";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
/** The server sends at least a comment every 10 s; after this long a silence the line is dead. */
const SILENCE = 30_000;

export type Line =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "cut"; retryAt: number }
  | { state: "ended" }
  | { state: "refused"; error: Error };

export interface Follower {
  job: (job: Job) => void;
  event: (event: JobEvent) => void;
  point: (point: MetricPoint) => void;
  line: (line: Line) => void;
}

/** Follow a job until it ends or the signal is given; begin after `cursor`. */
export async function follow(
  jobId: string,
  cursor: string | null,
  told: Follower,
  signal: AbortSignal,
): Promise<void> {
  let lastId = cursor;
  let failures = 0;
  while (!signal.aborted) {
    if (failures === 0) told.line({ state: "connecting" });
    const cut = new AbortController();
    const stop = (): void => cut.abort();
    signal.addEventListener("abort", stop);
    window.addEventListener("offline", stop);
    try {
      for await (const message of messages(jobId, lastId, cut)) {
        if (failures > 0 || message.event === "open") told.line({ state: "live" });
        failures = 0;
        lastId = message.id ?? lastId;
        if (message.event === "metrics") told.point(JSON.parse(message.data) as MetricPoint);
        else if (message.event === "event") told.event(JSON.parse(message.data) as JobEvent);
        else if (message.event === "job") told.job(JSON.parse(message.data) as Job);
        else if (message.event === "end") {
          told.line({ state: "ended" });
          return;
        }
      }
    } catch (error) {
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
        told.line({ state: "refused", error });
        return;
      }
    } finally {
      signal.removeEventListener("abort", stop);
      window.removeEventListener("offline", stop);
    }
    if (signal.aborted) return;
    const pause = Math.min(FIRST_PAUSE * 2 ** failures, LONGEST_PAUSE);
    failures += 1;
    told.line({ state: "cut", retryAt: Date.now() + pause });
    await rest(pause, signal);
  }
}

/** Wait, but no longer than until the browser says that the network is back. */
function rest(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    window.addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}

interface Message {
  event: string;
  id: string | null;
  data: string;
}

async function* messages(
  jobId: string,
  lastId: string | null,
  cut: AbortController,
): AsyncGenerator<Message> {
  const answer = await request(`/fine_tuning/jobs/${encodeURIComponent(jobId)}/events`, {
    headers: { Accept: "text/event-stream", ...(lastId !== null && { "Last-Event-ID": lastId }) },
    signal: cut.signal,
  });
  if (!answer.headers.get("content-type")?.startsWith("text/event-stream") || !answer.body) {
    throw new ApiError(400, "no_stream", "The server sends no event stream. Reload the page.");
  }
  yield { event: "open", id: null, data: "" };
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const timer = setTimeout(() => cut.abort(), SILENCE);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    // The server ends lines by LF alone.
    const blocks = (pending + value).split("\n\n");
    pending = blocks.pop() ?? "";
    for (const block of blocks) {
      const message = parse(block);
      if (message) yield message;
    }
  }
}

function parse(block: string): Message | null {
  const message: Message = { event: "message", id: null, data: "" };
  let said = false;
  for (const line of block.split("\n")) {
    const [, name, text] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name === "event") message.event = text ?? "";
    else if (name === "id") message.id = text ?? "";
    else if (name === "data") {
      message.data += (said ? "\n" : "") + (text ?? "");
      said = true;
    }
  }
  return said ? message : null;
}
