// The form's fields, and the request that they make.

import { chosenOf } from "./schema";
import type { Job, Json, JsonObject, Task } from "./types";

export interface Fields {
  task: string;
  model: string;
  training_file: string;
  validation_file: string;
  suffix: string;
  seed: string;
  tuning: string;
  /** As typed; an empty one is left to the service. */
  hyperparameters: Record<string, string>;
}

export const EMPTY: Fields = {
  task: "",
  model: "",
  training_file: "",
  validation_file: "",
  suffix: "",
  seed: "",
  tuning: "full",
  hyperparameters: {},
};

/** The fields that make a job like this one. */
export function fieldsOf(job: Job): Fields {
  const chosen = (job.method.dpo ?? job.method.supervised)?.hyperparameters ?? {};
  const tuning = job.resolved?.["tuning"];
  return {
    task: job.task ?? "",
    model: job.model,
    training_file: job.training_file,
    validation_file: job.validation_file ?? "",
    suffix: job.suffix ?? "",
    seed: String(job.seed),
    tuning: typeof tuning === "string" ? tuning : "full",
    hyperparameters: Object.fromEntries(
      Object.entries(chosen)
        .filter(([, value]) => value !== null && value !== "auto")
        .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
    ),
  };
}

/** The body of a create call. */
export function bodyOf(fields: Fields, task: Task | undefined): JsonObject {
  const body: JsonObject = { model: fields.model, training_file: fields.training_file };
  if (fields.task) body["task"] = fields.task;
  if (fields.validation_file) body["validation_file"] = fields.validation_file;
  if (fields.suffix) body["suffix"] = fields.suffix;
  if (fields.seed) body["seed"] = Number(fields.seed);
  if (fields.tuning !== "full") body["tuning"] = fields.tuning;
  const chosen = chosenOf(fields.hyperparameters, task?.hyperparameters.properties ?? {});
  if (Object.keys(chosen).length > 0) {
    body["method"] = { type: "supervised", supervised: { hyperparameters: chosen } };
  }
  return body;
}

/**
 * What differs from the job that is cloned, as a merge patch: null takes out what the form no
 * longer holds. What the form does not show is left as it was.
 */
export function changes(fields: Fields, job: Job, task: Task | undefined): JsonObject {
  const before = fieldsOf(job);
  const patch: JsonObject = {};
  for (const name of ["task", "model", "training_file", "validation_file", "suffix", "tuning"] as const) {
    if (fields[name] !== before[name]) patch[name] = fields[name] || null;
  }
  if (fields.seed !== before.seed) patch["seed"] = fields.seed ? Number(fields.seed) : null;
  const schemas = task?.hyperparameters.properties ?? {};
  const now = chosenOf(fields.hyperparameters, schemas);
  const was = chosenOf(before.hyperparameters, schemas);
  // A job shows its rate as a multiplier, and a request may give one of the two alone.
  const [rate, multiplier] = ["learning_rate", "learning_rate_multiplier"] as const;
  if (rate in now && now[multiplier] === was[multiplier]) delete now[multiplier];
  const differs = Object.keys({ ...now, ...was }).some(
    (name) => JSON.stringify(now[name]) !== JSON.stringify(was[name]),
  );
  if (differs) {
    if (multiplier in now) was[rate] ??= null;
    const gone: Json = Object.fromEntries(
      Object.keys(was).filter((name) => !(name in now)).map((name) => [name, null]),
    );
    const { type } = job.method;
    // The older place for them is emptied, since a request may give them once.
    patch["hyperparameters"] = null;
    patch["method"] = { type, [type]: { hyperparameters: { ...gone, ...now } } };
  }
  return patch;
}
