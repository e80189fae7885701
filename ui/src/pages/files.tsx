// Data files: upload, and what became of their check.

import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";

import { upload } from "../api";
import { bytes } from "../format";
import { useCall } from "../hooks";
import { Ago, Bar, Problem, Status, Title, usePages } from "../parts";
import { go, href } from "../route";
import type { DataFile } from "../types";

/** A button that uploads, and a place to drop files on. */
export function Uploader(props: { purpose: string; label: string; done: (file: DataFile) => void }): JSX.Element {
  const chooser = useRef<HTMLInputElement>(null);
  const [part, setPart] = useState(0);
  const [over, setOver] = useState(false);
  const { busy, error, run } = useCall();
  const take = (files: FileList | null | undefined): void => {
    const file = files?.[0];
    if (!file) return;
    void run(async () => {
      setPart(0);
      props.done(await upload<DataFile>(file, props.purpose, setPart));
    });
  };
  return (
    <div
      class={over ? "drop over" : "drop"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        take(event.dataTransfer?.files);
      }}
    >
      <input
        ref={chooser}
        type="file"
        class="unseen"
        tabIndex={-1}
        aria-hidden="true"
        onChange={(event) => {
          take(event.currentTarget.files);
          event.currentTarget.value = "";
        }}
      />
      <button type="button" disabled={busy} onClick={() => chooser.current?.click()}>
        {props.label}
      </button>
      {busy ? <Bar percent={100 * part} label="Upload" /> : <span class="hint">or drop it here</span>}
      <Problem error={error} />
    </div>
  );
}

/** Each with its tab's title, and what is said where there is none. */
const PURPOSES: [string, string, string][] = [
  ["fine-tune", "Data", "No data file has been uploaded yet."],
  ["fine-tune-results", "Results of jobs", "No job has left results yet. They come when one ends."],
  ["user_data", "Tried on models", "No picture or recording has been tried on a model yet."],
];
const PAGE = 100;

export function FilesPage({ query }: { query: URLSearchParams }): JSX.Element {
  const purpose = query.get("purpose") ?? "fine-tune";
  const path = `/files?purpose=${encodeURIComponent(purpose)}`;
  const { data, error, pages } = usePages<DataFile>(path, PAGE, 2000);
  const files = data?.data ?? [];
  const none = PURPOSES.find(([name]) => name === purpose)?.[2] ?? "There is no such file.";
  return (
    <>
      <Title>Files</Title>
      <Uploader purpose="fine-tune" label="Upload a file" done={(file) => go(["files", file.id])} />
      <p class="hint">
        CSV, TSV, JSON Lines, JSON, Parquet, text, CoNLL or SQuAD; pictures and recordings in an archive
        or a folder's table. Every row is checked.
      </p>
      <nav class="tabs" aria-label="Of files">
        {PURPOSES.map(([name, title]) => (
          <a
            key={name}
            href={href(["files"], { purpose: name })}
            aria-current={name === purpose ? "page" : undefined}
          >
            {title}
          </a>
        ))}
      </nav>
      <Problem error={error} />
      {data && files.length === 0 && <p class="empty">{none}</p>}
      {files.length > 0 && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th>File</th>
                <th>State</th>
                <th class="number">Size</th>
                <th class="when spare">Made</th>
              </tr>
            </thead>
            <tbody>
              {files.map((file) => (
                <tr key={file.id}>
                  <td class="name">
                    <a href={href(["files", file.id])}>{file.filename}</a>
                    <small class="spare">{file.id}</small>
                  </td>
                  <td>
                    <Status of={file.status} />
                  </td>
                  <td class="number">{bytes(file.bytes)}</td>
                  <td class="when spare">
                    <Ago at={file.created_at} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {pages}
    </>
  );
}
