// The frame of every page: who is signed in, where one is, and the keys that lead elsewhere.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { key, SIGNED_OUT, signOut } from "./api";
import { ComparePage } from "./pages/compare";
import { FilePage } from "./pages/file";
import { FilesPage } from "./pages/files";
import { JobPage } from "./pages/job";
import { JobsPage } from "./pages/jobs";
import { ModelPage } from "./pages/model";
import { ModelsPage } from "./pages/models";
import { NewJobPage } from "./pages/new_job";
import { SignIn } from "./pages/sign_in";
import { Dialog } from "./parts";
import { go, href, type Route, useRoute } from "./route";
import { switchTheme } from "./theme";

const SHORTCUTS: [string, string][] = [
  ["j", "Jobs"],
  ["f", "Files"],
  ["m", "Models"],
  ["n", "New job"],
  ["t", "Light or dark"],
  ["?", "This list"],
  ["Esc", "Close a dialog"],
  ["Tab", "From one control to the next; the first leads past the navigation"],
];

function Page({ route }: { route: Route }): JSX.Element {
  const [first = "jobs", second] = route.parts;
  switch (first) {
    case "jobs":
      return second ? <JobPage key={second} id={second} query={route.query} /> : <JobsPage />;
    case "files":
      return second ? <FilePage key={second} id={second} /> : <FilesPage key={route.query.get("purpose") ?? ""} query={route.query} />;
    case "models":
      return second ? <ModelPage key={second} id={second} /> : <ModelsPage />;
    case "compare":
      return <ComparePage ids={route.query.getAll("job")} />;
    case "new":
      return <NewJobPage key={route.query.toString()} query={route.query} />;
    default:
      return (
        <p>
          There is no such page. <a href={href(["jobs"])}>Jobs</a> are here.
        </p>
      );
  }
}

export function App(): JSX.Element {
  const route = useRoute();
  const [signedIn, setSignedIn] = useState(key() !== null);
  const [help, setHelp] = useState(false);

  useEffect(() => {
    const left = (): void => setSignedIn(false);
    window.addEventListener(SIGNED_OUT, left);
    return () => window.removeEventListener(SIGNED_OUT, left);
  }, []);

  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      const typing = target.closest("input:not([type=checkbox]):not([type=range]), textarea, select");
      if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
      if (document.querySelector("dialog[open]")) return;
      if (event.key === "?") setHelp(true);
      else if (event.key === "t") switchTheme();
      else if (!signedIn) return;
      else if (event.key === "j") go(["jobs"]);
      else if (event.key === "f") go(["files"]);
      else if (event.key === "m") go(["models"]);
      else if (event.key === "n") go(["new"]);
      else return;
      event.preventDefault();
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, [signedIn]);

  // A new page takes the focus to its heading, so that the keyboard goes on there.
  const at = route.parts[0] ?? "jobs";
  const where = route.parts.join("/");
  const was = useRef(where);
  useEffect(() => {
    if (was.current !== where) document.querySelector("h1")?.focus();
    was.current = where;
  }, [where]);

  const link = (name: string, title: string): JSX.Element => (
    <a href={href([name])} aria-current={at === name ? "page" : undefined}>
      {title}
    </a>
  );
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        To the content
      </a>
      <header class="top">
        <a class="brand" href={href(["jobs"])}>
          Luthier
        </a>
        {signedIn && (
          <nav aria-label="Main">
            {link("jobs", "Jobs")}
            {link("files", "Files")}
            {link("models", "Models")}
            {link("new", "New job")}
          </nav>
        )}
        <div class="tools">
          <button type="button" onClick={switchTheme} aria-label="Light or dark">
            ◐
          </button>
          <button type="button" onClick={() => setHelp(true)} aria-label="Keyboard shortcuts">
            ?
          </button>
          {signedIn && (
            <button type="button" onClick={signOut}>
              Sign out
            </button>
          )}
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {signedIn ? <Page route={route} /> : <SignIn done={() => setSignedIn(true)} />}
      </main>
      {help && (
        <Dialog title="Keyboard shortcuts" close={() => setHelp(false)}>
          <dl class="shortcuts">
            {SHORTCUTS.map(([name, what]) => (
              <div key={name}>
                <dt>
                  <kbd>{name}</kbd>
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
          <form method="dialog" class="actions">
            <button>Close</button>
          </form>
        </Dialog>
      )}
    </>
  );
}

function skip(event: Event): void {
  // The hash is the route, so the jump is made here.
  event.preventDefault();
  document.getElementById("main")?.focus();
}
