// Results of jobs as pictures with what one does with them.

import { button, dialog, facts, h, icon } from "./dom.js";
import { filesOf } from "./job_events.js";
import { compareSlider } from "./slider.js";
import { scheduleChart } from "./plot.js";
import { pretty } from "./forms.js";

export const isPicture = (file) =>
  /\.(png|jpe?g|webp|gif)$/i.test(file.name ?? "") || /^image\//.test(file.type ?? "");

export function pictures(job) {
  return filesOf(job).filter(isPicture);
}

export function downloadLink(file, label = "Download", size = "small") {
  return h(
    "a",
    {
      class: `button ${size}`,
      href: `${file.url}${file.url.includes("?") ? "&" : "?"}download=1`,
      download: file.name ?? "",
    },
    icon("download"),
    label,
  );
}

// One picture with buttons. use: [{label, go(file)}].
export function resultFigure(file, { caption = "", alt = caption || "Result", use = [] } = {}) {
  return h(
    "figure",
    {},
    h(
      "button",
      {
        type: "button",
        class: "tile",
        "aria-label": `Show large: ${alt}`,
        on: { click: () => lightbox(file, alt) },
      },
      h("img", { src: file.url, alt }),
    ),
    caption && h("figcaption", {}, caption),
    h(
      "div",
      { class: "row" },
      downloadLink(file),
      use.map((one) => button(one.label, () => one.go(file), { class: "small" })),
    ),
  );
}

export function lightbox(file, title = "Picture") {
  return dialog(
    title,
    () => [
      h("img", { class: "result-picture", src: file.url, alt: title }),
      h("div", { class: "dialog-foot" }, downloadLink(file, "Download at full size")),
    ],
    { wide: true },
  );
}

export function beforeAfter(before, after, { labels, use = [], alt = "Result" } = {}) {
  return h(
    "div",
    { class: "stack tight fit" },
    compareSlider(before, after.url, { labels, alt }),
    h(
      "div",
      { class: "row" },
      downloadLink(after),
      button("Show large", () => lightbox(after, alt), { class: "small" }),
      use.map((one) => button(one.label, () => one.go(after), { class: "small" })),
    ),
  );
}

const FEATURES = {
  self_output_steps: "Self-attention output",
  self_map_steps: "Self-attention map",
  cross_map_steps: "Cross-attention map",
};

// The schedule of a swap: for how many steps each feature of the photo was used.
export function schedule(values, steps) {
  const rows = Object.entries(FEATURES)
    .filter(([name]) => values?.[name] !== undefined)
    .map(([name, label]) => ({ name: label, count: count(values[name], steps) }));
  if (!rows.length) return null;
  return h(
    "figure",
    { class: "wide-cell" },
    h("h3", {}, "Schedule"),
    scheduleChart(rows, steps),
    h("figcaption", {}, "Steps in which the new picture uses features of the photo"),
  );
}
const count = (value, steps) =>
  Number.isInteger(value) ? Math.min(value, steps) : Math.round(value * steps);

// Where two pictures of the same size differ, as a picture: what a swap or an edit changed.
export async function changedArea(before, after) {
  const [one, other] = await Promise.all(
    [before, after].map(async (url) => {
      const image = new Image();
      image.src = url;
      await image.decode();
      return image;
    }),
  );
  const width = other.naturalWidth,
    height = other.naturalHeight;
  const read = (image) => {
    const g = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
    g.drawImage(image, 0, 0, width, height);
    return g;
  };
  const a = read(one).getImageData(0, 0, width, height),
    g = read(other),
    b = g.getImageData(0, 0, width, height);
  let changed = 0;
  for (let i = 0; i < b.data.length; i += 4) {
    const apart = Math.max(
      Math.abs(a.data[i] - b.data[i]),
      Math.abs(a.data[i + 1] - b.data[i + 1]),
      Math.abs(a.data[i + 2] - b.data[i + 2]),
    );
    if (apart > 10) changed++;
    const grey = 0.35 * (0.3 * a.data[i] + 0.6 * a.data[i + 1] + 0.1 * a.data[i + 2]),
      share = Math.min(apart / 60, 1);
    b.data.set(
      [grey + share * (255 - grey), grey + share * (120 - grey), grey + share * (40 - grey), 255],
      i,
    );
  }
  g.putImageData(b, 0, 0);
  const blob = await new Promise((resolve) => g.canvas.toBlob(resolve, "image/png"));
  const share = (100 * changed) / (width * height);
  return h(
    "figure",
    {},
    h("h3", {}, "Changed area"),
    h("img", {
      src: URL.createObjectURL(blob),
      alt: `The changed area covers ${share.toFixed(0)} % of the picture`,
    }),
    h("figcaption", {}, `${share.toFixed(0)} % of the pixels changed; brighter is more`),
  );
}

export function valuesTable(values, leave = []) {
  const entries = Object.entries(values ?? {}).filter(
    ([name, value]) =>
      !leave.includes(name) &&
      value !== null &&
      value !== "" &&
      !(Array.isArray(value) && !value.length),
  );
  return facts(entries.map(([name, value]) => [pretty(name), shown(value)]));
}
function shown(value) {
  if (typeof value === "number") return String(+value.toPrecision(5));
  if (Array.isArray(value)) return value.map(shown).join(", ");
  if (typeof value === "object")
    return Object.entries(value)
      .map(([name, one]) => `${pretty(name)} ${shown(one)}`)
      .join(", ");
  return String(value);
}
