// The learnt subject of a swap, and the ready one that a newcomer can try with one click.

import { once } from "./api.js";
import { button, h, replace } from "./dom.js";
import { choiceField } from "./forms.js";
import { uploadExamples } from "./inputs.js";
import { concepts } from "./verbs.js";

// Fill `place` with the choice of a subject and its checkpoints.
export async function drawConcepts(place, state, ctx, again = false) {
  try {
    const found = await concepts(again);
    if (!found.length) return replace(place, none(ctx));
    const known = found.flatMap((one) => [
      [one.id, name(one, state.get("model") ?? "toybox")],
      ...(one.id === state.get("concept")?.split("@")[0] ? steps(one) : []),
    ]);
    if (!known.some(([id]) => id === state.get("concept"))) state.set("concept", known[0][0]);
    const chosen = found.find((one) => one.id === state.get("concept").split("@")[0]);
    replace(
      place,
      choiceField("Replace it with", known, {
        value: state.get("concept"),
        name: "concept",
        onInput: (value) => {
          state.set("concept", value);
          drawConcepts(place, state, ctx).then(() => place.querySelector("select").focus());
        },
      }),
      chosen?.built_in && (await photosOf(chosen.id)),
    );
  } catch (problem) {
    replace(place, h("p", { class: "note bad" }, problem.message));
  }
}

function name(one, model) {
  const ready = one.built_in ? ", ready to use" : "";
  const other = one.base_model && one.base_model !== model ? `, for ${one.base_model}` : "";
  return `${one.id} (${one.class_noun || one.phrase}${ready}${other})`;
}

const steps = (one) =>
  (one.checkpoints ?? []).map((step) => [
    `${one.id}@${step}`,
    `${one.id} after ${Number(step.slice(5))} steps`,
  ]);

const none = (ctx) =>
  h(
    "div",
    { class: "field" },
    h("span", { class: "label" }, "Replace it with"),
    h("p", { class: "help" }, "No subject has been learnt yet."),
    button("Learn a subject", () => ctx.go("learn"), { class: "small" }),
  );

const ready = async () => (await once("/examples/examples.json")).ready ?? [];

async function photosOf(id) {
  const found = (await ready()).find((one) => one.name === id);
  return found ? strip(found, "small") : null;
}

const strip = (one, kind = "") =>
  h(
    "div",
    { class: `strip ${kind}` },
    one.files.map((file) =>
      h("img", { src: `/examples/${file}`, alt: `${one.name}, ${one.noun}`, loading: "lazy" }),
    ),
  );

// What the ready subject fills the form with: its photo is uploaded.
export async function readySwap() {
  const [one] = await ready();
  const [photo] = await uploadExamples([one.photo.file]);
  const { prompt, word } = one.photo;
  return { photo, mask: null, select: "", prompt, word, concept: one.name, strength: 1, count: 1 };
}

// The ready subject beside the photo that it is swapped into.
export function readyCard(start) {
  const place = h("div", { class: "stack" });
  ready().then(([one]) => {
    if (!one) return;
    const photo = h("img", { src: `/examples/${one.photo.file}`, alt: one.photo.prompt });
    replace(
      place,
      h(
        "div",
        { class: "ready" },
        h("figure", {}, strip(one), h("figcaption", {}, `${one.name}, a toy ${one.noun}`)),
        h("figure", {}, h("div", { class: "strip" }, photo), h("figcaption", {}, "a photo")),
      ),
      h(
        "div",
        { class: "row center" },
        button(`Swap ${one.name} into this photo`, start, { class: "primary big" }),
      ),
    );
  });
  return place;
}
