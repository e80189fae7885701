// One job: where it stands, and behind tabs all that is known of it.

import type { JSX } from "preact";
import { useMemo } from "preact/hooks";

import { post } from "../api";
import { Curves } from "../curves";
import { bytes, count, duration, value } from "../format";
import { useCall, useGet, useNow } from "../hooks";
import { type LiveJob, useLiveJob } from "../live";
import { Ago, Asking, Bar, Facts, Problem, Status, Title } from "../parts";
import { Report } from "../report";
import { compareHref, go, href } from "../route";
import type { Line } from "../stream";
import { ENDED, type Job, type ListOf, type Validation } from "../types";
import { Checkpoints, Configuration, Events, Logs, Results } from "./job_tabs";
import { best, jobName } from "./jobs";

const TABS = ["curves", "events", "checkpoints", "results", "data", "logs", "configuration"] as const;

export function JobPage({ id, query }: { id: string; query: URLSearchParams }): JSX.Element {
  const live = useLiveJob(id);
  const { job } = live;
  const tab = TABS.find((name) => name === query.get("tab")) ?? "curves";
  if (!job) {
    return (
      <>
        <Title>Job</Title>
        <Problem error={live.error} />
      </>
    );
  }
  return (
    <>
      <Title aside={<Actions live={live} job={job} />}>{jobName(job)}</Title>
      <State job={job} line={live.line} />
      <Problem error={live.error} />
      <nav class="tabs" aria-label="Of this job">
        {TABS.map((name) => (
          <a
            key={name}
            href={href(["jobs", id], { tab: name })}
            aria-current={name === tab ? "page" : undefined}
          >
            {name}
          </a>
        ))}
      </nav>
      <Tab name={tab} live={live} job={job} />
    </>
  );
}

function Tab({ name, live, job }: { name: (typeof TABS)[number]; live: LiveJob; job: Job }): JSX.Element {
  const runs = useMemo(() => [{ label: jobName(job), series: live.series }], [job.id]);
  switch (name) {
    case "curves":
      return (
        <>
          <Beside job={job} />
          <Curves runs={runs} version={live.series.version} over={ENDED.includes(job.status)} />
        </>
      );
    case "events":
      return <Events live={live} job={job} />;
    case "checkpoints":
      return <Checkpoints job={job} />;
    case "results":
      return <Results job={job} />;
    case "data":
      return <Data job={job} />;
    case "logs":
      return <Logs job={job} />;
    case "configuration":
      return <Configuration job={job} />;
  }
}

/** Choose another run to lay over this one. */
function Beside({ job }: { job: Job }): JSX.Element | null {
  const { data } = useGet<ListOf<Job>>("/fine_tuning/jobs?limit=50");
  const others = (data?.data ?? []).filter((other) => other.id !== job.id && other.started_at);
  if (others.length === 0) return null;
  return (
    <p class="controls">
      <label>
        Compare with
        <select
          value=""
          onChange={(event) => (location.hash = compareHref([job.id, event.currentTarget.value]))}
        >
          <option value="">another run</option>
          {others.map((other) => (
            <option key={other.id} value={other.id}>
              {jobName(other)}
            </option>
          ))}
        </select>
      </label>
    </p>
  );
}

function Data({ job }: { job: Job }): JSX.Element {
  const waiting = job.status === "validating_files";
  const path = `/fine_tuning/jobs/${job.id}/validation`;
  const { data, error } = useGet<Validation>(path, waiting ? 1000 : null);
  return (
    <>
      <Problem error={error} />
      {data && <Report of={data} />}
    </>
  );
}

