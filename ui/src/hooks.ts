import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { get } from "./api";

interface Loaded<T> {
  data: T | null;
  error: Error | null;
  reload: () => void;
}

/**
 * What a path answers, asked again every so many milliseconds while the page is in view. The last
 * good answer stays while the server is away.
 */
export function useGet<T>(path: string | null, every: number | null = null): Loaded<T> {
  const [state, setState] = useState<{ path: string | null; data: T | null; error: Error | null }>({
    path,
    data: null,
    error: null,
  });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === null) return undefined;
    const stop = new AbortController();
    let timer: number | undefined;
    const ask = async (): Promise<void> => {
      try {
        const data = await get<T>(path, stop.signal);
        if (!stop.signal.aborted) setState({ path, data, error: null });
      } catch (error) {
        if (stop.signal.aborted) return;
        setState((was) => ({ path, data: was.path === path ? was.data : null, error: error as Error }));
      }
      if (every !== null && !stop.signal.aborted) timer = setTimeout(again, every);
    };
    const again = (): void => {
      if (document.hidden) timer = setTimeout(again, every ?? 0);
      else void ask();
    };
    void ask();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [path, every, turn]);
  const reload = useCallback(() => setTurn((was) => was + 1), []);
  return { data: state.path === path ? state.data : null, error: state.error, reload };
}

/** The time in unix seconds, renewed while something on the page counts by it. */
export function useNow(running = true, every = 1000): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => setNow(Date.now() / 1000), every);
    return () => clearInterval(timer);
  }, [running, every]);
  return now;
}

/** A call that the user made: whether it is under way, and what went wrong with it. */
export function useCall(): {
  busy: boolean;
  error: Error | null;
  run: (call: () => Promise<void>) => Promise<void>;
} {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Error | null>(null);
  const alive = useRef(true);
  useEffect(() => () => void (alive.current = false), []);
  const run = useCallback(async (call: () => Promise<void>) => {
    setBusy(true);
    setError(null);
    try {
      await call();
    } catch (failed) {
      if (alive.current) setError(failed as Error);
    } finally {
      if (alive.current) setBusy(false);
    }
  }, []);
  return { busy, error, run };
}
