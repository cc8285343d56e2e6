// Settings: theme, default model, marks of results, consent, keys, what this browser keeps.

import { get } from "../api.js";
import { consentField } from "../bench.js";
import { button, confirm, facts, h, replace, say } from "../dom.js";
import { checkField, choiceField } from "../forms.js";
import { showShortcuts } from "../shortcuts.js";
import { clear, load, save } from "../store.js";
import { diffusion, models } from "../verbs.js";

export const title = "Settings";
export const lead =
  "These apply to this browser. Photos and results stay on the machine that runs the studio.";

export function create(ctx) {
  const element = h("div", { class: "stack narrow" });
  const marks = load("marks", {}),
    run = load("run", {});
  const mark = (name, value, plain) => {
    const marks = load("marks", {});
    if (value === plain) delete marks[name];
    else marks[name] = value;
    save("marks", marks);
  };
  const model = h("div", {});
  models().then(
    (found) =>
      replace(
        model,
        choiceField(
          "Default model",
          diffusion(found).map((one) => one.id),
          { value: load("model", "toybox"), onInput: (value) => save("model", value) },
        ),
      ),
    () => {},
  );
  const version = h("div", {});
  get("/api/version").then(
    (found) =>
      replace(
        version,
        facts([
          ["Version", found.version],
          ["Reachable from", found.local ? "this machine only" : "the network, with a token"],
        ]),
        h("p", { class: "small" }, h("a", { href: "/docs" }, "HTTP API of this studio")),
      ),
    () => {},
  );
  const card = (heading, ...parts) =>
    h("section", { class: "card stack" }, h("h2", {}, heading), parts);
  replace(
    element,
    card(
      "Appearance",
      choiceField(
        "Theme",
        [
          ["system", "As the system"],
          ["light", "Light"],
          ["dark", "Dark"],
        ],
        { value: load("theme", "system"), onInput: (value) => ctx.applyTheme(value) },
      ),
    ),
    card(
      "Computing",
      model,
      choiceField(
        "Device",
        [
          ["", "Automatic: a GPU if there is one"],
          ["cpu", "CPU"],
          ["cuda", "CUDA GPU"],
          ["mps", "Apple GPU"],
        ],
        {
          value: run.device ?? "",
          onInput: (value) => {
            if (value) run.device = value;
            else delete run.device;
            save("run", run);
          },
        },
      ),
    ),
    card(
      "People in photos",
      h(
        "p",
        { class: "small muted" },
        "The forms show the same field. Its value is recorded in the marks of each result.",
      ),
      consentField(),
    ),
    card(
      "Marks of results",
      h(
        "p",
        { class: "small muted" },
        "The recipe, and the mark that a model made or changed the picture, are always written.",
      ),
      choiceField(
        "Invisible watermark",
        [
          ["auto", "Automatic"],
          ["on", "On"],
          ["off", "Off"],
        ],
        { value: marks.watermark ?? "auto", onInput: (value) => mark("watermark", value, "auto") },
      ),
      choiceField(
        "Signed C2PA manifest",
        [
          ["auto", "If the extra is installed"],
          ["on", "On"],
          ["off", "Off"],
        ],
        { value: marks.c2pa ?? "auto", onInput: (value) => mark("c2pa", value, "auto") },
      ),
    ),
    card(
      "Keyboard",
      checkField("Single keys open tabs (1 to 9)", {
        checked: load("keys", true),
        help: "Turn this off if it interferes with dictation or other tools.",
        onInput: (value) => save("keys", value),
      }),
      h(
        "div",
        {},
        button("List of shortcuts", () => showShortcuts()),
      ),
    ),
    card(
      "This browser",
      h(
        "p",
        { class: "small muted" },
        "Forms are kept in this browser, so that a reload loses nothing. Jobs, photos and results are kept by the studio.",
      ),
      h(
        "div",
        {},
        button(
          "Forget all forms",
          async () => {
            if (
              await confirm("Forget all forms and settings of this browser?", "Forget", {
                detail: "Photos, subjects and results stay in the studio.",
              })
            ) {
              clear();
              say("Forgotten");
              location.reload();
            }
          },
          { class: "danger" },
        ),
      ),
    ),
    card("About", version),
  );
  return { element };
}
