// The form that starts a job, made from GET /v1/tasks; or clones one with changes.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, post } from "../api";
import { bytes } from "../format";
import { useCall, useGet } from "../hooks";
import { EstimateOf } from "../estimate";
import { Problem, Title } from "../parts";
import { bodyOf, changes, EMPTY, type Fields, fieldsOf } from "../request";
import { go } from "../route";
import { SchemaField } from "../schema";
import type { DataFile, Job, ListOf, Model, Schema, Task } from "../types";
import { Uploader } from "./files";
import { jobName } from "./jobs";

/** Shown at once; the others wait behind a heading. */
const COMMON = ["n_epochs", "batch_size", "learning_rate", "max_steps", "max_length", "eval_every"];
const TUNINGS: [string, string][] = [
  ["full", "all weights"],
  ["lora", "LoRA adapters"],
  ["freeze", "with frozen layers"],
  ["scratch", "from scratch"],
];
const MODALITIES = ["text", "image", "audio"] as const;

export function NewJobPage({ query }: { query: URLSearchParams }): JSX.Element {
  const clone = query.get("clone");
  const origin = useGet<Job>(clone && `/fine_tuning/jobs/${encodeURIComponent(clone)}`);
  const tasks = useGet<ListOf<Task>>("/tasks");
  const models = useGet<ListOf<Model>>("/models");
  const files = useGet<ListOf<DataFile>>("/files?purpose=fine-tune&limit=1000");
  const [fields, setFields] = useState<Fields>({
    ...EMPTY,
    task: query.get("task") ?? "",
    model: query.get("model") ?? "",
    training_file: query.get("file") ?? "",
  });
  useEffect(() => {
    if (origin.data) setFields(fieldsOf(origin.data));
  }, [origin.data]);
  const { busy, error, run } = useCall();

  const set = (part: Partial<Fields>): void => setFields((was) => ({ ...was, ...part }));
  const task = tasks.data?.data.find((one) => one.id === fields.task);
  const schemas = (task ?? tasks.data?.data[0])?.hyperparameters.properties ?? {};
  const ready = fields.model !== "" && fields.training_file !== "" && tasks.data !== null;
  const wrong = error instanceof ApiError ? error.param?.split(".").at(-1) : undefined;
  const submit = (event: Event): void => {
    event.preventDefault();
    void run(async () => {
      const job = origin.data
        ? await post<Job>(`/fine_tuning/jobs/${origin.data.id}/clone`, changes(fields, origin.data, task))
        : await post<Job>("/fine_tuning/jobs", bodyOf(fields, task));
      go(["jobs", job.id]);
    });
  };
  const hyperparameter = ([name, schema]: [string, Schema]): JSX.Element => (
    <SchemaField
      key={name}
      name={name}
      schema={schema}
      text={fields.hyperparameters[name] ?? ""}
      set={(text) => set({ hyperparameters: { ...fields.hyperparameters, [name]: text } })}
      invalid={wrong === name}
    />
  );
  const known = files.data?.data ?? [];
  const common = COMMON.filter((name) => name in schemas);

  return (
    <>
      <Title>{origin.data ? `Clone of ${jobName(origin.data)}` : "New job"}</Title>
      <Problem error={origin.error ?? tasks.error ?? models.error ?? files.error} />
      <form class="beside" onSubmit={submit}>
        <p class="field">
          <label for="of-task">Task</label>
          <select
            id="of-task"
            value={fields.task}
            aria-invalid={wrong === "task"}
            onChange={(event) => set({ task: event.currentTarget.value })}
          >
            <option value="">found from the data</option>
            {MODALITIES.map((modality) => (
              <optgroup key={modality} label={modality}>
                {(tasks.data?.data ?? [])
                  .filter((one) => one.modality === modality && one.trainable)
                  .map((one) => (
                    <option key={one.id} value={one.id}>
                      {one.title}
                    </option>
                  ))}
              </optgroup>
            ))}
          </select>
        </p>
        {task && <About task={task} />}
        <p class="field">
          <label for="of-model">Base model</label>
          <input
            id="of-model"
            list="models"
            required
            autocomplete="off"
            spellcheck={false}
            placeholder="a Hugging Face id, or one of yours"
            value={fields.model}
            aria-invalid={wrong === "model"}
            onInput={(event) => set({ model: event.currentTarget.value })}
          />
          <datalist id="models">
            {(models.data?.data ?? []).map((model) => (
              <option key={model.id} value={model.id} />
            ))}
          </datalist>
        </p>
        <FileField
          id="training_file"
          label="Training file"
          files={known}
          none="choose one"
          required
          value={fields.training_file}
          invalid={wrong === "training_file"}
          set={(id) => set({ training_file: id })}
        />
        <Uploader
          purpose="fine-tune"
          label="Upload a training file"
          done={(file) => {
            files.reload();
            set({ training_file: file.id });
          }}
        />
        <FileField
          id="validation_file"
          label="Validation file"
          files={known}
          none="none"
          value={fields.validation_file}
          invalid={wrong === "validation_file"}
          set={(id) => set({ validation_file: id })}
        />
        <p class="field">
          <label for="of-tuning">Tuning</label>
          <select
            id="of-tuning"
            value={fields.tuning}
            aria-invalid={wrong === "tuning"}
            onChange={(event) => set({ tuning: event.currentTarget.value })}
          >
            {TUNINGS.map(([name, what]) => (
              <option key={name} value={name}>
                {what}
              </option>
            ))}
          </select>
        </p>
        <p class="field">
          <label for="of-suffix">Name</label>
          <input
            id="of-suffix"
            maxLength={64}
            placeholder="a word for the model's name"
            value={fields.suffix}
            aria-invalid={wrong === "suffix"}
            onInput={(event) => set({ suffix: event.currentTarget.value })}
          />
        </p>
        <p class="field">
          <label for="of-seed">Seed</label>
          <input
            id="of-seed"
            type="number"
            min={0}
            placeholder="any"
            value={fields.seed}
            onInput={(event) => set({ seed: event.currentTarget.value })}
          />
        </p>
        <fieldset>
          <legend>Hyperparameters</legend>
          <div class="fields">
            {common.map((name) => hyperparameter([name, schemas[name] as Schema]))}
          </div>
          <details>
            <summary>All of them</summary>
            <div class="fields">
              {Object.entries(schemas)
                .filter(([name]) => !COMMON.includes(name))
                .map(hyperparameter)}
            </div>
          </details>
        </fieldset>
        <EstimateOf body={ready ? bodyOf(fields, task) : null} />
        <Problem error={error} />
        <div class="actions">
          <button class="strong" disabled={busy}>
            {busy ? "Starting…" : "Start the job"}
          </button>
        </div>
      </form>
    </>
  );
}

