// What stands behind the tabs of a job.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { modelPath, request } from "../api";
import { bytes, clock, moment, value, words } from "../format";
import { useCall, useGet } from "../hooks";
import type { LiveJob } from "../live";
import { Ago, Download, Facts, Problem } from "../parts";
import { href } from "../route";
import { type Checkpoint, type DataFile, ENDED, type Job, type Json, type JsonObject, type ListOf } from "../types";

/** So many are shown at once, and so many more each time that older ones are asked for. */
const EVENTS = 100;

export function Events({ live, job }: { live: LiveJob; job: Job }): JSX.Element {
  const { events, hasOlder } = live;
  const [most, setMost] = useState(EVENTS);
  const lastRead = useRef<string | null>(null);
  const { busy, error, run } = useCall();
  const shown = events.slice(0, most);

  const showOlder = (): Promise<void> =>
    run(async () => {
      const last = shown.at(-1);
      if (events.length <= most) await live.loadOlder();
      lastRead.current = last?.id ?? null;
      setMost((was) => was + EVENTS);
    });
  // Who reads by keyboard goes on at the first of them: the button has moved down, or is gone.
  useEffect(() => {
    const next = lastRead.current && document.getElementById(lastRead.current)?.nextElementSibling;
    if (next instanceof HTMLElement) next.focus();
    lastRead.current = null;
  }, [most]);

  return (
    <>
      {job.attempts.length > 1 && <Attempts job={job} />}
      {shown.length === 0 && (
        <p class="empty">{live.line.state === "connecting" ? "Loading…" : "Nothing has happened yet."}</p>
      )}
      <ol class="events">
        {shown.map((event) => (
          <li key={event.id} id={event.id} class={`is-${event.level}`} tabIndex={-1}>
            <time title={moment(event.created_at)}>{clock(event.created_at)}</time>
            <span>
              {event.level !== "info" && <b>{event.level === "warn" ? "Warning: " : "Error: "}</b>}
              {event.message}
            </span>
          </li>
        ))}
      </ol>
      <Problem error={error} />
      {(events.length > most || hasOlder) && (
        <div class="actions pages">
          <button type="button" disabled={busy} onClick={showOlder}>
            {busy ? "Loading…" : "Older events"}
          </button>
        </div>
      )}
    </>
  );
}

