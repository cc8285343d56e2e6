// Photos & Learn: a few photos become a subject that swaps, edits and pictures can use.

import { fileUrl, forget, once, post, thumbUrl } from "../api.js";
import { given, modelField, need, settingsPart, workbench } from "../bench.js";
import { button, dialog, h, replace, say, toast } from "../dom.js";
import { cropDialog, maskDialog } from "../editors.js";
import { choiceField, showProblem, textField } from "../forms.js";
import { droppable, fileButton, uploadAll, uploadExamples } from "../inputs.js";
import { learnt } from "../learnt.js";
import { chart } from "../plot.js";
import { state as stateOf } from "../store.js";
import { concepts } from "../verbs.js";

export const title = "Photos & Learn";
export const lead =
  "Three to five photos of one subject are enough. What is learnt can then take part in swaps, edits and new pictures.";
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
  hiper: "HiPer: one photo, for edits of this photo",
};

export function create(ctx) {
  const state = stateOf("learn", START);
  const element = h("div", {});
  const photos = h("div", { class: "stack tight" });
  let reports = {},
    checking = 0;

  const take = async (files) => {
    add(await uploadAll(files));
  };
  const add = (found) => {
    state.set("photos", [...state.get("photos"), ...found]);
    drawPhotos();
    check();
    if (found.length) say(`${found.length} photos added`);
  };
  const check = async () => {
    const mine = ++checking,
      held = state.get("photos");
    if (!held.length) {
      reports = {};
      return drawPhotos();
    }
    try {
      const found = await post("/api/preflight", {
        photos: held.map((one) => one.id),
        model: state.get("model") ?? "toybox",
        method: state.get("settings").learn?.method ?? "dreambooth",
      });
      if (mine !== checking) return;
      reports = found;
      drawPhotos();
      const many = found.photos.filter((one) => one.error || one.warnings.length).length;
      say(
        many
          ? `${many} of ${found.photos.length} photos have warnings.`
          : "All photos are fit for learning.",
      );
    } catch (problem) {
      if (problem.status === 404) {
        state.set("photos", []);
        drawPhotos();
      }
      toast(problem.message, "bad");
    }
  };
  const change = (number, found) => {
    const held = [...state.get("photos")];
    if (found) held[number] = found;
    else held.splice(number, 1);
    state.set("photos", held);
    drawPhotos();
    check();
  };
  const crop = async (number) => {
    const photo = state.get("photos")[number],
      made = await cropDialog(fileUrl(photo.id));
    if (!made) return;
    const [taken] = await uploadAll([
      new File([made], photo.name.replace(/\.\w+$/, "") + "-crop.png", { type: "image/png" }),
    ]);
    if (taken) change(number, taken);
  };
  const paint = async (number) => {
    const photo = state.get("photos")[number];
    const made = await maskDialog(fileUrl(photo.id), {
      existing: photo.mask ? fileUrl(photo.mask.id) : null,
      lead: "Paint over the subject. Learning then gives the rest of the photo less weight. A mask is needed for all photos or none.",
    });
    if (!made) return;
    if (made === "none") return change(number, { ...photo, mask: null });
    const [mask] = await uploadAll([new File([made], "mask.png", { type: "image/png" })], {
      mask: true,
    });
    if (mask) change(number, { ...photo, mask });
  };
  const drawPhotos = () => {
    const held = state.get("photos"),
      place = h(
        "div",
        { class: "drop" },
        h(
          "p",
          {},
          held.length
            ? "Drop or paste more photos"
            : "Drop photos of one subject here, or paste them",
        ),
        h(
          "div",
          { class: "row" },
          fileButton("Choose photos", take, { multiple: true }),
          button("Example subjects", () => examples(), {}),
        ),
      );
    droppable(place, take);
    replace(
      photos,
      place,
      (reports.warnings ?? []).map((line) => h("p", { class: "note warn" }, capital(line))),
      held.length > 0 &&
        h(
          "ul",
          { class: "thumbs plain" },
          held.map((photo, number) =>
            tile(
              photo,
              (reports.photos ?? []).find((one) => one.id === photo.id),
              number,
            ),
          ),
        ),
    );
  };
  const tile = (photo, report, number) =>
    h(
      "li",
      { class: "thumb" },
      h("img", { src: thumbUrl(photo.id), alt: photo.name }),
      h("span", { class: "name" }, photo.name),
      report &&
        h(
          "ul",
          { class: "findings" },
          report.error
            ? h("li", { class: "bad" }, report.error)
            : report.warnings.map((line) => h("li", {}, capital(line))),
          !report.error &&
            !report.warnings.length &&
            h("li", { class: "plain" }, "Fit for learning"),
        ),
      photo.mask && h("span", { class: "badge good" }, "mask"),
      h(
        "div",
        { class: "row" },
        button("Crop", () => crop(number), { "aria-label": `Crop ${photo.name}` }),
        button("Mask", () => paint(number), { "aria-label": `Mask of ${photo.name}` }),
        button("Remove", () => change(number, null), {
          icon: "trash",
          only: true,
          class: "quiet",
          "aria-label": `Remove ${photo.name}`,
        }),
      ),
    );
  const examples = () =>
    dialog(
      "Example subjects",
      (close) => {
        const list = h("div", { class: "stack" }, h("p", { class: "muted" }, "Loading..."));
        once("/examples/examples.json").then(
          ({ subjects }) =>
            replace(
              list,
              subjects.map((one) =>
                h(
                  "section",
                  { class: "card stack tight" },
                  h(
                    "div",
                    { class: "row spread" },
                    h("h3", {}, `${one.name}, a ${one.noun}`),
                    button(
                      "Use these photos",
                      async () => {
                        close();
                        state.assign({ photos: [], name: one.name, noun: one.noun });
                        draw();
                        add(await uploadExamples(one.files));
                      },
                      { class: "primary small" },
                    ),
                  ),
                  h(
                    "div",
                    { class: "strip" },
                    one.files.map((file) =>
                      h("img", {
                        src: `/examples/${file}`,
                        alt: `${one.name}, ${one.noun}`,
                        loading: "lazy",
                      }),
                    ),
                  ),
                ),
              ),
            ),
          (problem) => replace(list, h("p", { class: "note bad" }, problem.message)),
        );
        return [list];
      },
      { wide: true },
    );

  const draw = () => {
    const told = h("p", { class: "small muted" });
    const method = () => {
      told.textContent = METHODS[state.get("settings").learn?.method ?? "dreambooth"] ?? "";
    };
    const settings = settingsPart({
      state,
      verb: "learn",
      basic: ["method", "preset", "steps"],
      hidden: ["preview_every"],
      onChange: (name) => {
        method();
        if (name === "method") check();
      },
    });
    method();
    const form = h(
      "div",
      { class: "stack" },
      h("fieldset", { class: "field" }, h("legend", {}, "Photos"), photos),
      h(
        "p",
        { class: "small muted" },
        "Photos of people need their consent. State it in ",
        h("a", { href: "#settings" }, "Settings"),
        "; it is recorded in each result.",
      ),
      h(
        "div",
        { class: "two" },
        textField("Name", {
          value: state.get("name"),
          name: "name",
          required: true,
          placeholder: "rex",
          help: "Prompts say it in braces: {rex}.",
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
      told,
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
          help: "Pictures and scores on the way, to choose a checkpoint by.",
          onInput: (value) => state.set("previews", value),
        },
      ),
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
      render: (done) => finished(done, ctx),
      watch: live(),
      empty: h(
        "div",
        { class: "empty stack tight" },
        h("h2", {}, "Nothing learnt in this form yet"),
        h("p", {}, "Add photos, give the subject a name, and press Learn."),
        h("div", { class: "row center" }, button("Start from an example subject", examples)),
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

const capital = (text) =>
  text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

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
    inputs: { photos: photos.map((one) => one.id), masks, name, class_noun: noun },
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

async function finished(done, ctx) {
  forget("/api/concepts");
  return Promise.all(done.map((job) => learnt(job.wish.inputs.name, ctx)));
}

// The subjects that were learnt, below the form.
function library(ctx, element) {
  const list = h("div", { class: "stack" });
  const card = h(
    "section",
    { class: "card", "aria-label": "Learnt subjects" },
    h("div", { class: "card-head" }, h("h2", {}, "Learnt subjects")),
    list,
  );
  element.refresh = async () => {
    const found = await concepts(true).catch(() => []);
    replace(
      list,
      found.length
        ? h(
            "div",
            { class: "table-scroll" },
            h(
              "table",
              {},
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  ["Name", "Reads as", "Method", "Model", ""].map((one) =>
                    h("th", { scope: "col" }, one),
                  ),
                ),
              ),
              h(
                "tbody",
                {},
                found.map((one) =>
                  h(
                    "tr",
                    {},
                    h("td", {}, h("strong", {}, one.id)),
                    h("td", {}, one.phrase),
                    h("td", {}, one.kind),
                    h("td", {}, one.base_model),
                    h(
                      "td",
                      {},
                      h(
                        "div",
                        { class: "row" },
                        button(
                          "Details",
                          () =>
                            dialog(
                              `Subject ${one.id}`,
                              () => {
                                const place = h("div", { class: "stack" });
                                learnt(one.id, ctx).then(
                                  (found) => replace(place, found),
                                  (problem) => showProblem(place, problem.message),
                                );
                                return [place];
                              },
                              { wide: true },
                            ),
                          { class: "small" },
                        ),
                        button("Swap", () => ctx.go("swap", { concept: one.id }), {
                          class: "small",
                        }),
                        button("Generate", () => ctx.go("generate", { concept: one.id }), {
                          class: "small",
                        }),
                      ),
                    ),
                  ),
                ),
              ),
            ),
          )
        : h("p", { class: "muted" }, "None yet."),
    );
  };
  element.refresh();
  return card;
}