function FileField(props: {
  id: string;
  label: string;
  files: DataFile[];
  none: string;
  required?: boolean;
  value: string;
  invalid: boolean;
  set: (id: string) => void;
}): JSX.Element {
  const usable = props.files.filter((file) => file.status !== "error");
  return (
    <p class="field">
      <label for={`of-${props.id}`}>{props.label}</label>
      <select
        id={`of-${props.id}`}
        required={props.required}
        value={props.value}
        aria-invalid={props.invalid}
        onChange={(event) => props.set(event.currentTarget.value)}
      >
        <option value="">{props.none}</option>
        {props.value && !usable.some((file) => file.id === props.value) && (
          <option value={props.value}>{props.value}</option>
        )}
        {usable.map((file) => (
          <option key={file.id} value={file.id}>
            {file.filename} ({bytes(file.bytes)}, {file.id.slice(-6)})
          </option>
        ))}
      </select>
    </p>
  );
}

function About({ task }: { task: Task }): JSX.Element {
  const [example] = Object.entries(task.example_text);
  return (
    <details class="about">
      <summary>What the data looks like</summary>
      <p>{task.description}</p>
      {task.shapes.map((shape) => (
        <ul key={shape.name} class="plain">
          {shape.columns.map((column) => (
            <li key={column.name}>
              <code>{column.name}</code> {column.description}
              {!column.required && " (may be left out)"}
            </li>
          ))}
        </ul>
      ))}
      {example && <pre class="wrap">{example[1]}</pre>}
      <p class="hint">Formats: {task.formats.join(", ")}</p>
    </details>
  );
}
