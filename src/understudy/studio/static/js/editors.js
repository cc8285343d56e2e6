// Dialogs around the picture canvas: paint a mask, choose a crop.

import { PictureCanvas } from "./canvas.js";
import { button, dialog, h, say } from "./dom.js";

export const BRUSH_KEYS =
  "Arrow keys move the cursor (Shift: 10 pixels). Enter starts and ends a stroke. [ and ] change the brush. + and - zoom, 0 shows all.";

// Buttons for painting on a canvas with a mask. changed() is called after each change.
export function brushTools(canvas, changed, { wand = true, compact = false } = {}) {
  const tools = [
    ["brush", "Brush"],
    ["erase", "Eraser"],
    ...(wand ? [["wand", "Select area"]] : []),
  ];
  const buttons = tools.map(([tool, text]) =>
    button(text, () => pick(tool), {
      "aria-pressed": "false",
      class: "small",
      title: tool === "wand" ? "Click a place: the area of similar colour around it is added" : "",
    }),
  );
  const pick = (tool) => {
    canvas.tool = tool;
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", String(tools[i][0] === tool)));
    canvas.draw();
  };
  const size = h("input", {
    type: "range",
    min: 1,
    max: 60,
    step: 0.5,
    value: canvas.brush,
    "aria-label": "Brush radius in pixels",
    on: { input: () => canvas.setBrush(Number(size.value)) },
  });
  canvas.on.brush = (radius) => {
    size.value = radius;
  };
  const like = h("input", {
    type: "range",
    min: 4,
    max: 90,
    value: canvas.tolerance,
    "aria-label": "Colour tolerance of Select area",
    on: {
      input: () => {
        canvas.tolerance = Number(like.value);
      },
    },
  });
  const act = (call, told) => () => {
    call();
    canvas.draw();
    changed();
    say(told);
  };
  const element = h(
    "div",
    { class: "toolbar", role: "toolbar", "aria-label": "Painting" },
    buttons,
    h("label", {}, "Size", size),
    wand && h("label", {}, "Tolerance", like),
    h("span", { class: "sep" }),
    button(
      "Undo",
      act(() => canvas.mask.undo(), "Undone"),
      { icon: "undo", only: true, class: "small quiet" },
    ),
    button(
      "Redo",
      act(() => canvas.mask.redo(), "Redone"),
      { icon: "redo", only: true, class: "small quiet" },
    ),
    button(
      "Clear",
      act(() => canvas.mask.clear(), "Mask cleared"),
      { class: "small" },
    ),
    !compact &&
      button(
        "Invert",
        act(() => canvas.mask.invert(), "Mask inverted"),
        { class: "small" },
      ),
  );
  element.pick = pick;
  return element;
}

// Paint a mask on a picture; resolves to a PNG, null for no change, or "none" for no mask.
export function maskDialog(
  url,
  {
    title = "Mark the subject",
    existing = null,
    lead = "Paint over the subject. Only what is painted may change.",
  } = {},
) {
  return dialog(
    title,
    (close) => {
      const canvas = new PictureCanvas({ label: "Picture to paint on", hint: BRUSH_KEYS });
      const use = button(
        "Use this mask",
        async () => close(canvas.mask.empty ? "none" : await canvas.mask.png()),
        { class: "primary" },
      );
      canvas.on.paint = () => {
        use.disabled = false;
      };
      const tools = brushTools(canvas, () => {});
      canvas.element.addEventListener("keydown", (event) => {
        if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
          event.preventDefault();
          if (event.shiftKey) canvas.mask.redo();
          else canvas.mask.undo();
          canvas.draw();
        }
      });
      canvas.load(url).then(async () => {
        canvas.setBrush(Math.max(...canvas.size) / 26);
        if (existing) await canvas.mask.take(existing).catch(() => {});
        tools.pick("brush");
        canvas.canvas.focus();
      });
      return [
        h("p", { class: "muted" }, lead),
        tools,
        canvas.element,
        h("p", { class: "small muted" }, BRUSH_KEYS),
        h(
          "div",
          { class: "dialog-foot" },
          existing && button("Remove the mask", () => close("none"), { class: "danger" }),
          button("Cancel", () => close(null)),
          use,
        ),
      ];
    },
    { wide: true },
  );
}

// Choose a part of a picture; resolves to a PNG of it, or null.
export function cropDialog(url) {
  return dialog(
    "Crop the photo",
    (close) => {
      const canvas = new PictureCanvas({
        label: "Picture to crop",
        hint: "Arrow keys move the cursor. Enter sets the first corner, and again the other one.",
      });
      const told = h(
        "p",
        { class: "small muted", "aria-live": "polite" },
        "Drag a box around the subject, or press Enter at two corners.",
      );
      let square = true;
      const use = button("Crop", async () => close(await cut(canvas)), {
        class: "primary",
        disabled: true,
      });
      const set = (box) => {
        const area = squared(box, square, canvas.size);
        if (area.w < 8 || area.h < 8) return;
        canvas.box = { x0: area.x, y0: area.y, x1: area.x + area.w - 1, y1: area.y + area.h - 1 };
        use.disabled = false;
        told.textContent = `${area.w} x ${area.h} pixels from ${area.x}, ${area.y}`;
      };
      canvas.on.crop = set;
      canvas.load(url).then(() => {
        canvas.tool = "crop";
        canvas.canvas.focus();
      });
      const id = "crop-square";
      return [
        canvas.element,
        told,
        h(
          "label",
          { class: "check", htmlFor: id },
          h("input", {
            type: "checkbox",
            id,
            checked: true,
            on: {
              change: (event) => {
                square = event.target.checked;
                if (canvas.box) set(canvas.box);
                canvas.draw();
              },
            },
          }),
          "Square, as the models want it",
        ),
        h(
          "div",
          { class: "dialog-foot" },
          button("Cancel", () => close(null)),
          use,
        ),
      ];
    },
    { wide: true },
  );
}

function squared({ x0, y0, x1, y1 }, square, [width, height]) {
  let x = Math.round(Math.min(x0, x1)),
    y = Math.round(Math.min(y0, y1)),
    w = Math.round(Math.abs(x1 - x0)) + 1,
    h = Math.round(Math.abs(y1 - y0)) + 1;
  if (square) {
    const side = Math.min(Math.max(w, h), width, height);
    x = Math.min(Math.max(Math.round(x + w / 2 - side / 2), 0), width - side);
    y = Math.min(Math.max(Math.round(y + h / 2 - side / 2), 0), height - side);
    w = h = side;
  }
  return { x, y, w, h };
}

async function cut(canvas) {
  const { x0, y0, x1, y1 } = canvas.box,
    width = x1 - x0 + 1,
    height = y1 - y0 + 1;
  const copy = Object.assign(document.createElement("canvas"), { width, height });
  copy.getContext("2d").drawImage(canvas.picture, x0, y0, width, height, 0, 0, width, height);
  return new Promise((resolve) => copy.toBlob(resolve, "image/png"));
}
