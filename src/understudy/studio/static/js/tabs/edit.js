// Edit: a photo is changed by changing the words that describe it.

import { fileUrl } from "../api.js";
import { given, modelField, need, settingsPart, workbench } from "../bench.js";
import { button, h, replace } from "../dom.js";
import { choiceField, rangeField, textField } from "../forms.js";
import { exampleButton, pictureInput } from "../inputs.js";
import { wordDiff } from "../prompt_words.js";
import { beforeAfter, changedArea, pictures, resultFigure, valuesTable } from "../results.js";
import { state as stateOf } from "../store.js";
import { concepts, settingsOf } from "../verbs.js";

export const title = "Edit";
export const lead =
  "Change a photo by its words: describe what it shows, then what it should show.";
const START = {
  photo: null,
  mask: null,
  prompt: "",
  to: [""],
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
};

export function create(ctx) {
  const state = stateOf("edit", START);
  const element = h("div", {});
  let photo, bench;

  const draw = () => {
    photo = pictureInput({
      label: "Photo",
      value: state.get("photo"),
      mask: state.get("mask"),
      maskLead: "Paint over what may change. Everything else keeps the photo's own pixels.",
      onMask: (mask) => state.set("mask", mask),
      onChange: (found) => {
        state.set("photo", found);
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
    const targets = h("div", { class: "stack tight" });
    const drawTargets = () =>
      replace(
        targets,
        state.get("to").map((text, number) =>
          textField(number ? `Or (${number + 1})` : "It should show", {
            value: text,
            rows: 2,
            name: `to-${number}`,
            required: !number,
            placeholder: "a photo of a red cat standing on a meadow",
            extra: number
              ? button(
                  "Remove",
                  () => {
                    state.set(
                      "to",
                      state.get("to").filter((_, i) => i !== number),
                    );
                    drawTargets();
                    drawDiff();
                  },
                  { class: "quiet" },
                )
              : button(
                  "Copy from above",
                  () => {
                    state.set("to", [state.get("prompt"), ...state.get("to").slice(1)]);
                    drawTargets();
                    drawDiff();
                    targets.querySelector("textarea").focus();
                  },
                  { class: "quiet" },
                ),
            onInput: (value) => {
              const to = [...state.get("to")];
              to[number] = value;
              state.set("to", to);
              drawDiff();
            },
          }),
        ),
        state.get("to").length < 6 &&
          button(
            "Another version",
            () => {
              state.set("to", [...state.get("to"), state.get("to").at(-1) || state.get("prompt")]);
              drawTargets();
              targets.querySelectorAll("textarea")[state.get("to").length - 1].focus();
            },
            { class: "small" },
          ),
      );
    drawTargets();
    drawDiff();
    const strength = h("div", {});
    const settings = settingsPart({
      state,
      verb: "edit",
      basic: ["method", "preset"],
      labels: {},
      onChange: (name) => {
        if (name === "method" || name === "preset") {
          state.set("strength", null);
          drawStrength(strength, state, settings);
          drawMethod();
        }
      },
    });
    const told = h("p", { class: "small muted" });
    const drawMethod = () => {
      told.textContent = METHODS[state.get("settings").edit?.method ?? "p2p"] ?? "";
    };
    drawMethod();
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
      settings,
      told,
      strength,
      h(
        "details",
        {
          class: "more",
          open: Boolean(state.get("blend") || state.get("reweight") || state.get("concept")),
        },
        h("summary", {}, "Words and subjects"),
        h("div", { class: "stack" }, blend, weight, concept),
      ),
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
          "Words that are added are marked green, words that are removed red. The photo is inverted first; a second edit of the same photo skips that step.",
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
      if (gift.photo) state.assign({ photo: gift.photo, mask: null });
      if (gift.concept) state.set("concept", gift.concept);
      if (gift.form) fill(state, gift.form);
      draw();
    },
  };
}

// How much of the photo is kept: scales the step counts that use its features.
const COUNTS = {
  p2p: ["cross_map_steps", "self_map_steps"],
  hiper: ["cross_map_steps", "self_map_steps"],
  pnp: ["feature_steps", "self_map_steps"],
};
async function drawStrength(place, state, settings) {
  const chosen = state.get("settings").edit ?? {},
    method = chosen.method ?? "p2p";
  const found =
    (
      await settingsOf("edit", {
        model: state.get("model") ?? "",
        preset: chosen.preset ?? "",
        method,
      }).catch(() => ({}))
    ).edit ?? [];
  const resolved = Object.fromEntries(found.map((one) => [one.name, one.value])),
    steps = chosen.steps ?? resolved.steps ?? 50;
  const names = (COUNTS[method] ?? []).filter((name) => resolved[name] > 0);
  if (!names.length) return replace(place);
  replace(
    place,
    rangeField("Strength of the change", {
      name: "strength",
      value: state.get("strength") ?? 0,
      min: -1,
      max: 1,
      step: 0.1,
      show: (value) =>
        value === 0
          ? "as the method"
          : value > 0
            ? `+${Math.round(value * 100)} %`
            : `${Math.round(value * 100)} %`,
      help: "To the right the photo changes more, to the left it stays closer to itself.",
      onInput: (value) => {
        state.set("strength", value || null);
        const edit = { ...state.get("settings").edit };
        for (const name of names) {
          if (value)
            edit[name] = Math.round(
              value > 0
                ? resolved[name] * (1 - value)
                : resolved[name] + (steps - resolved[name]) * -value,
            );
          else delete edit[name];
        }
        state.set("settings", { ...state.get("settings"), edit });
        clearTimeout(place.timer);
        place.timer = setTimeout(() => settings.draw(), 250);
      },
    }),
  );
}

async function drawConcepts(place, state, again = false) {
  const found = await concepts(again).catch(() => []);
  replace(
    place,
    choiceField(
      "Learnt subject",
      [["", "none"], ...found.map((one) => [one.id, `${one.id} (${one.phrase})`])],
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
      prompt,
      to,
      blend: state.get("blend").trim() || undefined,
      reweight: list(state.get("reweight")),
      concept: state.get("concept") ? [state.get("concept")] : [],
    },
  };
}

async function render(done, ctx) {
  const cards = [];
  for (const job of done) {
    const before = fileUrl(job.wish.inputs.photo),
      made = pictures(job),
      several = made.length > 1;
    const use = [{ label: "Edit it again", go: (one) => ctx.go("edit", { photo: one }) }];
    const card = h("section", { class: "card stack" });
    for (const [number, file] of made.entries()) {
      const to = job.wish.inputs.to[number] ?? "";
      append(
        card,
        wordDiff(job.wish.inputs.prompt, to),
        beforeAfter(before, file, { labels: ["Photo", "Edit"], alt: to, use }),
      );
      if (!several)
        card.append(
          h(
            "div",
            { class: "pictures few" },
            (await changedArea(before, file.url).catch(() => null)) ?? "",
          ),
        );
    }
    if (!made.length) card.append(resultFigure({ url: before, name: "photo" }));
    card.append(
      h(
        "details",
        { class: "more" },
        h("summary", {}, "Details"),
        valuesTable(job.result.values, ["pictures", "target_prompts"]),
      ),
    );
    cards.push(card);
  }
  return cards;
}
const append = (card, ...parts) => card.append(...parts);

function fill(state, { settings, inputs }) {
  state.assign({
    prompt: inputs.prompt ?? "",
    to: inputs.to ?? [""],
    blend: inputs.blend ?? "",
    reweight: (inputs.reweight ?? []).join(", "),
    concept: (inputs.concept ?? [])[0]?.split("/").pop() ?? "",
    strength: null,
    photo: inputs.photo ? { id: inputs.photo, name: "Photo of the recipe" } : null,
    mask: inputs.mask ? { id: inputs.mask } : null,
    settings: { edit: settings.edit ?? {} },
    model: settings.run?.model ?? state.get("model"),
    jobs: [],
  });
}
