// Photos & Learn: a few photos become a subject that swaps, edits and pictures can use.

import { forget } from "../api.js";
import { consentField, given, modelField, need, settingsPart, workbench } from "../bench.js";
import { button, h, replace } from "../dom.js";
import { choiceField, textField } from "../forms.js";
import { photoList } from "../learn_photos.js";
import { learnt } from "../learnt.js";
import { library } from "../learnt_list.js";
import { chart } from "../plot.js";
import { load, state as stateOf } from "../store.js";

export const title = "Photos & Learn";
export const lead =
  "Three to five photos of one subject are enough. The learnt subject can then be used in swaps, edits and new pictures.";
const START = {
  photos: [],
  name: "",
  noun: "",
  previews: "3",
  model: null,
  settings: {},
  jobs: [],
};
const METHODS = {
  dreambooth: "DreamBooth: the most faithful; trains all weights",
  lora: "LoRA: a small file, less memory",
  "textual-inversion": "Textual Inversion: a few vectors, quick, less faithful",
  pivotal: "Pivotal tuning: vectors first, then a LoRA around them",
  hiper: "HiPer: one photo, for edits of this photo",
};

export function create(ctx) {
  const state = stateOf("learn", START);
  const element = h("div", {});
  const {
    check,
    take,
    add,
    examples,
    draw: drawPhotos,
    element: photos,
  } = photoList(state, () => draw());

  const draw = () => {
    const settings = settingsPart({
      state,
      verb: "learn",
      basic: ["method", "preset", "steps"],
      hidden: ["preview_every"],
      helps: () => ({ method: METHODS[state.get("settings").learn?.method ?? "dreambooth"] }),
      onChange: (name) => {
        if (name === "method") check();
      },
    });
    const form = h(
      "div",
      { class: "stack" },
      h("fieldset", { class: "field" }, h("legend", {}, "Photos"), photos),
      h(
        "div",
        { class: "two" },
        textField("Name", {
          value: state.get("name"),
          name: "name",
          required: true,
          placeholder: "rex",
          help: "Write it in braces in prompts: {rex}.",
          onInput: (text) => state.set("name", text),
        }),
        textField("What it is", {
          value: state.get("noun"),
          name: "noun",
          required: true,
          placeholder: "dog",
          help: "One noun the model knows.",
          onInput: (text) => state.set("noun", text),
        }),
      ),
      settings,
      choiceField(
        "Sample previews",
        [
          ["0", "None, fastest"],
          ["3", "Three during learning"],
          ["6", "Six during learning"],
        ],
        {
          value: state.get("previews"),
          name: "previews",
          help: "Pictures and scores during learning, to choose a checkpoint.",
          onInput: (value) => state.set("previews", value),
        },
      ),
      consentField(),
      modelField(state, () => {
        settings.draw();
        check();
      }),
    );
    const bench = workbench({
      state,
      label: "Learn",
      form,
      refreshJobs: ctx.refreshJobs,
      build: () => job(state),
      render: (done) => finished(done, ctx, element),
      watch: live(),
      empty: h(
        "div",
        { class: "empty stack tight" },
        h("h2", {}, "Nothing learnt here yet"),
        h(
          "p",
          {},
          "Add photos, give the subject a name, and press Learn. To see a result first, swap the subject that comes with the studio into a photo.",
        ),
        h(
          "div",
          { class: "row center" },
          button("Try a ready subject in a swap", () => ctx.go("swap", { tryIt: true }), {
            class: "primary",
          }),
          button("Start from an example subject", examples),
        ),
      ),
    });
    replace(element, h("div", { class: "stack" }, bench.element, library(ctx, element)));
    drawPhotos();
  };
  draw();
  if (state.get("photos").length) check();
  return {
    element,
    take,
    shown: () => element.refresh?.(),
    receive: async (gift) => {
      if (gift.form) {
        const { settings, inputs } = gift.form;
        state.assign({
          photos: (inputs.photos ?? []).map((id, i) => ({ id, name: `Photo ${i + 1}` })),
          name: inputs.name ?? "",
          noun: inputs.class_noun ?? "",
          settings: { learn: settings.learn ?? {} },
          jobs: [],
        });
        draw();
        check();
      }
      if (gift.photo) add([gift.photo]);
    },
  };
}

async function job(state) {
  const photos = need(state.get("photos"), "Add photos of the subject first.");
  const name = need(state.get("name").trim(), "Give the subject a name, like rex.");
  const noun = need(state.get("noun").trim(), "Say what the subject is, like dog.");
  const masks = photos.filter((one) => one.mask).map((one) => one.mask.id);
  if (masks.length && masks.length !== photos.length)
    throw new Error(
      `${masks.length} of ${photos.length} photos have a mask. Paint the others too, or remove the masks.`,
    );
  const settings = given(state, "learn"),
    share = Number(state.get("previews"));
  delete settings.mark;
  if (share) {
    const { settingsOf } = await import("../verbs.js");
    const found = await settingsOf("learn", {
      model: state.get("model") ?? "",
      method: settings.learn.method ?? "",
      preset: settings.learn.preset ?? "",
    });
    const steps = settings.learn.steps ?? found.learn.find((one) => one.name === "steps").value,
      every = Math.max(1, Math.floor(steps / share));
    Object.assign(settings.learn, {
      preview_every: every,
      save_every: settings.learn.save_every ?? every,
      keep_checkpoints: settings.learn.keep_checkpoints ?? share,
    });
  }
  return {
    verb: "learn",
    settings,
    inputs: {
      photos: photos.map((one) => one.id),
      masks,
      name,
      class_noun: noun,
      consent: load("marks", {}).consent,
    },
  };
}

// The loss while it learns, from the titles of its progress.
function live() {
  const points = [],
    place = h("div", {});
  let of = "";
  return {
    element: place,
    see(job) {
      if (of !== job.id) {
        of = job.id;
        points.length = 0;
        replace(place);
      }
      if (job.state !== "running") return replace(place);
      const loss = /loss ([\d.]+)/.exec(job.phase ?? "");
      if (!loss || points.at(-1)?.[0] === job.index) return;
      points.push([job.index, Number(loss[1])]);
      if (points.length > 1)
        replace(place, chart("Loss", [{ name: "loss", points, smooth: true }]));
    },
  };
}

async function finished(done, ctx, element) {
  forget("/api/concepts");
  element.refresh?.(); // the table below the form
  return Promise.all(done.map((job) => learnt(job.wish.inputs.name, ctx)));
}
