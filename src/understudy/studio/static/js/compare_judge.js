// Pictures judged without their names: the questions of the study, and the answers as a table.

import { fileUrl } from "./api.js";
import { button, h, replace, say } from "./dom.js";
import { saveBlob } from "./zip.js";

const QUESTIONS = {
  subject: "Which picture reproduces the learnt subject best (what it is, and its details)?",
  prompt: "Which picture is best described by the text?",
  background: "Which picture keeps the background of the photo best?",
  overall: "Which picture fulfils the request best overall?",
};

export function drawJudging(output, state) {
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
              : h("p", { class: "note pending" }, row.told ?? "Waiting"),
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
                    drawJudging(output, state);
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
            drawJudging(output, state);
          }),
        ),
    ),
  );
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

export function shuffled(count) {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
