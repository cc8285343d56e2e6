// Edit: a photo is changed by changing the words that describe it.

import { growth, selectField, selected } from "../area.js";
import { consentField, given, modelField, need, settingsPart, workbench } from "../bench.js";
import { h, replace } from "../dom.js";
import { render } from "../edit_results.js";
import { drawStrength } from "../edit_strength.js";
import { targetFields } from "../edit_targets.js";
import { choiceField, textField } from "../forms.js";
import { exampleButton, pictureInput } from "../inputs.js";
import { wordDiff } from "../prompt_words.js";
import { referenceList } from "../references.js";
import { state as stateOf } from "../store.js";
import { concepts } from "../verbs.js";

export const title = "Edit";
export const lead =
  "Change a photo with words: describe what it shows, then what it should show.";
const START = {
  photo: null,
  mask: null,
  growMask: null,
  select: "",
  prompt: "",
  to: [""],
  references: [],
  blend: "",
  concept: "",
  strength: null,
  reweight: "",
  model: null,
  settings: {},
  jobs: [],
};
const METHODS = {
  p2p: "Prompt-to-prompt: replaces or adds words, keeps the layout",
  pnp: "Plug-and-play: keeps shapes, changes materials and styles",
  hiper: "HiPer: changes pose or scene of one learnt subject",
  flowedit: "FlowEdit: for flow models, without an inversion",
  flowalign: "FlowAlign: FlowEdit with a smoother path",
  "kv-edit": "KV-Edit: for flow models, draws the marked area anew and keeps all else",
  instruct: "Instruction: FLUX.1 Kontext and FLUX.2 are told what to change",
};

export function create(ctx) {
  const state = stateOf("edit", START);
  const element = h("div", {});
  let photo, bench;

  const draw = () => {
    const area = selectField(state);
    photo = pictureInput({
      label: "Photo",
      value: state.get("photo"),
      mask: state.get("mask"),
      maskLead: "Paint over what may change. All other pixels stay those of the photo.",
      onMask: (mask) => {
        state.set("mask", mask);
        area.draw();
      },
      onChange: (found) => {
        state.assign({ photo: found, select: "" });
        area.draw();
        if (found?.prompt) {
          state.assign({ prompt: found.prompt, to: [found.prompt] });
          draw();
        }
      },
    });
    const diff = h("div", { class: "stack tight", "aria-live": "polite" });
    const drawDiff = () =>
      replace(
        diff,
        state
          .get("to")
          .filter((to) => to.trim() && state.get("prompt").trim())
          .map((to) => wordDiff(state.get("prompt"), to)),
      );
    const prompt = textField("The photo shows", {
      value: state.get("prompt"),
      rows: 2,
      name: "prompt",
      placeholder: "a photo of a cat standing on a meadow",
      required: true,
      onInput: (text) => {
        state.set("prompt", text);
        drawDiff();
      },
    });
    const targets = targetFields(state, drawDiff);
    drawDiff();
    const strength = h("div", {});
    const references = referenceList(state, () => methodOf(state) === "instruct");
    const settings = settingsPart({
      state,
      verb: "edit",
      basic: ["method", "preset"],
      labels: {},
      helps: () => ({ method: METHODS[methodOf(state)] }),
      onChange: (name) => {
        if (name === "method" || name === "preset") {
          state.set("strength", null);
          drawStrength(strength, state, settings);
          references.draw();
        }
      },
    });
    drawStrength(strength, state, settings);
    const blend = textField("Change only", {
      value: state.get("blend"),
      name: "blend",
      placeholder: "cat=red cat",
      help: "The word in the photo and in the result, with = between. Empty: the whole photo may change.",
      onInput: (value) => state.set("blend", value),
    });
    const weight = textField("More or less of a word", {
      value: state.get("reweight"),
      name: "reweight",
      placeholder: "red=2",
      help: "Word and factor; several with commas.",
      onInput: (value) => state.set("reweight", value),
    });
    const concept = h("div", {});
    drawConcepts(concept, state);
    const form = h(
      "div",
      { class: "stack" },
      photo,
      prompt,
      targets,
      diff,
      references,
      settings,
      strength,
      h(
        "details",
        {
          class: "more",
          open: ["blend", "reweight", "concept", "select", "growMask"].some((one) =>
            state.get(one),
          ),
        },
        h("summary", {}, "Words, subjects, area"),
        h("div", { class: "stack" }, blend, weight, concept, area),
      ),
      consentField(),
      modelField(state, () => {
        settings.draw();
        drawStrength(strength, state, settings);
      }),
    );
    bench = workbench({
      state,
      label: "Edit",
      form,
      refreshJobs: ctx.refreshJobs,
      build: () => job(state),
      render: (done) => render(done, ctx),
      empty: h(
        "div",
        { class: "empty stack tight" },
        h("h2", {}, "Nothing edited yet"),
        h(
          "p",
          {},
          "Added words are marked green, removed words red. The photo is inverted first; a second edit of the same photo skips that step.",
        ),
        h(
          "div",
          { class: "row center" },
          exampleButton((found) => photo.set(found)),
        ),
      ),
    });
    replace(element, bench.element);
    element.concept = concept;
  };
  draw();
  return {
    element,
    take: (files) => photo.take(files),
    shown: () => drawConcepts(element.concept, state, true),
    receive: async (gift) => {
      if (gift.photo) state.assign({ photo: gift.photo, mask: null, select: "" });
      if (gift.concept) state.set("concept", gift.concept);
      if (gift.form) fill(state, gift.form);
      draw();
    },
  };
}

