// One file and what was found in it.

import type { JSX } from "preact";

import { remove } from "../api";
import { bytes } from "../format";
import { useGet } from "../hooks";
import { Ago, Asking, Download, Facts, Problem, Status, Title } from "../parts";
import { Report } from "../report";
import { go, href } from "../route";
import type { DataFile, Validation } from "../types";

export function FilePage({ id }: { id: string }): JSX.Element {
  const path = `/files/${encodeURIComponent(id)}`;
  const first = useGet<DataFile>(path);
  const waiting = first.data?.status === "uploaded";
  const again = useGet<DataFile>(waiting ? path : null, 1000);
  const file = again.data ?? first.data;
  const checked = file?.validation && file.status !== "uploaded" ? file.validation : null;
  const report = useGet<Validation>(checked && `/fine_tuning/validations/${checked}`);
  if (!file) {
    return (
      <>
        <Title>File</Title>
        <Problem error={first.error} />
      </>
    );
  }
  return (
    <>
      <Title
        aside={
          <div class="actions">
            <Asking
              label="Delete"
              question={`Delete ${file.filename}?`}
              answer="Delete the file"
              run={async () => {
                await remove(path);
                go(["files"]);
              }}
            />
            <Download path={`${path}/content`} name={file.filename} bytes={file.bytes} />
            {file.purpose === "fine-tune" && file.status === "processed" && (
              <a class="button strong" href={href(["new"], { file: file.id, task: report.data?.task ?? undefined })}>
                Train on it
              </a>
            )}
          </div>
        }
      >
        {file.filename}
      </Title>
      <p class="line">
        <Status of={file.status} />
      </p>
      {file.status === "error" && !report.data?.error && (
        <p class="problem" role="alert">
          {file.status_details}
        </p>
      )}
      <Facts
        of={[
          ["File", <code>{file.id}</code>],
          ["Purpose", file.purpose],
          ["Size", bytes(file.bytes)],
          ["Task", report.data?.task],
          ["SHA-256", file.sha256 && <code title={file.sha256}>{file.sha256.slice(0, 16)}…</code>],
          ["Uploaded", <Ago at={file.created_at} />],
        ]}
      />
      <Problem error={report.error} />
      {file.status === "uploaded" && <p class="empty">The data is being checked row by row.</p>}
      {report.data && <Report of={report.data} />}
    </>
  );
}
