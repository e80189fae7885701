import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { get, signIn, signOut } from "../api";
import { useCall } from "../hooks";
import { Problem, Title } from "../parts";

export function SignIn({ done }: { done: () => void }): JSX.Element {
  const [text, setText] = useState("");
  const { busy, error, run } = useCall();
  const submit = (event: Event): void => {
    event.preventDefault();
    void run(async () => {
      signIn(text.trim());
      try {
        await get("/fine_tuning/jobs?limit=1");
      } catch (refused) {
        signOut();
        throw refused;
      }
      done();
    });
  };
  return (
    <form class="narrow" onSubmit={submit}>
      <Title>Sign in</Title>
      <p>
        <label for="key">API key</label>
        <input
          id="key"
          type="password"
          autocomplete="off"
          spellcheck={false}
          required
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          aria-describedby="key-hint"
        />
      </p>
      <p id="key-hint" class="hint">
        <code>luthier-server up</code> wrote one to <code>luthier-data/api_key</code>; elsewhere, ask
        who runs the service. It stays in this tab and is forgotten when you close it.
      </p>
      <Problem error={error} />
      <div class="actions">
        <button class="strong" disabled={busy}>
          Sign in
        </button>
      </div>
    </form>
  );
}
