// Several runs side by side: their curves over one another, and in what they differ.

import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";

import { COLORS } from "../chart";
import { Curves } from "../curves";
import { duration } from "../format";
import { useGet } from "../hooks";
import { Problem, Status, Title } from "../parts";
import { href } from "../route";
import { RunSeries } from "../series";
import { type Comparison, ENDED, type Job, type Json, type ListOf } from "../types";
import { best, jobName } from "./jobs";

const EVERY = 3000;

export function ComparePage({ ids }: { ids: string[] }): JSX.Element {
  const query = new URLSearchParams(ids.map((id) => ["job", id])).toString();
  const [every, setEvery] = useState<number | null>(EVERY);
  const { data, error } = useGet<Comparison>(`/fine_tuning/compare?${query}`, every);
  const { data: jobs } = useGet<ListOf<Job>>("/fine_tuning/jobs?limit=100");
  const [version, setVersion] = useState(0);
  const [failed, setFailed] = useState<Error | null>(null);
  const series = useMemo(() => ids.map((id) => new RunSeries(id)), [query]);
  const names = useMemo(() => {
    const known = new Map(jobs?.data.map((job) => [job.id, jobName(job)]));
    const told = ids.map((id) => known.get(id) ?? id);
    const twice = (name: string): boolean => told.indexOf(name) !== told.lastIndexOf(name);
    return told.map((name, index) => (twice(name) ? `${name} (${ids[index]?.slice(-6)})` : name));
  }, [query, jobs]);
  const runs = useMemo(
    () => series.map((one, index) => ({ label: names[index] ?? "", series: one })),
    [series, names],
  );

  useEffect(() => {
    if (!data) return undefined;
    if (data.jobs.every((job) => ENDED.includes(job.status))) setEvery(null);
    const stop = new AbortController();
    Promise.all(series.map((one) => one.load(stop.signal)))
      .then(() => setVersion((was) => was + 1))
      .catch((broken: Error) => !stop.signal.aborted && setFailed(broken));
    return () => stop.abort();
  }, [data, series]);

  return (
    <>
      <Title>Comparison</Title>
      <Problem error={error ?? failed} />
      {data && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th>Job</th>
                <th>State</th>
                <th class="spare">Best</th>
                <th class="number">Time</th>
              </tr>
            </thead>
            <tbody>
              {data.jobs.map((job, index) => (
                <tr key={job.id}>
                  <td class="name">
                    <span class="mark" style={{ background: `var(--c${index % COLORS})` }} />
                    <a href={href(["jobs", job.id])}>{names[index]}</a>
                  </td>
                  <td>
                    <Status of={job.status} />
                  </td>
                  <td class="spare">{best(job.best) ?? "–"}</td>
                  <td class="number">{job.seconds === null ? "–" : duration(job.seconds)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Curves runs={runs} version={version} over={every === null} />
      {data && (
        <section>
          <h2>Differences</h2>
          {data.differences.length === 0 ? (
            <p class="empty">These jobs do not differ in anything that they were made of.</p>
          ) : (
            <div class="scroll">
              <table>
                <thead>
                  <tr>
                    <th>Setting</th>
                    {ids.map((id, index) => (
                      <th key={id}>{names[index]}</th>
                    ))}
                  </tr>
                </thead>
                <tbody>
                  {data.differences.map((one) => (
                    <tr key={one.path}>
                      <th scope="row">{one.path}</th>
                      {one.values.map((found, index) => (
                        <td key={index}>{told(found)}</td>
                      ))}
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
        </section>
      )}
    </>
  );
}

function told(found: Json): string {
  if (found === null) return "–";
  return typeof found === "string" ? found : JSON.stringify(found);
}
