// One learnt subject: curves of its run, previews, checkpoints to choose from, what to do with it.

import { forget, get, remove } from "./api.js";
import { bytes, button, confirm, facts, h, say, toast, when } from "./dom.js";
import { lightbox } from "./results.js";
import { chart } from "./plot.js";
import { choiceLabel } from "./settings_form.js";

const SCORES = {
  identity: "similarity to the photos",
  prompt: "follows the prompt",
  copy: "copies a photo",
  drift: "class drifts towards it",
};

export async function learnt(name, ctx) {
  const found = await get(`/api/concepts/${encodeURIComponent(name)}`);
  const curves = found.curves ?? {},
    steps = found.checkpoints ?? [],
    last = stepOf(steps.at(-1));
  const losses = [
    ["loss", "loss", true],
    ["validation", "validation loss", false],
  ]
    .filter(([key]) => curves[key])
    .map(([key, label, smooth]) => ({ name: label, points: curves[key], smooth }));
  const scores = Object.entries(SCORES)
    .filter(([key]) => curves[key])
    .map(([key, label]) => ({ name: label, points: curves[key] }));
  let chosen = name;
  const told = h(
    "p",
    { class: "small muted", "aria-live": "polite" },
    "The final weights are used.",
  );
  const pick = (value) => {
    chosen = value;
    told.textContent =
      value === name
        ? "The final weights are used."
        : `The checkpoint after ${stepOf(value)} steps is used.`;
  };
  const radio = (value, label, preview) =>
    h(
      "label",
      { class: "checkpoint" },
      h("input", {
        type: "radio",
        name: `checkpoint-${name}`,
        value,
        checked: value === name,
        on: { change: () => pick(value) },
      }),
      h("span", {}, label),
      preview,
    );
  const strip = (step) =>
    (found.previews ?? []).includes(step) &&
    button(
      null,
      () =>
        lightbox(
          { url: `/api/concepts/${name}/previews/${step}`, name: `${name}-${step}.png` },
          `Previews after ${step} steps`,
        ),
      { class: "tile", "aria-label": `Show previews after ${step} steps large` },
    );
  const shown = (step) => {
    const tile = strip(step);
    if (tile)
      tile.append(
        h("img", {
          class: "natural",
          src: `/api/concepts/${name}/previews/${step}`,
          alt: `Previews after ${step} steps`,
          loading: "lazy",
        }),
      );
    return tile;
  };
  const best = bestStep(curves);
  const drop = async () => {
    if (
      !(await confirm(`Delete the subject ${name}?`, "Delete", {
        detail: `${bytes(found.bytes)} of weights, checkpoints and previews are removed. The photos stay.`,
      }))
    )
      return;
    try {
      await remove(`/api/concepts/${encodeURIComponent(name)}`);
      forget("/api/concepts");
      say(`${name} deleted`);
      toast(`${name} was deleted.`);
      ctx.go("learn");
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  return h(
    "section",
    { class: "card stack" },
    h(
      "div",
      { class: "card-head" },
      h("h2", {}, `${name} is learnt`),
      h("span", { class: "muted" }, `{${name}} in a prompt becomes "${found.phrase}"`),
    ),
    h(
      "div",
      { class: "row" },
      button("Use it in a swap", () => ctx.go("swap", { concept: chosen }), { class: "primary" }),
      button("Draw it", () => ctx.go("generate", { concept: chosen })),
      button("Use it in an edit", () => ctx.go("edit", { concept: chosen })),
      !found.built_in && button("Delete", drop, { class: "danger" }),
    ),
    (losses.length > 0 || scores.length > 0) &&
      h(
        "div",
        { class: "pictures few" },
        losses.length > 0 && chart("Loss", losses),
        scores.length > 0 &&
          chart("Scores of the previews, 0 to 1", scores, {
            marks: best ? [{ x: best, label: "best" }] : [],
          }),
      ),
    (steps.length > 0 || (found.previews ?? []).length > 0) &&
      h(
        "fieldset",
        { class: "stack tight" },
        h("legend", {}, "Checkpoints"),
        told,
        [...new Set([0, ...(found.previews ?? []), ...steps.map(stepOf)])]
          .sort((a, b) => a - b)
          .filter(
            (step) =>
              steps.some((one) => stepOf(one) === step) || (found.previews ?? []).includes(step),
          )
          .map((step) => {
            const kept = steps.find((one) => stepOf(one) === step),
              label = `After ${step} steps${step === best ? ", best scores" : ""}`;
            return kept && step !== last
              ? radio(`${name}@${kept}`, label, shown(step))
              : h(
                  "div",
                  { class: "checkpoint" },
                  h(
                    "span",
                    { class: "muted" },
                    step === last ? "" : label + (step ? " (not kept)" : ""),
                  ),
                  step === last
                    ? radio(
                        name,
                        `Finished, ${step} steps${step === best ? ", best scores" : ""}`,
                        shown(step),
                      )
                    : shown(step),
                );
          }),
      ),
    facts([
      ["Method", choiceLabel(found.kind)],
      ["Model", found.base_model],
      ["Size", bytes(found.bytes)],
      ["Learnt", found.built_in ? "comes with understudy" : when(found.created)],
    ]),
  );
}

const stepOf = (checkpoint) => Number(String(checkpoint ?? "").split("step-")[1] ?? NaN);

// The step whose harmonic mean of identity and prompt score is highest.
function bestStep(curves) {
  const prompt = new Map(curves.prompt ?? []);
  let best = null,
    most = 0;
  for (const [step, identity] of curves.identity ?? []) {
    const other = prompt.get(step) ?? 0,
      mean = identity > 0 && other > 0 ? (2 * identity * other) / (identity + other) : 0;
    if (step && mean > most) {
      most = mean;
      best = step;
    }
  }
  return best;
}
