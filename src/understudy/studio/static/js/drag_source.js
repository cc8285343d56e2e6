// Where the picture of a drag comes from, and the settings of the drag.

import { post } from "./api.js";
import { consentField } from "./bench.js";
import { button, h, replace, toast } from "./dom.js";
import { choiceField, numberField } from "./forms.js";
import { settingsForm } from "./settings_form.js";
import { pictureInput } from "./inputs.js";
import { filesOf } from "./job_events.js";
import { jobCard } from "./jobs.js";
import { pictures, resultFigure } from "./results.js";
import { load } from "./store.js";
import { generators, models, settingsOf } from "./verbs.js";

// The form: where the picture comes from, and the settings.
export function drawSide(place, state, open, live, ctx) {
  const source = h("div", { class: "stack" });
  const pick = (name) => {
    state.set("source", name);
    drawSide(place, state, open, live, ctx);
    place.querySelector(`[data-source=${name}]`).focus();
  };
  const kinds = [
    ["seed", "Generated picture"],
    ["photo", "Your photo"],
  ];
  const tabs = h(
    "div",
    { class: "segments", role: "group", "aria-label": "Where the picture comes from" },
    kinds.map(([name, label]) =>
      button(label, () => pick(name), {
        "aria-pressed": String(state.get("source") === name),
        "data-source": name,
      }),
    ),
  );
  models().then(
    (found) => {
      const names = generators(found).map((one) => one.id);
      const generator =
        names.length > 1 &&
        choiceField("Generator", names, {
          value: state.get("generator"),
          name: "generator",
          onInput: (value) => state.set("generator", value),
        });
      replace(
        source,
        generator,
        state.get("source") === "seed" ? seedPart(state, open) : photoPart(state, open),
      );
    },
    (problem) => replace(source, h("p", { class: "note bad" }, problem.message)),
  );
  const settings = h("div", {});
  const given = state.get("settings");
  const changed = (name) => {
    for (const key of Object.keys(given)) if (given[key] === undefined) delete given[key];
    state.set("settings", { ...given });
    live.send("settings", { settings: { ...given } });
    if (name === "preset") drawSettings();
  };
  const drawSettings = () =>
    settingsOf("drag", { generator: state.get("generator"), preset: given.preset ?? "" }).then(
      (groups) =>
        replace(
          settings,
          settingsForm(groups.drag ?? [], given, {
            basic: ["space", "layers", "steps", "learning_rate"],
            labels: { space: "Latent space", steps: "Largest number of steps" },
            hidden: ["truncation", "keep_every"],
            onChange: changed,
          }),
        ),
    );
  drawSettings();
  replace(
    place,
    h(
      "form",
      { class: "card stack", on: { submit: (event) => event.preventDefault() } },
      tabs,
      source,
    ),
    h(
      "form",
      { class: "card stack", on: { submit: (event) => event.preventDefault() } },
      h("h2", {}, "Settings"),
      settings,
    ),
  );
}

function seedPart(state, open) {
  const seed = numberField("Seed", {
    value: state.get("seed"),
    min: 0,
    max: 4294967295,
    name: "seed",
    help: "Each number gives a different picture.",
    onInput: (value) => state.set("seed", value ?? 0),
  });
  const start = () => open({ generator: state.get("generator"), seed: state.get("seed") });
  return h(
    "div",
    { class: "stack" },
    seed,
    h(
      "div",
      { class: "row" },
      button("Open this picture", start, { class: "primary", "data-run": "" }),
      button("Random picture", () => {
        state.set("seed", Math.floor(Math.random() * 10000));
        seed.control.value = state.get("seed");
        start();
      }),
    ),
  );
}

// A photo is projected first: a latent is searched that draws it.
function photoPart(state, open) {
  const photo = pictureInput({
    label: "Photo",
    value: state.get("photo"),
    examples: false,
    onChange: (found) => state.set("photo", found),
  });
  const progress = h("div", { class: "stack" });
  const watch = (id) =>
    replace(
      progress,
      jobCard(id, {
        onDone: (job) => {
          const latent = filesOf(job).find((file) => file.name.endsWith(".safetensors")),
            [picture] = pictures(job),
            values = job.result.values;
          const into = job.wish.inputs.photo;
          replace(
            progress,
            h(
              "div",
              { class: "stack tight" },
              picture &&
                resultFigure(picture, {
                  caption: `The projection reproduces the photo at ${values.psnr} dB. Below about 20 dB, drag results differ visibly from the photo.`,
                }),
              button(
                "Drag this photo",
                () =>
                  open({
                    generator: job.wish.inputs.generator ?? "toybox-gan",
                    latent: latent.id,
                    into,
                  }),
                { class: "primary" },
              ),
            ),
          );
        },
      }),
    );
  const effort = choiceField(
    "Projection",
    [
      ["fast", "Fast, less exact"],
      ["full", "Full, minutes on a CPU"],
    ],
    {
      value: state.get("effort") ?? "fast",
      name: "effort",
      onInput: (value) => state.set("effort", value),
    },
  );
  const project = async () => {
    if (!state.get("photo")) return toast("Choose a photo first.", "bad");
    try {
      const settings =
        (state.get("effort") ?? "fast") === "fast" ? { steps: 120, tune_steps: 60 } : {};
      const { id } = await post("/api/jobs", {
        verb: "project",
        settings: { project: settings, mark: load("marks", {}) },
        inputs: { photo: state.get("photo").id, generator: state.get("generator") },
      });
      state.set("projecting", id);
      watch(id);
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  if (state.get("projecting")) watch(state.get("projecting"));
  return h(
    "div",
    { class: "stack" },
    photo,
    h(
      "p",
      { class: "small muted" },
      "The generator must be trained on this kind of picture: the built-in one draws toy faces. The photo is cropped to a square at its centre.",
    ),
    effort,
    consentField(),
    h("div", { class: "row" }, button("Project the photo", project, { class: "primary" })),
    progress,
  );
}
