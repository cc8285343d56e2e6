// Generate: pictures from words, with learnt subjects in them.

import { consentField, given, modelField, need, settingsPart, workbench } from "../bench.js";
import { button, h, replace } from "../dom.js";
import { numberField, rangeField, textField } from "../forms.js";
import { pictureInput } from "../inputs.js";
import { pictures, resultFigure, valuesTable } from "../results.js";
import { state as stateOf } from "../store.js";
import { concepts } from "../verbs.js";

export const title = "Generate";
export const lead =
  "Draw pictures from words. Name learnt subjects in braces: a photo of a {rex} in the snow.";
const START = {
  prompt: "",
  concepts: [],
  count: 4,
  seed: 0,
  init: null,
  model: null,
  settings: {},
  jobs: [],
};
const EXAMPLE = "a photo of a duck on the beach";
const STRENGTH = 0.6; // share of the steps that change a photo to start from

export function create(ctx) {
  const state = stateOf("generate", START);
  const element = h("div", {});
  let chips, photo;
  const draw = () => {
    const prompt = textField("Description", {
      value: state.get("prompt"),
      rows: 3,
      name: "prompt",
      required: true,
      placeholder: EXAMPLE,
      onInput: (text) => state.set("prompt", text),
    });
    chips = h("div", { class: "field" });
    drawConcepts(chips, state, prompt);
    const settings = settingsPart({
      state,
      verb: "generate",
      basic: ["steps", "guidance", "negative"],
      hidden: ["strength"],
    });
    const begin = startPart(state);
    photo = begin.photo;
    const form = h(
      "div",
      { class: "stack" },
      prompt,
      chips,
      h(
        "div",
        { class: "two" },
        numberField("Pictures", {
          value: state.get("count"),
          min: 1,
          max: 64,
          name: "count",
          onInput: (value) => state.set("count", value ?? 1),
        }),
        numberField("First seed", {
          value: state.get("seed"),
          min: 0,
          max: 4294967295,
          name: "seed",
          help: "The same seed gives the same picture.",
          onInput: (value) => state.set("seed", value ?? 0),
          extra: button(
            "Random",
            () => {
              state.set("seed", Math.floor(Math.random() * 1e6));
              draw();
            },
            { class: "quiet", "aria-label": "Random seed" },
          ),
        }),
      ),
      begin.element,
      settings,
      modelField(state, () => settings.draw()),
    );
    const bench = workbench({
      state,
      label: "Generate",
      form,
      refreshJobs: ctx.refreshJobs,
      build: () => job(state),
      render: (done) => render(done, ctx),
      empty: h(
        "div",
        { class: "empty stack tight" },
        h("h2", {}, "Nothing drawn yet"),
        h(
          "p",
          {},
          "Describe a picture and press Generate. The built-in model draws toys: animals, birds and things in simple scenes.",
        ),
        h("div", { class: "row center" }, button(`Draw "${EXAMPLE}"`, example)),
      ),
    });
    replace(element, bench.element);
    element.prompt = prompt;
    element.bench = bench;
  };
  const example = () => {
    state.set("prompt", EXAMPLE);
    draw();
    element.bench.start(() => job(state));
  };
  draw();
  return {
    element,
    take: (files) => photo.take(files),
    shown: () => drawConcepts(chips, state, element.prompt, true),
    receive: async (gift) => {
      if (gift.concept)
        state.assign({
          concepts: [gift.concept],
          prompt:
            state.get("prompt") || `a photo of a {${gift.concept.split("@")[0]}} on the beach`,
        });
      if (gift.form) fill(state, gift.form);
      draw();
    },
  };
}

