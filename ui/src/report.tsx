// What was found in data files: rows, labels, remarks, and the problems with their places.

import type { JSX } from "preact";

import { count, value, words } from "./format";
import { Download, Facts } from "./parts";
import type { CheckedFile, Json, JsonObject, RowProblem, Validation } from "./types";

const SHOWN = 50;

export function Report({ of }: { of: Validation }): JSX.Element {
  if (of.status === "queued" || of.status === "running") {
    return <p class="empty">The data is being checked row by row.</p>;
  }
  return (
    <>
      {of.training && <Checked of={of.training} title="Training data" />}
      {of.validation && <Checked of={of.validation} title="Validation data" />}
      {of.error && (
        <section>
          <h2>What to mend</h2>
          <p class="problem" role="alert">
            {of.error.message}
          </p>
          <Problems of={of.error.details} />
        </section>
      )}
    </>
  );
}

function Checked({ of, title }: { of: CheckedFile; title: string }): JSX.Element {
  const { report } = of;
  const labels = Object.entries(report.labels ?? {}).sort((a, b) => b[1] - a[1]);
  const most = labels[0]?.[1] ?? 1;
  const findings = report.findings ?? [];
  return (
    <section>
      <h2>{title}</h2>
      <Facts
        of={[
          ["File", report.file],
          ["Rows", count(of.rows)],
          ["Format", report.format],
          ["Columns", of.shape.replaceAll(",", ", ")],
        ]}
      />
      {labels.length > 0 && (
        <table class="bars">
          <caption>Labels</caption>
          <tbody>
            {labels.slice(0, SHOWN).map(([name, rows]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td class="number">{count(rows)}</td>
                <td>
                  <meter min={0} max={most} value={rows} aria-label={`Rows labelled ${name}`} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {labels.length > SHOWN && <p class="hint">and {count(labels.length - SHOWN)} more labels</p>}
      {findings.length > 0 && (
        <>
          <h3>Worth a look</h3>
          <ul class="findings">
            {findings.map((one) => (
              <li key={one.code + one.message}>
                {one.message}. <span class="hint">{one.hint}</span>
              </li>
            ))}
          </ul>
        </>
      )}
      <Profile of={report.profile} />
      {of.skipped_file && (
        <Download
          path={`/files/${of.skipped_file}/content`}
          name={`${of.skipped_file}.jsonl`}
          bytes={null}
          label="Download the rows that were left out"
        />
      )}
    </section>
  );
}

/** Some figures of the profile, by name as the service gives them. */
function Profile({ of }: { of: JsonObject | undefined }): JSX.Element | null {
  if (!of) return null;
  const rows = Object.entries(of)
    .map(([name, found]): [string, string] => [words(name), told(found)])
    .filter(([, text]) => text !== "");
  return rows.length ? (
    <details class="profile">
      <summary>Profile</summary>
      <table class="tree">
        <tbody>
          {rows.map(([name, text]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td class="wrap">{text}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  ) : null;
}

function told(found: Json): string {
  if (found === null) return "";
  if (typeof found === "number") return value(found);
  if (Array.isArray(found)) return found.map(told).join(", ");
  if (typeof found === "object") {
    return Object.entries(found)
      .map(([name, inner]) => [name.replaceAll("_", " "), told(inner)])
      .filter(([, text]) => text !== "")
      .map(([name, text]) => `${name} ${text}`)
      .join("; ");
  }
  return String(found);
}

function Problems({ of }: { of: RowProblem[] }): JSX.Element | null {
  if (of.length === 0) return null;
  return (
    <div class="scroll">
      <table class="problems">
        <thead>
          <tr>
            <th>Place</th>
            <th>What is wrong</th>
            <th>What to do</th>
          </tr>
        </thead>
        <tbody>
          {of.slice(0, SHOWN).map((one, index) => (
            <tr key={index}>
              <td class="place">{place(one)}</td>
              <td>
                {one.message}
                {one.sample && <pre class="wrap">{one.sample}</pre>}
              </td>
              <td>{one.hint}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {of.length > SHOWN && <p class="hint">and {count(of.length - SHOWN)} more</p>}
    </div>
  );
}

function place(one: RowProblem): string {
  const unit = (["line", "row", "entry"] as const).find((name) => one[name] !== undefined && one[name] !== null);
  return [one.file, unit && `${unit} ${one[unit]}`, one.column && `column ${one.column}`]
    .filter(Boolean)
    .join(", ");
}
