// Compare: methods side by side, judged by the questions of the study, names hidden until one has answered.

import { fileUrl, post } from "../api.js";
import { given, need } from "../bench.js";
import { button, h, replace, say, toast } from "../dom.js";
import { checkField, choiceField, textField } from "../forms.js";
import { chooseFromGallery, pictureInput } from "../inputs.js";
import { likelySubject } from "../prompt_words.js";
import { ENDED, follow } from "../jobs.js";
import { pictures } from "../results.js";
import { state as stateOf } from "../store.js";
import { saveBlob } from "../zip.js";
import { concepts } from "../verbs.js";

export const title = "Compare";
export const lead =
  "Run several methods on the same photo, or take results from the gallery, and judge them without knowing which is which.";
const WAYS = {
  swap: [
    ["Photoswap, our preset", { preset: "best" }],
    ["Photoswap, the paper's values", { preset: "paper" }],
    ["Photoswap, the authors' notebook", { preset: "official" }],
  ],
  edit: [
    ["Prompt-to-prompt", { method: "p2p" }],
    ["Plug-and-play", { method: "pnp" }],
  ],
};
const QUESTIONS = {
  subject: "Which picture reproduces the learnt subject best (what it is, and its details)?",
  prompt: "Which picture is best described by the text?",
  background: "Which picture keeps the background of the photo best?",
  overall: "Which picture does best what was asked for, overall?",
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
                "Replace by",
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
              placeholder: "cat",
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
    }
    begin(rows, {
      text:
        task === "swap"
          ? `${state.get("word")} replaced by ${state.get("concept")}`
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
    const rows = [];
    for (;;) {
      const one = await chooseFromGallery();
      if (!one) break;
      rows.push({ label: `${one.verb ?? ""} ${one.name}`, file: one.id });
      say(`${rows.length} chosen`);
      if (rows.length === 4) break;
    }
    if (rows.length > 1) begin(rows, { text: "", photo: null });
    else if (rows.length) toast("Choose at least two results.", "bad");
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
  const drawRows = () => {
    const rows = state.get("rows"),
      order = state.get("order"),
      answers = state.get("answers"),
      about = state.get("about") ?? {};
    const ready = rows.every((row) => row.file || (row.state && row.state !== "running")),
      asked = Object.keys(QUESTIONS).filter(
        (one) =>
          (one !== "background" || about.photo) &&
          (one !== "prompt" || about.text) &&
          (one !== "subject" || state.get("task") === "swap"),
      );
    const open = asked.every((one) => answers[one]);
    const letter = (place) => String.fromCharCode(65 + place);
    replace(
      output,
      h(
        "section",
        { class: "card stack" },
        h("div", { class: "card-head" }, h("h2", {}, about.text || "Results of the gallery")),
        h(
          "div",
          { class: "pictures few" },
          about.photo &&
            h(
              "figure",
              {},
              h("img", { src: fileUrl(about.photo), alt: "The photo" }),
              h("figcaption", {}, "Photo"),
            ),
          order.map((number, place) => {
            const row = rows[number];
            return h(
              "figure",
              {},
              row.file
                ? h("img", { src: fileUrl(row.file), alt: `Picture ${letter(place)}` })
                : h("p", { class: "note" }, row.told ?? "Waiting"),
              h("figcaption", {}, `Picture ${letter(place)}${open ? `: ${row.label}` : ""}`),
            );
          }),
        ),
        ready &&
          asked.map((one) =>
            h(
              "fieldset",
              { class: "field" },
              h("legend", {}, QUESTIONS[one]),
              h(
                "div",
                { class: "row" },
                [...order.map((_, place) => letter(place)), "No difference"].map((choice) =>
                  button(
                    choice,
                    () => {
                      state.set("answers", { ...state.get("answers"), [one]: choice });
                      drawRows();
                      say(`Answered: ${choice}`);
                      output.querySelector(`[data-question=${one}][aria-pressed=true]`)?.focus();
                    },
                    {
                      "aria-pressed": String(answers[one] === choice),
                      "data-question": one,
                      class: "small",
                    },
                  ),
                ),
              ),
            ),
          ),
        ready &&
          open &&
          h(
            "div",
            { class: "row" },
            button(
              "Save the answers",
              () =>
                saveBlob(
                  new Blob([csv(state, asked, letter)], { type: "text/csv" }),
                  "comparison.csv",
                ),
              { icon: "download" },
            ),
            button("Answer again", () => {
              state.assign({ answers: {}, order: shuffled(rows.length) });
              drawRows();
            }),
          ),
      ),
    );
  };
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

function csv(state, asked, letter) {
  const rows = state.get("rows"),
    order = state.get("order");
  const name = (choice) => {
    const place = choice.length === 1 ? choice.charCodeAt(0) - 65 : -1;
    return place < 0 ? "no difference" : rows[order[place]].label;
  };
  const cell = (text) => `"${String(text).replaceAll('"', '""')}"`;
  return (
    [
      "question,answer",
      ...asked.map((one) => `${cell(QUESTIONS[one])},${cell(name(state.get("answers")[one]))}`),
      ...order.map(
        (number, place) => `${cell(`picture ${letter(place)}`)},${cell(rows[number].label)}`,
      ),
    ].join("\r\n") + "\r\n"
  );
}

function shuffled(count) {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
