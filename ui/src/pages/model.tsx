// One model: its files, and a box to try it.

import type { JSX } from "preact";

import { filePath, modelPath, remove } from "../api";
import { bytes, value, words } from "../format";
import { useGet } from "../hooks";
import { Ago, Asking, Download, Facts, Problem, Title } from "../parts";
import { go, href } from "../route";
import { TryIt } from "../try_it";
import type { ListOf, Model, ModelFile } from "../types";

export function ModelPage({ id }: { id: string }): JSX.Element {
  const path = modelPath(id);
  const { data: model, error } = useGet<Model>(path);
  const files = useGet<ListOf<ModelFile>>(model && model.owned_by !== "base" ? `${path}/files` : null);
  if (!model) {
    return (
      <>
        <Title>Model</Title>
        <Problem error={error} />
      </>
    );
  }
  const rows = files.data?.data ?? [];
  const all = rows.reduce((sum, file) => sum + file.bytes, 0);
  const name = id.replaceAll(/[^\w.-]+/g, "_");
  return (
    <>
      <Title
        aside={
          <div class="actions">
            {model.step === null && (
              <Asking
                label="Delete"
                question="Delete this model and its files?"
                answer="Delete the model"
                run={async () => {
                  await remove(path);
                  go(["models"]);
                }}
              />
            )}
            {rows.length > 0 && (
              <Download path={`${path}/archive`} name={`${name}.tar`} bytes={all} label="Download all" />
            )}
          </div>
        }
      >
        {id}
      </Title>
      <Facts
        of={[
          ["Base model", model.base_model],
          ["Task", model.task],
          ["Step", model.step],
          ...Object.entries(model.metrics ?? {})
            .filter(([name, at]) => name !== "step" && typeof at === "number")
            .map(([name, at]): [string, string] => [words(name), value(at)]),
          ["Made", model.created > 0 && <Ago at={model.created} />],
          [
            "Job",
            model.fine_tuning_job_id && (
              <a href={href(["jobs", model.fine_tuning_job_id])}>{model.fine_tuning_job_id}</a>
            ),
          ],
        ]}
      />
      {model.owned_by === "base" ? (
        <p>
          A base model. <a href={href(["new"], { model: id })}>Train it</a>
        </p>
      ) : (
        <Own model={model} files={files.data?.data ?? []} error={files.error} />
      )}
    </>
  );
}

function Own(props: { model: Model; files: ModelFile[]; error: Error | null }): JSX.Element {
  return (
    <>
      <TryIt model={props.model} />
      <section>
        <h2>Files</h2>
        <p class="hint">A folder that transformers loads as it is.</p>
        <Problem error={props.error} />
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th>Path</th>
                <th class="number">Size</th>
                <th class="spare">SHA-256</th>
                <th class="get">
                  <span class="unseen">Download</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {props.files.map((file) => (
                <tr key={file.path}>
                  <td class="name">{file.path}</td>
                  <td class="number">{bytes(file.bytes)}</td>
                  <td class="spare">
                    <code title={file.sha256}>{file.sha256.slice(0, 12)}…</code>
                  </td>
                  <td class="get">
                    <Download
                      path={filePath(props.model.id, file.path)}
                      name={file.path.split("/").at(-1) ?? file.path}
                      bytes={file.bytes}
                    />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </>
  );
}
