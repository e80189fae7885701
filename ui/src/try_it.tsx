// A box to try a model on a text, a picture or a recording: POST /v1/predictions.

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, get, post, upload } from "./api";
import { useCall } from "./hooks";
import { Problem } from "./parts";
import { count, value } from "./format";
import type { DataFile, Json, Model, Prediction } from "./types";

const WAIT = 25;
/** Tasks whose input is a file, with what a browser may offer for it. */
const FILES: Record<string, string> = {
  "image-classification": "image/*",
  "object-detection": "image/*",
  "image-segmentation": "image/*",
  "automatic-speech-recognition": "audio/*",
  "audio-classification": "audio/*",
};
/** A task whose answer would be a recording. */
const SPEAKS = "text-to-speech";
/** Tasks that take two texts: what each is called. */
const PAIRS: Record<string, [string, string]> = {
  "question-answering": ["Question", "Context"],
};
/** A task whose models may know several languages. */
const TRANSLATES = "translation";

async function predict(model: string, input: Json): Promise<Prediction> {
  let found: Prediction;
  try {
    found = await post<Prediction>(`/predictions?wait=${WAIT}`, { model, input });
  } catch (failed) {
    if (failed instanceof ApiError && failed.code === "unknown_url") {
      throw new Error("This server does not try models. Download the files and load them with transformers.");
    }
    throw failed;
  }
  while (found.status === "queued" || found.status === "running") {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    found = await get<Prediction>(`/predictions/${found.id}`);
  }
  if (found.status === "failed") throw new Error(found.error?.message ?? "The prediction failed.");
  return found;
}

export function TryIt({ model }: { model: Model }): JSX.Element {
  const task = model.task ?? "";
  const accept = FILES[task];
  const [text, setText] = useState("");
  const [second, setSecond] = useState("");
  const [source, setSource] = useState("");
  const [target, setTarget] = useState("");
  const [file, setFile] = useState<File | null>(null);
  const [answer, setAnswer] = useState<Prediction | null>(null);
  const { busy, error, run } = useCall();
  const names = PAIRS[task] ?? ["Text"];
  const chat = task === "text-generation" || task === "preference";

  const input = async (): Promise<Json> => {
    if (file) return { file: (await upload<DataFile>(file, "user_data", () => undefined)).id };
    if (names.length === 2) return { text, text_pair: second };
    if (source || target) return { text, source_language: source || null, target_language: target || null };
    return chat ? { messages: [{ role: "user", content: text }] } : text;
  };
  const submit = (event: Event): void => {
    event.preventDefault();
    setAnswer(null);
    void run(async () => setAnswer(await predict(model.id, await input())));
  };
  if (task === SPEAKS) {
    return (
      <section>
        <h2>Try it</h2>
        <p class="hint">Models that speak cannot be tried here. Download the files and load them.</p>
      </section>
    );
  }
  return (
    <section>
      <h2>Try it</h2>
      <form class="try" onSubmit={submit}>
        {accept ? (
          <p>
            <label for="try-file">{accept.startsWith("image") ? "Picture" : "Recording"}</label>
            <input
              id="try-file"
              type="file"
              accept={accept}
              required
              onChange={(event) => {
                setFile(event.currentTarget.files?.[0] ?? null);
                setAnswer(null); // It was told of another file.
              }}
            />
          </p>
        ) : (
          names.map((name, index) => (
            <p key={name}>
              <label for={`try-${index}`}>{name}</label>
              <textarea
                id={`try-${index}`}
                rows={index ? 5 : 2}
                required
                value={index ? second : text}
                onInput={(event) => (index ? setSecond : setText)(event.currentTarget.value)}
              />
            </p>
          ))
        )}
        {task === TRANSLATES && (
          <>
            <div class="fields">
              <Language name="From" value={source} set={setSource} />
              <Language name="To" value={target} set={setTarget} />
            </div>
            <p class="hint">Languages, such as en and de. Only models of several need them.</p>
          </>
        )}
        <div class="actions">
          <button class="strong" disabled={busy}>
            {busy ? "Trying…" : "Try"}
          </button>
        </div>
      </form>
      <Problem error={error} />
      <div aria-live="polite">{answer && <Answer of={answer} picture={accept?.startsWith("image") ? file : null} />}</div>
    </section>
  );
}

