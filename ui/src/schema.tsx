// Fields made from the JSON schema of a task's hyperparameters.

import type { JSX } from "preact";

import { words } from "./format";
import type { Json, JsonObject, Schema } from "./types";

interface Kind {
  /** Values to choose from; null for one that is typed. */
  choices: string[] | null;
  number: Schema | null;
  fallback: string;
}

function kindOf(schema: Schema): Kind {
  const variants = schema.anyOf ?? [schema];
  const number = variants.find((one) => one.type === "integer" || one.type === "number") ?? null;
  const choices = variants.flatMap((one) => {
    if (one.enum) return one.enum.map(String);
    if (one.const !== undefined) return [String(one.const)];
    return one.type === "boolean" ? ["true", "false"] : [];
  });
  const given = schema.default;
  const fallback = given === undefined || given === null ? "by default" : String(given);
  return { choices: number ? null : choices, number, fallback };
}

function parsed(text: string, schema: Schema | undefined): Json {
  const kind = schema && kindOf(schema);
  if (kind?.number && text !== "auto") return Number(text);
  if (text === "true" || text === "false") return text === "true";
  if (text.startsWith("{")) return JSON.parse(text) as Json;
  return text;
}

/** The values that were chosen, without those that are left to the service. */
export function chosenOf(chosen: Record<string, string>, schemas: Record<string, Schema>): JsonObject {
  return Object.fromEntries(
    Object.entries(chosen)
      .filter(([, text]) => text !== "")
      .map(([name, text]) => [name, parsed(text, schemas[name])]),
  );
}

export function SchemaField(props: {
  name: string;
  schema: Schema;
  text: string;
  set: (text: string) => void;
  invalid: boolean;
}): JSX.Element {
  const { choices, number, fallback } = kindOf(props.schema);
  const id = `of-${props.name}`;
  const range = number && bounds(number);
  return (
    <p class="field">
      <label for={id}>{words(props.name)}</label>
      {choices ? (
        <select
          id={id}
          value={props.text}
          aria-invalid={props.invalid}
          onChange={(event) => props.set(event.currentTarget.value)}
        >
          <option value="">{fallback}</option>
          {choices
            .filter((choice) => choice !== fallback)
            .map((choice) => (
              <option key={choice} value={choice}>
                {choice}
              </option>
            ))}
        </select>
      ) : (
        <input
          id={id}
          type="number"
          step={number?.type === "integer" ? 1 : "any"}
          min={number?.minimum}
          max={number?.maximum ?? number?.exclusiveMaximum}
          placeholder={fallback}
          title={range ?? undefined}
          value={props.text}
          aria-invalid={props.invalid}
          onInput={(event) => props.set(event.currentTarget.value)}
        />
      )}
    </p>
  );
}

function bounds(of: Schema): string {
  const low = of.minimum ?? of.exclusiveMinimum;
  const high = of.maximum ?? of.exclusiveMaximum;
  return [low !== undefined && `from ${low}`, high !== undefined && `to ${high}`].filter(Boolean).join(" ");
}