// A photo to start from (image to image), and how much of it is changed.
function startPart(state) {
  const more = h("div", { class: "stack" });
  const drawMore = () =>
    replace(
      more,
      state.get("init") &&
        rangeField("Change of the photo", {
          name: "strength",
          value: state.get("settings").generate?.strength ?? STRENGTH,
          min: 0.05,
          max: 1,
          step: 0.05,
          show: (value) => `${Math.round(100 * value)} %`,
          help: "Share of the steps that run on the noised photo. 100 % keeps nothing of it.",
          onInput: (strength) => setStrength(state, strength),
        }),
      state.get("init") && consentField(),
    );
  const photo = pictureInput({
    label: "Photo to start from",
    value: state.get("init"),
    onChange: (found) => {
      state.set("init", found);
      setStrength(state, found ? STRENGTH : undefined);
      drawMore();
    },
  });
  drawMore();
  const element = h(
    "details",
    { class: "more", open: Boolean(state.get("init")) },
    h("summary", {}, "Start from a photo"),
    h("div", { class: "stack" }, photo, more),
  );
  return { element, photo: { take: (files) => ((element.open = true), photo.take(files)) } };
}

function setStrength(state, strength) {
  const generate = state.get("settings").generate;
  if (strength === undefined) delete generate.strength;
  else generate.strength = strength;
  state.set("settings", { ...state.get("settings"), generate });
}

async function drawConcepts(place, state, prompt, again = false) {
  const found = await concepts(again).catch(() => []);
  const toggle = (name) => {
    const chosen = state.get("concepts"),
      on = chosen.includes(name);
    state.set("concepts", on ? chosen.filter((one) => one !== name) : [...chosen, name]);
    if (!on && !state.get("prompt").includes(`{${name}}`)) {
      const text = `${state.get("prompt")} {${name}}`.trim();
      state.set("prompt", text);
      prompt.control.value = text;
    }
    drawConcepts(place, state, prompt).then(() =>
      place.querySelector(`[data-concept="${CSS.escape(name)}"]`)?.focus(),
    );
  };
  replace(
    place,
    h("span", { class: "label" }, "Learnt subjects"),
    found.length
      ? h(
          "div",
          { class: "chips", role: "group", "aria-label": "Learnt subjects" },
          found.map((one) =>
            button(`${one.id}`, () => toggle(one.id), {
              "aria-pressed": String(state.get("concepts").includes(one.id)),
              "data-concept": one.id,
              title: one.phrase,
            }),
          ),
        )
      : h("p", { class: "help" }, "None yet. Learn one in Photos & Learn."),
  );
}

function job(state) {
  const prompt = need(state.get("prompt").trim(), "Describe the picture in words.");
  const named = [...prompt.matchAll(/\{([^}]+)\}/g)].map((one) => one[1]);
  const chosen = [...new Set([...state.get("concepts"), ...named])];
  return {
    verb: "generate",
    settings: given(state, "generate"),
    seed: state.get("seed") ?? 0,
    inputs: {
      prompt,
      concept: chosen,
      init: state.get("init")?.id,
      count: state.get("count") ?? 1,
    },
  };
}

function render(done, ctx) {
  return done.map((job) =>
    h(
      "section",
      { class: "card stack" },
      h(
        "div",
        { class: "card-head" },
        h("h2", {}, `"${job.wish.inputs.prompt}"`),
        h("span", { class: "muted" }, `seed ${job.wish.seed ?? 0}`),
      ),
      h(
        "div",
        { class: "pictures" },
        pictures(job).map((file, number) =>
          resultFigure(file, {
            caption: `Seed ${(job.wish.seed ?? 0) + number}`,
            alt: `${job.wish.inputs.prompt}, seed ${(job.wish.seed ?? 0) + number}`,
            use: [
              {
                label: "Swap",
                go: (one) => ctx.go("swap", { photo: { ...one, prompt: job.wish.inputs.prompt } }),
              },
              { label: "Edit", go: (one) => ctx.go("edit", { photo: one }) },
            ],
          }),
        ),
      ),
      h(
        "details",
        { class: "more" },
        h("summary", {}, "Details"),
        valuesTable(job.result.values, ["pictures"]),
      ),
    ),
  );
}

function fill(state, { settings, inputs, seed }) {
  state.assign({
    prompt: inputs.prompt ?? "",
    concepts: (inputs.concept ?? []).map((one) => one.split("/").pop()),
    count: inputs.count ?? 1,
    seed: seed ?? 0,
    init: inputs.init ? { id: inputs.init, name: "Photo of the recipe" } : null,
    settings: { generate: settings.generate ?? {} },
    model: settings.run?.model ?? state.get("model"),
    jobs: [],
  });
}
