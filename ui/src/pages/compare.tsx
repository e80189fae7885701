// Several runs side by side: their curves over one another, and in what their settings differ.

import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";

import { Curves } from "../curves";
import { useGet } from "../hooks";
import { Problem, Title } from "../parts";
import { href } from "../route";
import { RunSeries } from "../series";
import type { Comparison, Job, Json, ListOf } from "../types";
import { jobName } from "./jobs";

const EVERY = 3000;

export function ComparePage({ ids }: { ids: string[] }): JSX.Element {
  const asked = ids.join(" ");
  const query = new URLSearchParams(ids.map((id) => ["job", id]));
  const { data, error } = useGet<Comparison>(`/fine_tuning/compare?${query}`);
  const jobs = useGet<ListOf<Job>>("/fine_tuning/jobs?limit=100");
  const [version, setVersion] = useState(0);
  const [failed, setFailed] = useState<Error | null>(null);
  const names = useMemo(
    () => ids.map((id) => jobs.data?.data.find((job) => job.id === id)).map((job, i) => (job ? jobName(job) : (ids[i] ?? ""))),
    [asked, jobs.data],
  );
  const series = useMemo(() => ids.map((id) => new RunSeries(id)), [asked]);
  const runs = useMemo(
    () => series.map((one, index) => ({ label: names[index] ?? "", series: one })),
    [series, names],
  );

  useEffect(() => {
    const stop = new AbortController();
    let timer: number | undefined;
    const load = async (): Promise<void> => {
      await Promise.all(series.map((one) => one.load(stop.signal)));
      setVersion((was) => was + 1);
      timer = setTimeout(() => void load().catch(tell), EVERY);
    };
    const tell = (broken: Error): void => {
      if (!stop.signal.aborted) setFailed(broken);
    };
    void load().catch(tell);
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [series]);

  return (
    <>
      <Title>Comparison</Title>
      <Problem error={error ?? failed} />
      <Curves runs={runs} version={version} />
      {data && (
        <section>
          <h2>Differences</h2>
          {data.differences.length === 0 ? (
            <p class="empty">These jobs were asked for alike.</p>
          ) : (
            <div class="scroll">
              <table>
                <thead>
                  <tr>
                    <th>Setting</th>
                    {ids.map((id, index) => (
                      <th key={id}>
                        <a href={href(["jobs", id])}>{names[index]}</a>
                      </th>
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