interface LanguageProps {
  name: string;
  value: string;
  set: (value: string) => void;
}

function Language({ name, value, set }: LanguageProps): JSX.Element {
  const id = `try-${name.toLowerCase()}`;
  return (
    <p>
      <label for={id}>{name}</label>
      <input id={id} maxLength={64} value={value} onInput={(event) => set(event.currentTarget.value.trim())} />
    </p>
  );
}

interface Scored {
  label: string;
  score: number;
}

interface Box {
  xmin: number;
  ymin: number;
  xmax: number;
  ymax: number;
}

function scored(output: Json): Scored[] | null {
  const rows = Array.isArray(output) ? output : null;
  const fits = (row: Json): boolean =>
    typeof row === "object" && row !== null && !Array.isArray(row) && "label" in row && typeof row["score"] === "number";
  return rows && rows.length > 0 && rows.every(fits) ? (rows as unknown as Scored[]) : null;
}

function Answer({ of, picture }: { of: Prediction; picture: File | null }): JSX.Element {
  const rows = scored(of.output);
  const boxes = rows?.filter((row): row is Scored & { box: Box } => "box" in row) ?? [];
  return (
    <div class="answer">
      {picture && <Picture file={picture} boxes={boxes} />}
      {rows ? (
        <table class="bars">
          <tbody>
            {rows.slice(0, 20).map((row, index) => (
              <tr key={index}>
                <th scope="row">{String(row.label)}</th>
                <td class="number">{value(row.score)}</td>
                <td>
                  <meter min={0} max={1} value={row.score} aria-label={`Score of ${row.label}`} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <Plain of={of.output} />
      )}
      {of.seconds !== null && <p class="hint">took {value(of.seconds)} s</p>}
    </div>
  );
}

function Plain({ of }: { of: Json }): JSX.Element {
  const only = typeof of === "object" && of !== null && !Array.isArray(of) ? of : null;
  const text = typeof of === "string" ? of : (only?.["generated_text"] ?? only?.["text"] ?? only?.["answer"]);
  if (typeof text === "string") return <blockquote>{text}</blockquote>;
  if (Array.isArray(of) && of.length > 16 && of.every((at) => typeof at === "number")) {
    return (
      <p class="wrap">
        {count(of.length)} numbers: {of.slice(0, 8).map((at) => value(at as number)).join(", ")}…
      </p>
    );
  }
  return <pre class="wrap">{JSON.stringify(of, null, 1)}</pre>;
}

/** The picture that was tried, with the boxes that were found in it. */
function Picture({ file, boxes }: { file: File; boxes: (Scored & { box: Box })[] }): JSX.Element {
  const [url, setUrl] = useState("");
  const [size, setSize] = useState<[number, number] | null>(null);
  useEffect(() => {
    const made = URL.createObjectURL(file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return (
    <div class="picture">
      <img
        src={url}
        alt="What was tried"
        onLoad={(event) => setSize([event.currentTarget.naturalWidth, event.currentTarget.naturalHeight])}
      />
      {size && boxes.length > 0 && (
        <svg viewBox={`0 0 ${size[0]} ${size[1]}`} aria-hidden="true">
          {boxes.map(({ box, label }, index) => (
            <rect
              key={index}
              x={box.xmin}
              y={box.ymin}
              width={box.xmax - box.xmin}
              height={box.ymax - box.ymin}
            >
              <title>{label}</title>
            </rect>
          ))}
        </svg>
      )}
    </div>
  );
}
