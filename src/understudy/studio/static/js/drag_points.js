// The table of a drag's points: from where to where, and how much is left.

import { button, h, replace } from "./dom.js";

export const pixel = (point) => `${Math.round(point.x)}, ${Math.round(point.y)}`;

// Fill `list` with the points of a frame. drop(index): removes one.
export function drawPoints(list, points, left, drop) {
  if (!points.length)
    return replace(
      list,
      h(
        "p",
        { class: "muted small" },
        "No points yet. Click the picture where something should move, then click where it should go.",
      ),
    );
  const heads = ["Point", "From", "To", "Left", ""].map((one) => h("th", { scope: "col" }, one));
  const row = (point, index) =>
    h(
      "tr",
      {},
      h("td", {}, String(index + 1)),
      h("td", {}, pixel(point.handle)),
      h("td", {}, pixel(point.target)),
      h("td", {}, left[index] === undefined ? "" : `${left[index].toFixed(1)} px`),
      h(
        "td",
        {},
        button("Remove", () => drop(index), {
          icon: "trash",
          only: true,
          class: "quiet small",
          "aria-label": `Remove point ${index + 1}`,
        }),
      ),
    );
  replace(
    list,
    h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, points.map(row))),
  );
}