function Attempts({ job }: { job: Job }): JSX.Element {
  return (
    <div class="scroll">
      <table>
        <caption>Attempts</caption>
        <thead>
          <tr>
            <th class="number">No.</th>
            <th>Began</th>
            <th>Ended</th>
            <th>Outcome</th>
            <th class="number">From step</th>
          </tr>
        </thead>
        <tbody>
          {job.attempts.map((attempt) => (
            <tr key={attempt.number}>
              <td class="number">{attempt.number}</td>
              <td>{clock(attempt.started_at)}</td>
              <td>{attempt.ended_at ? clock(attempt.ended_at) : "–"}</td>
              <td>{[attempt.outcome, attempt.reason].filter(Boolean).join(": ") || "under way"}</td>
              <td class="number">{attempt.resumed_from_step ?? "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Checkpoints({ job }: { job: Job }): JSX.Element {
  const path = `/fine_tuning/jobs/${job.id}/checkpoints?limit=100`;
  const { data, error } = useGet<ListOf<Checkpoint>>(path, ENDED.includes(job.status) ? null : 3000);
  const rows = data?.data ?? [];
  return (
    <>
      <Problem error={error} />
      {data && rows.length === 0 && (
        <p class="empty">
          {ENDED.includes(job.status) ? "No checkpoint was made." : "There is no checkpoint yet."}
        </p>
      )}
      {rows.length > 0 && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th class="number">Step</th>
                <th>Made for</th>
                <th class="number">Validation loss</th>
                <th class="number spare">Size</th>
                <th class="spare">Made</th>
                <th>Weights</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((one) => (
                <tr key={one.id}>
                  <td class="number">{one.step_number}</td>
                  <td>{one.best && one.reason !== "best" ? `${one.reason}, best so far` : one.reason}</td>
                  <td class="number">{value(one.metrics["full_valid_loss"] ?? one.metrics["valid_loss"])}</td>
                  <td class="number spare">{bytes(one.bytes)}</td>
                  <td class="spare">
                    <Ago at={one.created_at} />
                  </td>
                  <td>
                    <div class="actions">
                      <a href={href(["models", one.fine_tuned_model_checkpoint])}>Files</a>
                      <Download
                        path={`${modelPath(one.fine_tuned_model_checkpoint)}/archive`}
                        name={`${job.id}-step-${one.step_number}.tar`}
                        bytes={null}
                      />
                    </div>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

/** What colours a terminal. */
const COLORS = /\u001b\[[0-9;]*m/g;

export function Logs({ job }: { job: Job }): JSX.Element {
  const [text, setText] = useState<string | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const step = job.progress?.step;
  useEffect(() => {
    const stop = new AbortController();
    request(`/fine_tuning/jobs/${job.id}/logs`, { signal: stop.signal })
      .then((answer) => answer.text())
      .then((log) => setText(log.replaceAll(COLORS, "")))
      .catch((failed: Error) => !stop.signal.aborted && setError(failed));
    return () => stop.abort();
  }, [job.id, job.status, step]);
  return (
    <>
      <Problem error={error} />
      {text === "" && <p class="empty">The trainer has written nothing.</p>}
      {text && (
        <pre class="log" tabIndex={0}>
          {text}
        </pre>
      )}
    </>
  );
}

/** The files that a job left: its report, its metrics. */
export function Results({ job }: { job: Job }): JSX.Element {
  const path = "/files?purpose=fine-tune-results&limit=10000";
  const { data, error } = useGet<ListOf<DataFile>>(job.result_files.length ? path : null);
  const known = new Map(data?.data.map((file) => [file.id, file]));
  const files = job.result_files.map((id) => known.get(id)).filter((file) => file !== undefined);
  const picture = files.find((file) => file.filename.endsWith(".png"));
  return (
    <>
      <Problem error={error} />
      {job.result_files.length === 0 && (
        <p class="empty">
          {ENDED.includes(job.status) ? "This job left no results." : "The results are written when the job ends."}
        </p>
      )}
      {files.length > 0 && (
        <table>
          <tbody>
            {files.map((file) => (
              <tr key={file.id}>
                <td class="name">{file.filename.replace(`${job.id}-`, "").replace(`.${job.id}`, "")}</td>
                <td class="number">{bytes(file.bytes)}</td>
                <td class="get">
                  <Download path={`/files/${file.id}/content`} name={file.filename} bytes={file.bytes} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {picture && <Picture key={picture.id} file={picture} />}
    </>
  );
}

function Picture({ file }: { file: DataFile }): JSX.Element {
  const [url, setUrl] = useState<string | null>(null);
  const [error, setError] = useState<Error | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    let made: string | null = null;
    request(`/files/${file.id}/content`, { signal: stop.signal })
      .then((answer) => answer.blob())
      .then((blob) => setUrl((made = URL.createObjectURL(blob))))
      .catch((failed: Error) => !stop.signal.aborted && setError(failed));
    return () => {
      stop.abort();
      if (made) URL.revokeObjectURL(made);
    };
  }, [file.id]);
  return (
    <>
      <Problem error={error} />
      {url && <img class="report" src={url} alt="The job's report as a picture" />}
    </>
  );
}

export function Configuration({ job }: { job: Job }): JSX.Element {
  return (
    <>
      <Facts
        of={[
          ["Job", <code>{job.id}</code>],
          ["Training file", <a href={href(["files", job.training_file])}>{job.training_file}</a>],
          [
            "Validation file",
            job.validation_file && <a href={href(["files", job.validation_file])}>{job.validation_file}</a>,
          ],
          ["Seed", job.seed],
        ]}
      />
      <h2>Settings</h2>
      {job.resolved ? <Tree of={job.resolved} /> : <p class="empty">Known once the data is checked.</p>}
      {job.provenance && (
        <>
          <h2>Made with</h2>
          <Tree of={job.provenance} />
        </>
      )}
      {job.metadata && Object.keys(job.metadata).length > 0 && (
        <>
          <h2>Metadata</h2>
          <Tree of={job.metadata} />
        </>
      )}
    </>
  );
}

/** Nested values as rows of a path and a value; what is null is left out. */
function Tree({ of }: { of: JsonObject }): JSX.Element {
  return (
    <table class="tree">
      <tbody>
        {leaves(of).sort().map(([name, told]) => (
          <tr key={name}>
            <th scope="row">{words(name)}</th>
            <td>{told}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function leaves(of: JsonObject, prefix = ""): [string, string][] {
  return Object.entries(of).flatMap(([name, found]): [string, string][] => {
    const path = prefix ? `${prefix} › ${name}` : name;
    if (found === null) return [];
    if (typeof found === "object" && !Array.isArray(found)) return leaves(found, path);
    return [[path, plain(found)]];
  });
}

function plain(found: Json): string {
  if (Array.isArray(found)) return found.map(plain).join(", ") || "none";
  if (typeof found === "object" && found !== null) return JSON.stringify(found);
  return String(found);
}
