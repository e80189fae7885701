// The project's own models, and the base models that are known without asking a hub.

import type { JSX } from "preact";

import { bytes } from "../format";
import { useGet } from "../hooks";
import { Ago, Problem, Title } from "../parts";
import { href } from "../route";
import type { ListOf, Model } from "../types";

export function ModelsPage(): JSX.Element {
  const { data, error } = useGet<ListOf<Model>>("/models", 5000);
  const own = (data?.data ?? []).filter((model) => model.owned_by !== "base");
  const bases = (data?.data ?? []).filter((model) => model.owned_by === "base");
  return (
    <>
      <Title>Models</Title>
      <Problem error={error} />
      {data && own.length === 0 && (
        <p class="empty">
          No model has been trained yet. A job that succeeds puts one here: <a href={href(["new"])}>start one</a>.
        </p>
      )}
      {own.length > 0 && (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th>Model</th>
                <th class="spare">Task</th>
                <th class="number">Size</th>
                <th class="when spare">Made</th>
              </tr>
            </thead>
            <tbody>
              {own.map((model) => (
                <tr key={model.id}>
                  <td class="name">
                    <a href={href(["models", model.id])}>{model.id}</a>
                    <small>from {model.base_model}</small>
                  </td>
                  <td class="spare">{model.task}</td>
                  <td class="number">{model.bytes === null ? "–" : bytes(model.bytes)}</td>
                  <td class="when spare">
                    <Ago at={model.created} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {bases.length > 0 && (
        <section>
          <h2>Base models</h2>
          <ul class="plain">
            {bases.map((model) => (
              <li key={model.id}>
                <a href={href(["models", model.id])}>{model.id}</a>
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  );
}
