// The results of swaps: before and after, candidates, schedule, changed area.

import { fileUrl } from "./api.js";
import { append, button, h, replace } from "./dom.js";
import {
  beforeAfter,
  changedArea,
  downloadLink,
  lightbox,
  pictures,
  resultFigure,
  schedule,
  valuesTable,
} from "./results.js";
import { settingsOf } from "./verbs.js";

const SHEETS = {
  explain: "What the model looks at",
  sweep: "Grid of step counts",
  demo: "Photos, scene, swap, and the right answer",
};

export async function render(done, ctx) {
  const parts = [];
  for (const job of done.filter((one) => one.verb !== "swap")) {
    const [file] = pictures(job);
    if (file)
      parts.push(
        h(
          "section",
          { class: "card stack" },
          h("h2", {}, SHEETS[job.verb]),
          h(
            "button",
            {
              type: "button",
              class: "tile",
              "aria-label": "Show large",
              on: { click: () => lightbox(file, job.verb) },
            },
            h("img", { class: "natural", src: file.url, alt: SHEETS[job.verb] }),
          ),
          h("div", { class: "row" }, downloadLink(file)),
        ),
      );
  }
  const swaps = done.filter((one) => one.verb === "swap" && pictures(one).length);
  if (swaps.length) parts.unshift(await swapped(swaps, ctx));
  return parts;
}

// "dog replaced with toby" of dog=toby, "... at strength 0.7" of dog=toby:0.7.
const told = (job) =>
  job.wish.inputs.swap
    .map((pair) => pair.replace("=", " replaced with ").replace("@step-", " after step ").replace(":", " at strength "))
    .join(", ");

export async function swapped(jobs, ctx) {
  const card = h("section", { class: "card stack" });
  const show = async (job) => {
    const [file] = pictures(job),
      before = job.wish.inputs.photo ? fileUrl(job.wish.inputs.photo) : null;
    const use = [
      { label: "Edit it", go: (one) => ctx.go("edit", { photo: one }) },
      { label: "Use as photo", go: (one) => ctx.go("swap", { photo: one }) },
    ];
    const chosen = job.result.values.chosen;
    const resolved = await settingsOf("swap", {
      model: job.wish.settings.run?.model ?? "",
      preset: job.wish.settings.swap?.preset ?? "",
    }).catch(() => ({}));
    const values = {
      ...Object.fromEntries((resolved.swap ?? []).map((one) => [one.name, one.value])),
      ...job.wish.settings.swap,
      ...chosen,
    };
    replace(
      card,
      h(
        "div",
        { class: "card-head" },
        h("h2", {}, told(job)),
        h("span", { class: "muted" }, job.wish.inputs.prompt),
      ),
      jobs.length > 1 &&
        h(
          "div",
          { class: "thumbs", role: "group", "aria-label": "Candidates" },
          jobs.map((one, number) =>
            append(
              button(null, () => show(one), {
                class: "tile",
                "aria-pressed": String(one === job),
                "aria-label": `Candidate ${number + 1}`,
              }),
              [
                h("img", { src: pictures(one)[0].thumb ?? pictures(one)[0].url, alt: "" }),
                h("span", { class: "cap" }, `Candidate ${number + 1}`),
              ],
            ),
          ),
        ),
      before
        ? beforeAfter(before, file, {
            labels: ["Photo", "Swap"],
            alt: job.result.values.target_prompt,
            use,
          })
        : resultFigure(file, { use }),
      h(
        "div",
        { class: "pictures few" },
        schedule(values, values.steps),
        before && (await changedArea(before, file.url).catch(() => null)),
        job.wish.inputs.mask &&
          h(
            "figure",
            {},
            h("h3", {}, "Mask"),
            h("img", { src: fileUrl(job.wish.inputs.mask), alt: "The mask that was painted" }),
            h("figcaption", {}, "Only the white area may change"),
          ),
      ),
      h(
        "details",
        { class: "more" },
        h("summary", {}, "Details"),
        valuesTable(job.result.values, ["picture", "target_prompt"]),
      ),
    );
  };
  await show(jobs.at(-1));
  return card;
}