function Actions({ live, job }: { live: LiveJob; job: Job }): JSX.Element {
  const { busy, error, run } = useCall();
  const ask = async (what: string): Promise<void> =>
    live.put(await post<Job>(`/fine_tuning/jobs/${job.id}/${what}`));
  const ended = ENDED.includes(job.status);
  const leaving = job.desired === "cancel";
  const pausable = ["queued", "running"].includes(job.status) && job.desired === "run";
  return (
    <div class="actions">
      <Problem error={error} />
      {pausable && (
        <button type="button" disabled={busy} onClick={() => run(() => ask("pause"))}>
          Pause
        </button>
      )}
      {(job.status === "paused" || job.desired === "pause") && !ended && !leaving && (
        <button type="button" class="strong" disabled={busy} onClick={() => run(() => ask("resume"))}>
          Resume
        </button>
      )}
      {!ended && (
        <Asking
          label="Cancel"
          question={`Cancel ${jobName(job)}?`}
          answer="Cancel the job"
          disabled={leaving}
          run={() => ask("cancel")}
        />
      )}
      <button type="button" onClick={() => go(["new"], { clone: job.id })}>
        Clone
      </button>
      {job.fine_tuned_model && (
        <a class="button strong" href={href(["models", job.fine_tuned_model])}>
          See the model
        </a>
      )}
    </div>
  );
}

function State({ job, line }: { job: Job; line: Line }): JSX.Element {
  const ended = ENDED.includes(job.status);
  const now = useNow(!ended);
  const { progress, speed } = job;
  const attempt = job.attempts.at(-1);
  const onTheWay = !ended && { pause: "pausing", cancel: "cancelling", run: "" }[job.desired];
  return (
    <section class="state" aria-label="State">
      <p class="line">
        <Status of={job.status} />
        {onTheWay && job.status !== "paused" && <span>{onTheWay}…</span>}
        {job.phase && job.status === "running" && <span>{job.phase}</span>}
        <LineState line={line} now={now} />
      </p>
      {progress && !ended && <Bar percent={progress.percent} label="Progress" />}
      {job.error && (
        <p class="problem" role="alert">
          {job.error.message} <code>{job.error.code}</code>
        </p>
      )}
      <Facts
        of={[
          [
            "Step",
            progress && `${count(progress.step)}${progress.total_steps ? ` of ${count(progress.total_steps)}` : ""}`,
          ],
          ["Epoch", progress?.epoch ? value(Math.round(progress.epoch * 100) / 100) : null],
          [
            "Time left",
            job.status === "running" && job.estimated_finish ? duration(job.estimated_finish - now) : null,
          ],
          ["Place in the queue", job.queue && job.queue.position],
          [
            "Starts in about",
            job.queue?.estimated_start ? duration(job.queue.estimated_start - now) : null,
          ],
          ["Took", ended && job.started_at && job.finished_at ? duration(job.finished_at - job.started_at) : null],
          ["Speed", speed?.steps_per_second ? `${value(speed.steps_per_second)} steps/s` : null],
          ["Tokens", speed?.tokens_per_second ? `${value(Math.round(speed.tokens_per_second))}/s` : null],
          ["Peak memory", job.peak_memory_bytes ? bytes(job.peak_memory_bytes) : null],
          ["Best", best(job.metrics.best)],
          ["Base model", job.model],
          ["Task", job.task],
          ["Worker", job.status === "running" && attempt ? attempt.worker_id.slice(-8) : null],
          ["Attempts", job.attempts.length > 1 ? job.attempts.length : null],
          ["Created", <Ago at={job.created_at} />],
          ["Cloned from", job.cloned_from && <a href={href(["jobs", job.cloned_from])}>{job.cloned_from}</a>],
        ]}
      />
    </section>
  );
}

function LineState({ line, now }: { line: Line; now: number }): JSX.Element {
  const told = {
    connecting: "connecting…",
    live: "live",
    ended: "",
    refused: "not live: reload the page",
    cut: line.state === "cut" ? `connection lost, next try in ${duration(line.retryAt / 1000 - now)}` : "",
  }[line.state];
  return (
    <span class={`live is-${line.state}`} role="status">
      {told}
    </span>
  );
}
