// Compare: methods side by side, judged by the questions of the study, names hidden until one has answered.

import { post } from "../api.js";
import { given, need } from "../bench.js";
import { drawJudging, shuffled } from "../compare_judge.js";
import { button, h, replace } from "../dom.js";
import { checkField, choiceField, textField } from "../forms.js";
import { chooseFromGallery, pictureInput } from "../inputs.js";
import { likelySubject } from "../prompt_words.js";
import { ENDED, follow } from "../job_events.js";
import { pictures } from "../results.js";
import { state as stateOf } from "../store.js";
import { concepts } from "../verbs.js";

export const title = "Compare";
export const lead =
  "Run several methods on the same photo, or take results from the gallery, and judge them without knowing which is which.";
const WAYS = {
  swap: [
    ["Photoswap, best values", { preset: "best" }],
    ["Photoswap, the paper's values", { preset: "paper" }],
    ["Photoswap, the authors' code", { preset: "official" }],
  ],
  edit: [
    ["Prompt-to-prompt", { method: "p2p" }],
    ["Plug-and-play", { method: "pnp" }],
  ],
};
const START = {
  task: "swap",
  photo: null,
  prompt: "",
  to: "",
  word: "",
  concept: "",
  ways: [0, 1],
  rows: [],
  order: [],
  answers: {},
};

export function create(ctx) {
  const state = stateOf("compare", START);
  const element = h("div", { class: "bench" });
  let photo,
    stops = [];
  const output = h("div", { class: "stack" });

  const draw = () => {
    const swap = state.get("task") === "swap";
    const task = h(
      "div",
      { class: "segments", role: "group", "aria-label": "Task" },
      [
        ["swap", "Swap"],
        ["edit", "Edit"],
      ].map(([name, label]) =>
        button(
          label,
          () => {
            state.assign({ task: name, ways: [0, 1] });
            draw();
          },
          { "aria-pressed": String(state.get("task") === name) },
        ),
      ),
    );
    photo = pictureInput({
      label: "Photo",
      value: state.get("photo"),
      onChange: (found) => {
        state.set("photo", found);
        if (found?.prompt) {
          state.assign({ prompt: found.prompt, to: found.prompt, word: found.word ?? "" });
          draw();
        }
      },
    });
    const place = h("div", {});
    if (swap)
      concepts(true).then((found) => {
        if (found.length && !found.some((one) => one.id === state.get("concept")))
          state.set("concept", found[0].id);
        replace(
          place,
          found.length
            ? choiceField(
                "Replace with",
                found.map((one) => [one.id, one.id]),
                { value: state.get("concept"), onInput: (value) => state.set("concept", value) },
              )
            : h("p", { class: "help" }, "Learn a subject first."),
        );
      });
    const ways = h(
      "fieldset",
      { class: "field stack tight" },
      h("legend", {}, "Methods"),
      WAYS[state.get("task")].map(([label], number) =>
        checkField(label, {
          checked: state.get("ways").includes(number),
          onInput: (on) =>
            state.set(
              "ways",
              on
                ? [...state.get("ways"), number]
                : state.get("ways").filter((one) => one !== number),
            ),
        }),
      ),
    );
    const told = h("p", { class: "problem", role: "alert" });
    const start = async () => {
      told.textContent = "";
      try {
        await run();
      } catch (problem) {
        told.textContent = problem.message;
      }
    };
    const form = h(
      "form",
      { class: "card stack", on: { submit: (event) => event.preventDefault() } },
      task,
      photo,
      textField("The photo shows", {
        value: state.get("prompt"),
        rows: 2,
        required: true,
        onInput: (text) => {
          state.set("prompt", text);
        },
      }),
      swap
        ? [
            textField("Word to replace", {
              value: state.get("word"),
              placeholder: "dog",
              onInput: (text) => state.set("word", text),
            }),
            place,
          ]
        : textField("It should show", {
            value: state.get("to"),
            rows: 2,
            onInput: (text) => state.set("to", text),
          }),
      ways,
      h(
        "div",
        { class: "actions" },
        told,
        button("Compare", start, { class: "primary big", "data-run": "" }),
        button("From the gallery", fromGallery),
      ),
    );
    replace(element, form, output);
    attach();
  };

  const run = async () => {
    const found = need(state.get("photo"), "Choose a photo first."),
      prompt = need(state.get("prompt").trim(), "Describe the photo in words.");
    if (state.get("ways").length < 2) throw new Error("Choose at least two methods.");
    const task = state.get("task"),
      rows = [];
    const inputs =
      task === "swap"
        ? {
            photo: found.id,
            prompt,
            swap: [
              `${state.get("word") || likelySubject(prompt)}=${need(state.get("concept"), "Learn a subject first.")}`,
            ],
          }
        : {
            photo: found.id,
            prompt,
            to: [need(state.get("to").trim(), "Describe what the photo should show.")],
          };
    for (const number of [...state.get("ways")].sort()) {
      const [label, values] = WAYS[task][number];
      const { id } = await post("/api/jobs", {
        verb: task,
        settings: { ...given(state, task), [task]: values },
        inputs,
      });
      rows.push({ label, job: id });
      state.assign({ rows: [...rows], order: shuffled(rows.length), answers: {} });
    }
    begin(rows, {
      text:
        task === "swap"
          ? `${state.get("word") || likelySubject(prompt)} replaced with ${state.get("concept")}`
          : state.get("to"),
      photo: found.id,
    });
    ctx.refreshJobs();
  };
  const begin = (rows, about) => {
    state.assign({ rows, about, order: shuffled(rows.length), answers: {} });
    attach();
  };
  const fromGallery = async () => {
    const found = await chooseFromGallery({ many: true });
    if (!found) return;
    const rows = found.map((one) => ({ label: `${one.verb ?? ""} ${one.name}`, file: one.id }));
    begin(rows, { text: "", photo: null });
  };

  const attach = () => {
    stops.forEach((stop) => stop());
    stops = [];
    const rows = state.get("rows");
    if (!rows.length)
      return replace(
        output,
        h(
          "div",
          { class: "empty" },
          h("h2", {}, "Nothing to compare yet"),
          h(
            "p",
            {},
            "Choose methods and a photo, or results of the gallery. Names are shown after you have answered.",
          ),
        ),
      );
    drawRows();
    rows.forEach((row, number) => {
      if (row.job && !row.file)
        stops.push(
          follow(row.job, (job) => {
            const [file] = job.state === "done" ? pictures(job) : [];
            rows[number] = {
              ...rows[number],
              file: file?.id,
              state: ENDED.includes(job.state) || job.state === "gone" ? job.state : "running",
              told:
                job.error ||
                `${job.phase || "Waiting"} ${job.total ? `${job.index + 1} of ${job.total}` : ""}`,
            };
            if (file || rows[number].state !== "running") state.set("rows", rows);
            drawRows();
          }),
        );
    });
  };
  const drawRows = () => drawJudging(output, state);
  draw();
  return {
    element,
    take: (files) => photo.take(files),
    receive: async (gift) => {
      if (gift.files) {
        const rows = gift.files.map((one) => ({
          label: `${one.verb ?? ""} ${one.name}`,
          file: one.id,
        }));
        const other = await chooseFromGallery();
        if (other)
          begin([...rows, { label: `${other.verb ?? ""} ${other.name}`, file: other.id }], {
            text: "",
            photo: null,
          });
      }
    },
  };
}
