// Where a photo may change: words, points and a box, written or picked in the photo.

import { fileUrl } from "./api.js";
import { PictureCanvas } from "./canvas.js";
import { button, dialog, h, replace, say } from "./dom.js";
import { numberField, textField } from "./forms.js";

const HELP =
  "A word of the description, a point (x, y) or a box (x, y, width, height) in pixels; several with semicolons. Empty: found by the method.";
const GROW =
  "Pixels of the photo to add on every side of the mask. A mask that ends at the subject's outline leaves a rim of it.";

// The field `select` of a form, or with a mask `grow_mask`. state: {photo, mask, select, growMask}.
// Hidden without a photo.
export function selectField(state) {
  const place = h("div", {});
  const draw = () => {
    if (!state.get("photo")) return replace(place);
    if (state.get("mask"))
      return replace(
        place,
        numberField("Grow the mask", {
          value: state.get("growMask"),
          name: "grow_mask",
          help: GROW,
          min: 0,
          max: 512,
          placeholder: "0",
          onInput: (by) => state.set("growMask", by),
        }),
      );
    const field = textField("Area that may change", {
      value: state.get("select") ?? "",
      name: "select",
      help: HELP,
      onInput: (text) => state.set("select", text),
      extra: button("Pick in the photo", pick, { class: "quiet" }),
    });
    replace(place, field);
  };
  const pick = async () => {
    const made = await pickDialog(fileUrl(state.get("photo").id), selected(state));
    if (made !== null && made !== undefined) {
      state.set("select", made);
      draw();
      place.querySelector("input").focus();
    }
  };
  draw();
  return Object.assign(place, { draw });
}

// What `grow_mask` of a job is: undefined without a mask, or without a number.
export function growth(state) {
  return state.get("mask") ? (state.get("growMask") ?? undefined) : undefined;
}

// What `select` of a job is: a list of words, points and boxes; empty where a mask was painted.
export function selected(state) {
  if (state.get("mask")) return [];
  return (state.get("select") ?? "")
    .split(";")
    .map((one) => one.trim())
    .filter(Boolean);
}

const isWord = (text) => !/^[\d\s,-]+$/.test(text);
const numbers = (text) => text.split(",").map(Number);

// Pick points and a box in a photo; resolves to the text of the field, or null.
function pickDialog(url, given) {
  const words = given.filter(isWord);
  return dialog(
    "Area that may change",
    (close) => {
      const canvas = new PictureCanvas({
        label: "Photo to pick in",
        hint: "Arrow keys move the cursor. Enter sets a point, or a corner of the box.",
      });
      for (const place of given.filter((one) => !isWord(one)).map(numbers)) {
        const [x, y, w, tall] = place;
        if (place.length === 2) canvas.points.push({ handle: { x, y } });
        else canvas.box = { x0: x, y0: y, x1: x + w - 1, y1: y + tall - 1 };
      }
      const told = h("p", { class: "small muted", "aria-live": "polite" });
      const text = () =>
        [...words, ...canvas.points.map((one) => whole(one.handle)), boxText(canvas)]
          .filter(Boolean)
          .join("; ");
      const changed = () => {
        told.textContent = text() || "Click on the subject, or drag a box around it.";
        canvas.draw();
      };
      canvas.on.place = (place) => {
        canvas.points.push({ handle: { x: Math.round(place.x), y: Math.round(place.y) } });
        say(`Point at ${whole(place)}.`);
        changed();
      };
      canvas.on.dropped = changed;
      canvas.on.moved = ({ index }, place) => {
        canvas.points[index].handle = { x: Math.round(place.x), y: Math.round(place.y) };
        changed();
      };
      canvas.on.crop = changed;
      const tools = [
        ["points", "Points"],
        ["crop", "Box"],
      ].map(([tool, label]) => [
        tool,
        button(label, () => choose(tool), { class: "small", "aria-pressed": "false" }),
      ]);
      const choose = (tool) => {
        canvas.tool = tool;
        for (const [name, one] of tools) one.setAttribute("aria-pressed", String(name === tool));
      };
      const clear = () => {
        canvas.points = [];
        canvas.box = null;
        changed();
      };
      choose("points");
      canvas.load(url).then(() => {
        changed();
        canvas.canvas.focus();
      });
      return [
        h(
          "div",
          { class: "toolbar", role: "toolbar", "aria-label": "Selecting" },
          tools.map(([, one]) => one),
          h("span", { class: "sep" }),
          button("Clear", clear, { class: "small" }),
        ),
        canvas.element,
        told,
        h(
          "div",
          { class: "dialog-foot" },
          button("Cancel", () => close(null)),
          button("Use this area", () => close(text()), { class: "primary" }),
        ),
      ];
    },
    { wide: true },
  );
}

const whole = ({ x, y }) => `${Math.round(x)},${Math.round(y)}`;

function boxText({ box }) {
  if (!box) return "";
  const [x, y] = [Math.min(box.x0, box.x1), Math.min(box.y0, box.y1)].map(Math.round);
  const [right, bottom] = [Math.max(box.x0, box.x1), Math.max(box.y0, box.y1)].map(Math.round);
  if (right - x < 2 || bottom - y < 2) return "";
  return `${x},${y},${right - x + 1},${bottom - y + 1}`;
}
