// A line chart as SVG: curves of numbers against steps, with a table for people who cannot see it.

import { h, svg } from "./dom.js";

const WIDTH = 420,
  HEIGHT = 190,
  LEFT = 44,
  BOTTOM = 26,
  TOP = 20,
  RIGHT = 16;

// curves: [{name, points: [[x, y], ...], smooth}]; marks: [{x, label}] vertical lines.
export function chart(title, curves, { marks = [], along = "step" } = {}) {
  const shown = curves.filter((curve) => curve.points.length);
  const all = shown.flatMap((curve) => curve.points);
  if (!all.length) return h("p", { class: "muted small" }, `${title}: no numbers yet.`);
  const [x0, x1] = range(all.map((point) => point[0]));
  const [y0, y1] = range(all.map((point) => point[1]));
  const x = (value) => LEFT + ((value - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", {
    class: "plot",
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": summary(title, shown),
  });
  for (const value of ticks(y0, y1)) {
    picture.append(
      svg("line", { class: "gridline", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    );
  }
  for (const value of ticks(x0, x1)) {
    picture.append(
      svg(
        "text",
        {
          x: x(value) > WIDTH - RIGHT - 12 ? WIDTH - 2 : x(value),
          y: HEIGHT - 8,
          "text-anchor": x(value) > WIDTH - RIGHT - 12 ? "end" : "middle",
        },
        short(value),
      ),
    );
  }
  picture.append(
    svg("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}` }),
  );
  for (const mark of marks) {
    picture.append(
      svg("line", {
        class: "axis",
        "stroke-dasharray": "3 3",
        x1: x(mark.x),
        x2: x(mark.x),
        y1: TOP,
        y2: HEIGHT - BOTTOM,
      }),
      x(mark.x) > WIDTH - 60
        ? svg("text", { x: x(mark.x), y: TOP - 6, "text-anchor": "end" }, mark.label)
        : svg("text", { x: x(mark.x), y: TOP - 6, "text-anchor": "middle" }, mark.label),
    );
  }
  shown.forEach((curve, number) => {
    const drawn = (points, extra) =>
      svg("path", {
        class: `line c${number % 4} ${extra}`,
        d: points
          .map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`)
          .join(""),
      });
    if (curve.smooth && curve.points.length > 8)
      picture.append(drawn(curve.points, "faint"), drawn(smoothed(curve.points), ""));
    else picture.append(drawn(curve.points, ""));
  });
  const legend = h(
    "div",
    { class: "legend" },
    shown.map((curve, number) => h("span", { class: `c${number % 4}` }, curve.name)),
    h("em", { class: "muted" }, `along: ${along}`),
  );
  return h("figure", {}, h("h3", {}, title), picture, legend);
}

function summary(title, curves) {
  const told = curves.map((curve) => {
    const values = curve.points.map((point) => point[1]);
    return `${curve.name} from ${short(values[0])} to ${short(values.at(-1))}`;
  });
  return `${title}: ${told.join("; ")}`;
}

function smoothed(points, keep = 0.9) {
  let mean = points[0][1];
  return points.map(([x, y]) => {
    mean = keep * mean + (1 - keep) * y;
    return [x, mean];
  });
}

function range(values) {
  let low = Math.min(...values),
    high = Math.max(...values);
  if (low === high) {
    low -= 0.5;
    high += 0.5;
  }
  return [low, high];
}

function ticks(low, high) {
  const rough = (high - low) / 4,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step)
    found.push(value);
  return found;
}

function short(value) {
  if (Math.abs(value) >= 1000) return `${+(value / 1000).toFixed(1)}k`;
  return String(+value.toPrecision(3));
}

// For how many of `steps` each feature of the source is used; rows: [{name, count}].
export function scheduleChart(rows, steps) {
  const line = 24,
    label = 142,
    width = 400;
  const told = rows.map((row) => `${row.name}: steps 1 to ${row.count} of ${steps}`).join("; ");
  return svg(
    "svg",
    {
      class: "schedule",
      viewBox: `0 0 ${width} ${rows.length * line}`,
      role: "img",
      "aria-label": told,
    },
    rows.map((row, number) => [
      svg("text", { x: 0, y: number * line + 16 }, row.name),
      svg("rect", {
        class: "track",
        x: label,
        y: number * line + 5,
        width: width - label - 40,
        height: 14,
        rx: 3,
      }),
      row.count > 0 &&
        svg("rect", {
          class: "bar",
          x: label,
          y: number * line + 5,
          width: ((width - label - 40) * row.count) / steps,
          height: 14,
          rx: 3,
        }),
      svg("text", { x: width - 34, y: number * line + 16 }, `${row.count}/${steps}`),
    ]),
  );
}
