// Before and after, with a divider that is dragged or moved by the arrow keys.

import { h, icon } from "./dom.js";

export function compareSlider(before, after, { labels = ["Before", "After"], alt = "" } = {}) {
  const range = h("input", {
    type: "range",
    min: 0,
    max: 100,
    value: 50,
    step: 1,
    "aria-label": `${labels[0]} and ${labels[1]}: position of the divider in percent`,
  });
  const frame = h(
    "div",
    { class: "compare" },
    h("img", { src: after, alt: alt || labels[1], draggable: false }),
    h("div", { class: "top" }, h("img", { src: before, alt: labels[0], draggable: false })),
    h("div", { class: "bar" }, h("div", { class: "grip" }, icon("ends"))),
    h("span", { class: "tag left" }, labels[0]),
    h("span", { class: "tag right" }, labels[1]),
    range,
  );
  range.addEventListener("input", () => frame.style.setProperty("--at", `${range.value}%`));
  return frame;
}
