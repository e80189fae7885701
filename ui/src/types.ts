// What the API answers, as far as the page reads it. openapi.json has the whole.

export type Status =
  | "validating_files"
  | "queued"
  | "running"
  | "paused"
  | "succeeded"
  | "failed"
  | "cancelled";

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type JsonObject = { [name: string]: Json };
export type Values = Record<string, number | null>;

export interface ListOf<T> {
  data: T[];
  has_more: boolean;
  last_id: string | null;
}

export interface Attempt {
  number: number;
  worker_id: string;
  started_at: number;
  ended_at: number | null;
  outcome: string | null;
  reason: string | null;
  resumed_from_step: number | null;
}

export interface Job {
  id: string;
  created_at: number;
  started_at: number | null;
  finished_at: number | null;
  estimated_finish: number | null;
  model: string;
  fine_tuned_model: string | null;
  status: Status;
  desired: "run" | "pause" | "cancel";
  phase: string | null;
  error: { code: string; message: string; param: string | null } | null;
  training_file: string;
  validation_file: string | null;
  result_files: string[];
  seed: number;
  suffix: string | null;
  task: string | null;
  trained_tokens: number | null;
  metadata: Record<string, string> | null;
  method: { type: string; supervised?: MethodParameters; dpo?: MethodParameters };
  progress: { step: number; total_steps: number | null; epoch: number | null; percent: number } | null;
  queue: { position: number; estimated_start: number | null } | null;
  speed?: {
    steps_per_second: number | null;
    samples_per_second: number | null;
    tokens_per_second: number | null;
  } | null;
  peak_memory_bytes?: number | null;
  cloned_from?: string | null;
  provenance?: JsonObject | null;
  metrics: { latest: Record<string, Values> | null; best: Values | null };
  attempts: Attempt[];
  resolved: JsonObject | null;
}

interface MethodParameters {
  hyperparameters: JsonObject;
}

export interface JobEvent {
  id: string;
  created_at: number;
  level: "info" | "warn" | "error";
  message: string;
  type: string;
  data: JsonObject;
}

export interface MetricPoint {
  step: number;
  split: "train" | "valid";
  values: Values;
}

export interface MetricSeries {
  name: string;
  split: "train" | "valid";
  step: number[];
  value: (number | null)[];
}

export interface Checkpoint {
  id: string;
  created_at: number;
  fine_tuned_model_checkpoint: string;
  step_number: number;
  metrics: Values;
  bytes: number;
  reason: string;
  best: boolean;
}

export interface DataFile {
  id: string;
  bytes: number;
  created_at: number;
  filename: string;
  purpose: string;
  status: "uploaded" | "processed" | "error";
  status_details: string | null;
  sha256: string;
  validation: string | null;
}

export interface Finding {
  code: string;
  message: string;
  hint: string;
  count: number;
}

export interface CheckedFile {
  rows: number;
  labels: string[];
  shape: string;
  report: {
    file: string;
    format: string;
    labels?: Record<string, number>;
    findings?: Finding[];
    profile?: JsonObject;
    [name: string]: unknown;
  };
  skipped_file: string | null;
}

export interface RowProblem {
  file?: string;
  line?: number;
  row?: number;
  entry?: string;
  column?: string;
  code: string;
  message: string;
  hint?: string;
  sample?: string;
}

export interface Validation {
  id: string;
  created_at: number;
  finished_at: number | null;
  status: "queued" | "running" | "succeeded" | "failed";
  task: string | null;
  training: CheckedFile | null;
  validation: CheckedFile | null;
  error: { code: string; message: string; details: RowProblem[] } | null;
}

export interface Model {
  id: string;
  created: number;
  owned_by: string;
  base_model: string | null;
  task: string | null;
  fine_tuning_job_id: string | null;
  step: number | null;
  bytes: number | null;
  metrics: Values | null;
}

export interface ModelFile {
  path: string;
  bytes: number;
  sha256: string;
}

export interface Schema {
  type?: string;
  const?: Json;
  enum?: Json[];
  anyOf?: Schema[];
  default?: Json;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
}

export interface Task {
  id: string;
  title: string;
  description: string;
  modality: "text" | "image" | "audio";
  trainable: boolean;
  shapes: { name: string; columns: { name: string; description: string; required: boolean }[] }[];
  formats: string[];
  example_text: Record<string, string>;
  metrics: string[];
  hyperparameters: { properties: Record<string, Schema> };
}

export interface Estimate {
  task: string | null;
  rows: number | null;
  steps: number | null;
  trained_tokens: number | null;
  peak_memory_bytes: number | null;
  seconds: number | null;
  seconds_low: number | null;
  seconds_high: number | null;
  fits: boolean;
  worker: string | null;
  reasons: string[];
}

export interface Prediction {
  id: string;
  model: string;
  status: "queued" | "running" | "succeeded" | "failed";
  output: Json;
  error: { code: string; message: string } | null;
  seconds: number | null;
}

export interface Comparison {
  jobs: { id: string; status: Status; best: Values | null; seconds: number | null }[];
  differences: { path: string; values: Json[] }[];
}

export const ENDED: readonly Status[] = ["succeeded", "failed", "cancelled"];
