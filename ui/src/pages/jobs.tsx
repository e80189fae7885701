// All jobs, newest first, with what they are at.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { get } from "../api";
import { count, duration, value } from "../format";
import { useNow } from "../hooks";
import { Ago, Bar, Problem, Sparkline, Status, Title, usePages } from "../parts";
import { compareHref, href } from "../route";
import { ENDED, type Job, type MetricSeries, type Values } from "../types";

const EVERY = 2000;
const PAGE = 20;

export function jobName(job: Job): string {
  return job.suffix ?? job.id;
}

/** The metrics of the best checkpoint, in short. */
export function best(metrics: Values | null): string | null {
  if (!metrics) return null;
  return Object.entries(metrics)
    .filter(([name]) => name !== "step")
    .map(([name, at]) => `${name}\u00a0${value(at)}`)
    .slice(0, 2)
    .join(", ");
}

function Row(props: { job: Job; chosen: boolean; choose: (on: boolean) => void }): JSX.Element {
  const { job } = props;
  return (
    <tr>
      <td class="pick">
        <input
          type="checkbox"
          aria-label={`Choose ${jobName(job)} for comparison`}
          checked={props.chosen}
          onChange={(event) => props.choose(event.currentTarget.checked)}
        />
      </td>
      <td class="name">
        <a href={href(["jobs", job.id])}>{jobName(job)}</a>
        <small>
          {[job.task, job.model].filter(Boolean).join(" · ")}
        </small>
      </td>
      <td class="state">
        <Status of={job.status} />
      </td>
      <td class="progress">
        <Progress job={job} />
      </td>
      <td class="curve">
        <LossLine job={job} />
      </td>
      <td class="when">
        <Ago at={job.created_at} />
      </td>
    </tr>
  );
}

function Progress({ job }: { job: Job }): JSX.Element | null {
  const now = useNow(job.status === "running");
  if (job.status === "queued" && job.queue) return <small>number {job.queue.position} in the queue</small>;
  if (job.status === "failed") return <small title={job.error?.message}>{job.error?.code}</small>;
  if (ENDED.includes(job.status)) {
    return job.started_at && job.finished_at ? (
      <small>took {duration(job.finished_at - job.started_at)}</small>
    ) : null;
  }
  if (!job.progress) return job.phase ? <small>{job.phase}</small> : null;
  const { step, total_steps, percent } = job.progress;
  const left = job.estimated_finish ? `, ${duration(job.estimated_finish - now)} left` : "";
  return (
    <>
      <Bar percent={percent} label={`Progress of ${jobName(job)}`} />
      <small>
        {count(step)}
        {total_steps ? ` of ${count(total_steps)}` : ""}
        {left}
      </small>
    </>
  );
}

/** The training loss in small: once of a job that has ended, again and again of one that runs. */
function LossLine({ job }: { job: Job }): JSX.Element | null {
  const [values, setValues] = useState<(number | null)[]>([]);
  const step = job.progress?.step ?? 0;
  useEffect(() => {
    if (step === 0) return undefined;
    const stop = new AbortController();
    const path = `/fine_tuning/jobs/${job.id}/metrics?points=80&names=loss`;
    get<{ data: MetricSeries[] }>(path, stop.signal)
      .then(({ data }) => setValues(data.find((one) => one.split === "train")?.value ?? []))
      .catch(() => undefined); // An ornament: the list says by itself when the server is away.
    return () => stop.abort();
  }, [job.id, step]);
  return <Sparkline values={values} />;
}

export function JobsPage(): JSX.Element {
  const [chosen, setChosen] = useState<string[]>([]);
  const { data, error, pages } = usePages<Job>("/fine_tuning/jobs", PAGE, EVERY);
  const choose = (id: string, on: boolean): void =>
    setChosen((was) => (on ? [...was, id] : was.filter((other) => other !== id)));
  const compare = (): void => {
    location.hash = compareHref(chosen);
  };

  return (
    <>
      <Title
        aside={
          <div class="actions">
            <button
              type="button"
              class="comparing"
              title="Choose two to ten jobs in the list"
              disabled={chosen.length < 2 || chosen.length > 10}
              onClick={compare}
            >
              Compare{chosen.length > 1 ? ` ${chosen.length}` : ""}
            </button>
            <a class="button strong" href={href(["new"])}>
              New job
            </a>
          </div>
        }
      >
        Jobs
      </Title>
      <Problem error={error} />
      {data && data.data.length === 0 && (
        <p class="empty">
          There are no jobs yet. <a href={href(["files"])}>Upload a data file</a>, then{" "}
          <a href={href(["new"])}>start a job</a> on it.
        </p>
      )}
      {data && data.data.length > 0 && (
        <table class="jobs">
          <thead>
            <tr>
              <th class="pick">
                <span class="unseen">Choose</span>
              </th>
              <th>Job</th>
              <th>State</th>
              <th>Progress</th>
              <th>Loss</th>
              <th class="when">Created</th>
            </tr>
          </thead>
          <tbody>
            {data.data.map((job) => (
              <Row
                key={job.id}
                job={job}
                chosen={chosen.includes(job.id)}
                choose={(on) => choose(job.id, on)}
              />
            ))}
          </tbody>
        </table>
      )}
      {pages}
    </>
  );
}
