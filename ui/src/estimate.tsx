// What a job would come to, asked for while its form is filled in.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { post } from "./api";
import { bytes, count, duration } from "./format";
import { Facts } from "./parts";
import type { Estimate, JsonObject } from "./types";

const PAUSE = 500;

export function EstimateOf({ body }: { body: JsonObject | null }): JSX.Element {
  const [found, setFound] = useState<Estimate | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const asked = body && JSON.stringify(body);
  useEffect(() => {
    setFound(null);
    setError(null);
    if (asked === null) return undefined;
    const stop = new AbortController();
    const timer = setTimeout(() => {
      post<Estimate>("/fine_tuning/jobs/estimate", JSON.parse(asked), stop.signal)
        .then(setFound)
        .catch((failed: Error) => !stop.signal.aborted && setError(failed));
    }, PAUSE);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [asked]);

  return (
    <section class="estimate" aria-live="polite" aria-label="Estimate">
      <h2>Estimate</h2>
      {asked === null && <p class="hint">Choose a model and a training file to see what the job comes to.</p>}
      {asked !== null && !found && !error && <p class="hint">Estimating…</p>}
      {error && <p class="hint">There is no estimate: {error.message}</p>}
      {found && <Told of={found} />}
    </section>
  );
}

function Told({ of }: { of: Estimate }): JSX.Element {
  return (
    <>
      <Facts
        of={[
          ["Takes", of.seconds === null ? null : `about ${duration(of.seconds)}`],
          [
            "Between",
            of.seconds_low === null || of.seconds_high === null
              ? null
              : `${duration(of.seconds_low)} and ${duration(of.seconds_high)}`,
          ],
          ["Steps", of.steps === null ? null : count(of.steps)],
          ["Rows", of.rows === null ? null : count(of.rows)],
          ["Tokens", of.trained_tokens === null ? null : count(of.trained_tokens)],
          ["Peak memory", of.peak_memory_bytes === null ? null : bytes(of.peak_memory_bytes)],
          ["Fits a worker", of.fits ? "yes" : "no"],
        ]}
      />
      {of.reasons.map((reason) => (
        <p key={reason} class={of.fits ? "hint" : "problem"}>
          {reason}
        </p>
      ))}
    </>
  );
}