const methodOf = (state) => state.get("settings").edit?.method ?? "p2p";

async function drawConcepts(place, state, again = false) {
  const found = await concepts(again).catch(() => []);
  replace(
    place,
    choiceField(
      "Learnt subject",
      [["", "none"], ...found.map((one) => [one.id, `${one.id} (${one.class_noun || one.phrase})`])],
      {
        value: state.get("concept") ?? "",
        name: "concept",
        help: "Name it in the result as {name}. HiPer needs one that was learnt from this photo.",
        onInput: (value) => state.set("concept", value),
      },
    ),
  );
}

function job(state) {
  const photo = need(state.get("photo"), "Choose a photo first.");
  const prompt = need(state.get("prompt").trim(), "Describe what the photo shows.");
  const to = need(
    state
      .get("to")
      .map((one) => one.trim())
      .filter(Boolean),
    "Describe what the photo should show.",
  );
  if (to.length === 1 && to[0] === prompt && !state.get("reweight"))
    throw new Error("Both descriptions are the same. Change the words of the second one.");
  const list = (text) =>
    text
      .split(",")
      .map((one) => one.trim())
      .filter(Boolean);
  return {
    verb: "edit",
    settings: given(state, "edit"),
    inputs: {
      photo: photo.id,
      mask: state.get("mask")?.id,
      grow_mask: growth(state),
      select: selected(state),
      prompt,
      to,
      reference:
        methodOf(state) === "instruct" ? state.get("references").map((one) => one.id) : [],
      blend: state.get("blend").trim() || undefined,
      reweight: list(state.get("reweight")),
      concept: state.get("concept") ? [state.get("concept")] : [],
    },
  };
}

function fill(state, { settings, inputs }) {
  state.assign({
    prompt: inputs.prompt ?? "",
    to: inputs.to ?? [""],
    references: (inputs.reference ?? []).map((id) => ({ id, name: "Picture of the recipe" })),
    blend: inputs.blend ?? "",
    reweight: (inputs.reweight ?? []).join(", "),
    concept: (inputs.concept ?? [])[0]?.split("/").pop() ?? "",
    strength: null,
    photo: inputs.photo ? { id: inputs.photo, name: "Photo of the recipe" } : null,
    mask: inputs.mask ? { id: inputs.mask } : null,
    growMask: inputs.grow_mask ?? null,
    select: (inputs.select ?? []).join("; "),
    settings: { edit: settings.edit ?? {} },
    model: settings.run?.model ?? state.get("model"),
    jobs: [],
  });
}
