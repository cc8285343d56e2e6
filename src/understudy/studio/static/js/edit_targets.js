// The prompts of an edit's results: one or several versions.

import { button, h, replace } from "./dom.js";
import { textField } from "./forms.js";

// The fields of state.to. changed(): called after each change.
export function targetFields(state, changed) {
  const targets = h("div", { class: "stack tight" });
  const draw = () =>
    replace(
      targets,
      state.get("to").map((text, number) =>
        textField(number ? `Or (${number + 1})` : "It should show", {
          value: text,
          rows: 2,
          name: `to-${number}`,
          required: !number,
          placeholder: "a photo of a red cat standing on a meadow",
          extra: number
            ? button(
                "Remove",
                () => {
                  state.set(
                    "to",
                    state.get("to").filter((_, i) => i !== number),
                  );
                  draw();
                  changed();
                },
                { class: "quiet" },
              )
            : button(
                "Copy from above",
                () => {
                  state.set("to", [state.get("prompt"), ...state.get("to").slice(1)]);
                  draw();
                  changed();
                  targets.querySelector("textarea").focus();
                },
                { class: "quiet" },
              ),
          onInput: (value) => {
            const to = [...state.get("to")];
            to[number] = value;
            state.set("to", to);
            changed();
          },
        }),
      ),
      state.get("to").length < 6 &&
        button(
          "Another version",
          () => {
            state.set("to", [...state.get("to"), state.get("to").at(-1) || state.get("prompt")]);
            draw();
            targets.querySelectorAll("textarea")[state.get("to").length - 1].focus();
          },
          { class: "small" },
        ),
    );
  draw();
  return targets;
}
