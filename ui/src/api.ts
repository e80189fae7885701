// Calls of the public API. The key lives in sessionStorage: it is gone when the tab is closed.

const KEY = "luthier.key";
export const SIGNED_OUT = "luthier:signed-out";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly param: string | null = null,
  ) {
    super(message);
  }
}

export function key(): string | null {
  return sessionStorage.getItem(KEY);
}

export function signIn(text: string): void {
  sessionStorage.setItem(KEY, text);
}

export function signOut(): void {
  sessionStorage.removeItem(KEY);
  window.dispatchEvent(new Event(SIGNED_OUT));
}

/** A request with the key. Throws ApiError for every answer that is none of success. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("Authorization", `Bearer ${key() ?? ""}`);
  let answer: Response;
  try {
    answer = await fetch(`/v1${path}`, { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", "The server cannot be reached. Is it running?");
  }
  if (!answer.ok) throw await failure(answer);
  return answer;
}

async function failure(answer: Response): Promise<ApiError> {
  if (answer.status === 401) signOut();
  return problem(answer.status, await answer.text());
}

function problem(status: number, text: string): ApiError {
  try {
    const { error } = JSON.parse(text) as {
      error: { message: string; code: string | null; param: string | null };
    };
    return new ApiError(status, error.code ?? "", error.message, error.param);
  } catch {
    return new ApiError(status, "", `The server answered ${status}.`);
  }
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const answer = await request(path, signal ? { signal } : {});
  return (await answer.json()) as T;
}

export async function post<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const answer = await request(path, {
    method: "POST",
    ...(signal && { signal }),
    ...(body !== undefined && {
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    }),
  });
  return (await answer.json()) as T;
}

export async function remove(path: string): Promise<void> {
  await request(path, { method: "DELETE" });
}

/** Upload a file; XMLHttpRequest because fetch tells nothing of how far an upload is. */
export function upload<T>(file: File, purpose: string, told: (part: number) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("purpose", purpose);
    form.append("file", file, file.name);
    const call = new XMLHttpRequest();
    call.open("POST", "/v1/files");
    call.setRequestHeader("Authorization", `Bearer ${key() ?? ""}`);
    call.upload.onprogress = (event) => told(event.loaded / event.total);
    call.onerror = () =>
      reject(new ApiError(0, "unreachable", "The upload broke off. Try it again."));
    call.onload = () => {
      if (call.status === 200) return resolve(JSON.parse(call.responseText) as T);
      if (call.status === 401) signOut();
      return reject(problem(call.status, call.responseText));
    };
    call.send(form);
  });
}

/** Beyond this, a download goes by curl: the page would have to hold all of it in memory. */
export const LARGEST_IN_PAGE = 256 * 2 ** 20;

export async function sizeOf(path: string): Promise<number> {
  const answer = await request(path, { method: "HEAD" });
  return Number(answer.headers.get("content-length"));
}

/** Fetch a file with the key and hand it to the browser's downloads. */
export async function download(path: string, name: string): Promise<void> {
  const answer = await request(path);
  const url = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser reads the blob after this turn; a minute is more than it needs to begin.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export function curl(path: string, name: string): string {
  return `curl -fC - -H "Authorization: Bearer $LUTHIER_API_KEY" -o '${name}' '${location.origin}/v1${path}'`;
}

export function modelPath(model: string): string {
  return `/models/${encodeURIComponent(model)}`;
}

export function filePath(model: string, path: string): string {
  return `${modelPath(model)}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
}
