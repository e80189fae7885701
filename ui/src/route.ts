// Where the page is: the part of the URL after `#`, so that the server has one page to serve.

import { useEffect, useState } from "preact/hooks";

export interface Route {
  /** Decoded, without the leading slash: ["jobs", "ftjob-1"]. */
  parts: string[];
  query: URLSearchParams;
}

export function current(): Route {
  const [path = "", query = ""] = location.hash.slice(1).split("?", 2);
  return {
    parts: path.split("/").filter(Boolean).map(decodeURIComponent),
    query: new URLSearchParams(query),
  };
}

export function href(parts: string[], query?: Record<string, string | undefined>): string {
  const chosen = Object.entries(query ?? {}).filter((pair): pair is [string, string] => !!pair[1]);
  const tail = chosen.length ? `?${new URLSearchParams(chosen)}` : "";
  return `#/${parts.map(encodeURIComponent).join("/")}${tail}`;
}

export function compareHref(jobs: string[]): string {
  return `#/compare?${new URLSearchParams(jobs.map((id) => ["job", id]))}`;
}

export function go(parts: string[], query?: Record<string, string | undefined>): void {
  location.hash = href(parts, query);
}

export function useRoute(): Route {
  const [route, setRoute] = useState(current);
  useEffect(() => {
    const changed = (): void => setRoute(current());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return route;
}
