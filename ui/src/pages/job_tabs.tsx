// What stands behind the tabs of a job.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { modelPath, request } from "../api";
import { bytes, clock, moment, value, words } from "../format";
import { useGet } from "../hooks";
import { Ago, Download, Facts, Problem } from "../parts";
import { href } from "../route";
import { type Checkpoint, type DataFile, ENDED, type Job, type JobEvent, type Json, type JsonObject, type ListOf } from "../types";

export function Events({ job, events }: { job: Job; events: JobEvent[] }): JSX.Element {
  const shown = events.filter((event) => event.type === "message");
  return (
    <>
      {job.attempts.length > 1 && <Attempts job={job} />}
      {shown.length === 0 && <p class="empty">Nothing has happened yet.</p>}
      <ol class="events">
        {shown.map((event) => (
          <li key={event.id} class={`is-${event.level}`}>
            <time title={moment(event.created_at)}>{clock(event.created_at)}</time>
            <span>
              {event.level !== "info" && <b>{event.level === "warn" ? "Warning: " : "Error: "}</b>}
              {event.message}
            </span>
          </li>
        ))}
      </ol>
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
      {data && rows.length === 0 && <p class="empty">There is no checkpoint yet.</p>}
      {rows.length > 0 && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th class="number">Step</th>
                <th>Made for</th>
                <th class="number">Validation loss</th>
                <th class="number">Size</th>
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
                  <td class="number">{bytes(one.bytes)}</td>
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
  const files = (data?.data ?? []).filter((file) => job.result_files.includes(file.id));
  const picture = files.find((file) => file.filename.endsWith(".png"));
  return (
    <>
      <Problem error={error} />
      {job.result_files.length === 0 && <p class="empty">The results are written when the job ends.</p>}
      <ul class="plain">
        {files.map((file) => (
          <li key={file.id} class="actions">
            <Download path={`/files/${file.id}/content`} name={file.filename} bytes={file.bytes} />
            <span class="wrap">{file.filename}</span> <small>{bytes(file.bytes)}</small>
          </li>
        ))}
      </ul>
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
      <h2>Resolved</h2>
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
