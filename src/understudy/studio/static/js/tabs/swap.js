// Swap: a learnt subject takes the place of another one in a photo.

import { growth, selectField, selected } from "../area.js";
import { consentField, given, modelField, need, settingsPart, workbench } from "../bench.js";
import { button, h, replace, toast } from "../dom.js";
import { choiceField, rangeField, textField } from "../forms.js";
import { exampleButton, pictureInput } from "../inputs.js";
import { likelySubject, wordButtons } from "../prompt_words.js";
import { state as stateOf } from "../store.js";
import { drawConcepts, readyCard, readySwap } from "../swap_concept.js";
import { render } from "../swap_results.js";

export const title = "Swap";

export const lead =
  "Replace the subject of a photo with one that you have learnt. Pose and background are kept.";

const START = {
  photo: null,
  mask: null,
  growMask: null,
  select: "",
  prompt: "",
  word: "",
  concept: "",
  strength: 1,
  count: 1,
  model: null,
  settings: {},
  jobs: [],
};

export function create(ctx) {
  const state = stateOf("swap", START);
  const element = h("div", {});
  let photo;

  const draw = () => {
    const area = selectField(state);
    photo = pictureInput({
      label: "Photo",
      value: state.get("photo"),
      mask: state.get("mask"),
      maskLead:
        "Paint over the subject that will be replaced, or click it with Select area. Without a mask the model finds it by its word.",
      onMask: (mask) => {
        state.set("mask", mask);
        area.draw();
      },
      onChange: (found) => {
        state.assign({ photo: found, select: "" });
        area.draw();
        if (found?.prompt) {
          state.assign({ prompt: found.prompt, word: found.word ?? likelySubject(found.prompt) });
          draw();
        }
      },
    });
    const words = h("div", { class: "field" });
    const drawWords = () =>
      replace(
        words,
        h("span", { class: "label" }, "Subject to replace"),
        state.get("prompt").trim()
          ? wordButtons(
              state.get("prompt"),
              state.get("word"),
              (word) => {
                state.set("word", word);
                drawWords();
                words.querySelector("[aria-pressed=true]")?.focus();
              },
              "Subject to replace",
            )
          : h("p", { class: "help" }, "Write the description first, then choose its word here."),
      );
    const prompt = textField("Description of the photo", {
      value: state.get("prompt"),
      rows: 2,
      name: "prompt",
      placeholder: "a photo of a cat standing on a meadow",
      required: true,
      help: "Plain words, with the subject that will be replaced.",
      onInput: (text) => {
        state.set("prompt", text);
        if (!text.includes(state.get("word")) || !state.get("word"))
          state.set("word", likelySubject(text));
        drawWords();
      },
    });
    drawWords();
    const concept = h("div", {});
    drawConcepts(concept, state, ctx);
    const strength = rangeField("Strength of the subject", {
      value: state.get("strength"),
      min: 0,
      max: 1.5,
      step: 0.05,
      name: "strength",
      help: "1 is as learnt. Lower values keep more of what the model draws for the word itself.",
      onInput: (value) => state.set("strength", value),
    });
    const settings = settingsPart({ state, verb: "swap", basic: ["preset"], hidden: [] });
    const count = choiceField(
      "Candidates",
      [
        ["1", "1"],
        ["2", "2"],
        ["3", "3"],
        ["4", "4"],
      ],
      {
        value: String(state.get("count")),
        name: "count",
        help: "Pictures with different noise, side by side.",
        onInput: (value) => state.set("count", Number(value)),
      },
    );
    const form = h(
      "div",
      { class: "stack" },
      photo,
      prompt,
      words,
      area,
      concept,
      strength,
      count,
      settings,
      consentField(),
      modelField(state, () => {
        settings.draw();
        drawConcepts(concept, state, ctx);
      }),
    );
    const bench = workbench({
      state,
      label: "Swap",
      form,
      refreshJobs: ctx.refreshJobs,
      build: () => jobs(state),
      runs: [
        {
          label: "Explain",
          title: "Where the model looks, and what the swap may change",
          build: () => ({
            ...base(state),
            verb: "explain",
            inputs: {
              ...base(state).inputs,
              mask: undefined,
              grow_mask: undefined,
              select: undefined,
            },
          }),
        },
        {
          label: "Grid",
          title: "A grid of pictures over the step counts",
          build: () => ({ ...base(state), verb: "sweep" }),
        },
      ],
      render: (done) => render(done, ctx),
      empty: emptyNote(
        ctx,
        (found) => photo.set(found),
        tryIt,
        () => element.benched.start(() => ({ verb: "demo", settings: {}, inputs: {} })),
      ),
    });
    element.benched = bench;
    replace(element, bench.element);
    element.concept = concept;
  };
  const tryIt = async () => {
    try {
      state.assign({ ...(await readySwap()), model: "toybox", settings: {}, jobs: [] });
      draw();
      await element.benched.start(() => jobs(state));
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  draw();
  return {
    element,
    take: (files) => photo.take(files),
    shown: () => drawConcepts(element.concept, state, ctx, true),
    receive: async (gift) => {
      if (gift.tryIt) return tryIt();
      if (gift.concept) state.set("concept", gift.concept);
      if (gift.photo) state.assign({ photo: gift.photo, mask: null, select: "" });
      if (gift.form) fill(state, gift.form);
      draw();
    },
  };
}

function base(state) {
  const photo = need(state.get("photo"), "Choose a photo first.");
  const prompt = need(state.get("prompt").trim(), "Describe the photo in words.");
  const word = need(state.get("word"), "Choose the word of the subject that will be replaced.");
  const concept = need(
    state.get("concept"),
    "Choose a learnt subject, or learn one in Photos & Learn.",
  );
  const strong = state.get("strength");
  return {
    verb: "swap",
    settings: given(state, "swap"),
    inputs: {
      photo: photo.id,
      mask: state.get("mask")?.id,
      grow_mask: growth(state),
      select: selected(state),
      prompt,
      swap: [`${word}=${concept}${strong === 1 ? "" : `:${strong}`}`],
    },
  };
}

function jobs(state) {
  const job = base(state),
    first = Number(state.get("settings")?.swap?.noise_seed ?? 0);
  return Array.from({ length: state.get("count") }, (_, number) => ({
    ...job,
    settings: {
      ...job.settings,
      swap: { ...job.settings.swap, ...(number ? { noise_seed: first + number } : {}) },
    },
  }));
}

function fill(state, { settings, inputs }) {
  const [pair = ""] = inputs.swap ?? [],
    at = pair.indexOf("="),
    [concept, strength = "1"] = pair.slice(at + 1).split("/").pop().split(":");
  state.assign({
    prompt: inputs.prompt ?? "",
    word: pair.slice(0, at),
    concept,
    strength: Number(strength),
    photo: inputs.photo ? { id: inputs.photo, name: "Photo of the recipe" } : null,
    mask: inputs.mask ? { id: inputs.mask } : null,
    growMask: inputs.grow_mask ?? null,
    select: (inputs.select ?? []).join("; "),
    settings: { swap: settings.swap ?? {} },
    model: settings.run?.model ?? state.get("model"),
    jobs: [],
  });
}

function emptyNote(ctx, use, tryIt, demo) {
  return h(
    "div",
    { class: "empty stack" },
    h("h2", {}, "Nothing swapped yet"),
    h("p", {}, "Try it with a ready-made subject: this takes about a minute on a laptop."),
    readyCard(tryIt),
    h(
      "p",
      { class: "small" },
      "Or choose a photo, describe it, choose a learnt subject, and press Swap. The photo is inverted first; a second swap of the same photo skips that step.",
    ),
    h(
      "div",
      { class: "row center" },
      exampleButton(use),
      button("Learn a subject", () => ctx.go("learn")),
      button("Run the demo", demo, {
        title:
          "Learns a toy, swaps it into a scene and compares with the right answer: a few minutes",
      }),
    ),
  );
}
