// The list of keyboard shortcuts.

import { dialog, h } from "./dom.js";

const SHORTCUTS = [
  [
    "Everywhere",
    [
      ["?", "This list"],
      ["1 to 9", "Open a tab"],
      ["Ctrl Enter", "Start what the form describes"],
      ["Esc", "Close a dialog or list"],
    ],
  ],
  [
    "Pictures",
    [
      ["Arrow keys", "Move the cursor by one pixel"],
      ["Shift Arrow keys", "Move it by ten pixels"],
      ["Enter", "Set a point; start or end a brush stroke"],
      ["+ and -", "Zoom"],
      ["0", "Show the whole picture"],
      ["Alt Arrow keys", "Move the zoomed picture"],
      ["[ and ]", "Smaller or larger brush"],
      ["Ctrl Z, Ctrl Shift Z", "Undo, redo"],
      ["Ctrl and wheel", "Zoom"],
    ],
  ],
  [
    "Drag",
    [
      ["Space", "Run or pause"],
      [".", "One step"],
      ["P", "Points"],
      ["B, E", "Brush, eraser"],
      ["Delete", "Remove the chosen point"],
      ["N", "Choose the next point"],
    ],
  ],
  ["Before and after", [["Left, Right", "Move the divider"]]],
];

export function showShortcuts() {
  if (document.querySelector("dialog[open]")) return;
  dialog("Keyboard shortcuts", () =>
    SHORTCUTS.map(([title, rows]) =>
      h(
        "section",
        {},
        h("h3", {}, title),
        h(
          "table",
          {},
          h(
            "tbody",
            {},
            rows.map(([keys, text]) =>
              h("tr", {}, h("td", {}, h("kbd", {}, keys)), h("td", {}, text)),
            ),
          ),
        ),
      ),
    ),
  );
}
