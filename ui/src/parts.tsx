// Small pieces that several pages are made of.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { curl, download, LARGEST_IN_PAGE, sizeOf } from "./api";
import { ago, moment } from "./format";
import { useCall, useGet, useNow } from "./hooks";
import type { ListOf, Status as JobStatus } from "./types";

const NAMES: Record<string, string> = {
  validating_files: "checking data",
  uploaded: "being checked",
  processed: "ready",
  error: "not usable",
};

export function Status({ of }: { of: JobStatus | "uploaded" | "processed" | "error" }): JSX.Element {
  return <span class={`status is-${of}`}>{NAMES[of] ?? of}</span>;
}

export function Problem({ error }: { error: Error | null | undefined }): JSX.Element | null {
  return error ? (
    <p class="problem" role="alert">
      {error.message}
    </p>
  ) : null;
}

export function Ago({ at }: { at: number }): JSX.Element {
  const now = useNow(true, 20_000);
  return (
    <time dateTime={new Date(at * 1000).toISOString()} title={moment(at)}>
      {ago(at, now)}
    </time>
  );
}

export function Bar({ percent, label }: { percent: number; label: string }): JSX.Element {
  return (
    <progress class="bar" max={100} value={percent} aria-label={label}>
      {percent} %
    </progress>
  );
}

/** A page's heading, which the browser's tab shows as well. */
export function Title({ children, aside }: { children: string; aside?: ComponentChildren }): JSX.Element {
  useEffect(() => {
    document.title = `${children} · Luthier`;
  }, [children]);
  return (
    <div class="title">
      <h1 tabIndex={-1}>{children}</h1>
      {aside}
    </div>
  );
}

/** A list page by page, newest first, and the buttons that lead on. */
export function usePages<T>(
  path: string,
  limit: number,
  every: number,
): { data: ListOf<T> | null; error: Error | null; pages: JSX.Element } {
  const [before, setBefore] = useState<string[]>([]);
  const last = before.at(-1);
  const asked = `${path}${path.includes("?") ? "&" : "?"}limit=${limit}${last ? `&after=${last}` : ""}`;
  const { data, error } = useGet<ListOf<T>>(asked, every);
  const next = data?.has_more ? data.last_id : null;
  const pages = (
    <div class="actions pages">
      {last && (
        <button type="button" onClick={() => setBefore(before.slice(0, -1))}>
          Newer
        </button>
      )}
      {next && (
        <button type="button" onClick={() => setBefore([...before, next])}>
          Older
        </button>
      )}
    </div>
  );
  return { data, error, pages };
}

export function Facts({ of }: { of: [string, ComponentChildren][] }): JSX.Element {
  return (
    <dl class="facts">
      {of
        .filter(([, told]) => told !== null && told !== undefined && told !== "" && told !== false)
        .map(([name, told]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{told}</dd>
          </div>
        ))}
    </dl>
  );
}

export function Dialog(props: {
  title: string;
  close: () => void;
  children: ComponentChildren;
}): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    // The browser gives the focus back when a dialog is closed, not when it is taken out.
    return () => before instanceof HTMLElement && before.focus();
  }, []);
  return (
    <dialog ref={dialog} onClose={props.close} aria-label={props.title}>
      <h2>{props.title}</h2>
      {props.children}
    </dialog>
  );
}

/** A button that asks once more before it does what cannot be taken back. */
export function Asking(props: {
  label: string;
  question: string;
  answer: string;
  disabled?: boolean;
  run: () => Promise<void>;
}): JSX.Element {
  const [open, setOpen] = useState(false);
  const { busy, error, run } = useCall();
  const confirm = (): Promise<void> =>
    run(async () => {
      await props.run();
      setOpen(false);
    });
  return (
    <>
      <button type="button" disabled={props.disabled} onClick={() => setOpen(true)}>
        {props.label}
      </button>
      {open && (
        <Dialog title={props.question} close={() => setOpen(false)}>
          <Problem error={error} />
          <div class="actions">
            <button type="button" onClick={() => setOpen(false)}>
              Leave it
            </button>
            <button type="button" class="strong" disabled={busy} onClick={confirm}>
              {props.answer}
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}

/**
 * A download with the key; of what is too large for the page's memory, the command that does it.
 * `bytes` is null where the size is not known yet.
 */
export function Download(props: {
  path: string;
  name: string;
  bytes: number | null;
  label?: string;
}): JSX.Element {
  const [open, setOpen] = useState(false);
  const { busy, error, run } = useCall();
  const start = (): Promise<void> =>
    run(async () => {
      if ((props.bytes ?? (await sizeOf(props.path))) > LARGEST_IN_PAGE) setOpen(true);
      else await download(props.path, props.name);
    });
  return (
    <>
      <button type="button" disabled={busy} onClick={start} aria-label={`Download ${props.name}`}>
        {busy ? "Downloading…" : (props.label ?? "Download")}
      </button>
      <Problem error={error} />
      {open && (
        <Dialog title={`${props.name} is large`} close={() => setOpen(false)}>
          <p>Fetch it in a terminal, where a download that broke off goes on:</p>
          <pre class="wrap">{curl(props.path, props.name)}</pre>
          <div class="actions">
            <button type="button" onClick={() => setOpen(false)}>
              Close
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}

/** A line of a few points, as wide as its cell. */
export function Sparkline({ values }: { values: (number | null)[] }): JSX.Element | null {
  const known = values.filter((value): value is number => value !== null);
  if (known.length < 2) return null;
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  const points = known.map(
    (value, index) => `${(100 * index) / (known.length - 1)},${22 - (20 * (value - low)) / span}`,
  );
  return (
    <svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
      <polyline points={points.join(" ")} />
    </svg>
  );
}
