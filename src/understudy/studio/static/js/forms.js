// Forms made from what the server says of each setting: name, kind, choices, bounds, help, value.

import { button, h, replace } from "./dom.js";

let counter = 0;
const fresh = (name) => `f${counter++}-${name}`;

// A labelled field. `control` gets the id and the id of its help.
export function field(label, control, { help = "", extra = null, name = label } = {}) {
  const id = fresh(name.replace(/\W+/g, "-"));
  const element = h(
    "div",
    { class: "field" },
    extra
      ? h("div", { class: "label-row" }, h("label", { htmlFor: id }, label), extra)
      : h("label", { htmlFor: id }, label),
    control(id, help ? `${id}-help` : undefined),
    help && h("p", { class: "help", id: `${id}-help` }, help),
  );
  element.control = element.querySelector("input, select, textarea");
  return element;
}

export function textField(
  label,
  { value = "", help = "", placeholder = "", rows = 0, onInput, extra, required, name } = {},
) {
  return field(
    label,
    (id, described) =>
      h(rows ? "textarea" : "input", {
        id,
        value,
        placeholder,
        ...(rows ? { rows } : { type: "text" }),
        autocomplete: "off",
        spellcheck: rows > 0,
        "aria-describedby": described,
        "aria-required": required ? "true" : undefined,
        "data-name": name,
        on: { input: (event) => onInput?.(event.target.value) },
      }),
    { help, extra, name: name ?? label },
  );
}

export function numberField(
  label,
  { value, help = "", min, max, step = 1, onInput, extra, name, placeholder } = {},
) {
  return field(
    label,
    (id, described) =>
      h("input", {
        id,
        type: "number",
        value: value ?? "",
        min,
        max,
        step,
        placeholder: placeholder ?? "",
        inputmode: "decimal",
        "aria-describedby": described,
        "data-name": name,
        on: {
          input: (event) =>
            onInput?.(event.target.value === "" ? null : Number(event.target.value)),
        },
      }),
    { help, extra, name: name ?? label },
  );
}

export function choiceField(label, choices, { value, help = "", onInput, extra, name } = {}) {
  return field(
    label,
    (id, described) => {
      const select = h(
        "select",
        {
          id,
          "aria-describedby": described,
          "data-name": name,
          on: { change: (event) => onInput?.(event.target.value) },
        },
        choices.map((choice) =>
          Array.isArray(choice)
            ? h("option", { value: choice[0] }, choice[1])
            : h("option", { value: choice }, choice),
        ),
      );
      if (value !== undefined && value !== null) select.value = value;
      return select;
    },
    { help, extra, name: name ?? label },
  );
}

export function checkField(label, { checked = false, help = "", onInput, name } = {}) {
  const id = fresh("check");
  const element = h(
    "div",
    { class: "field" },
    h(
      "label",
      { class: "check", htmlFor: id },
      h("input", {
        type: "checkbox",
        id,
        checked,
        "data-name": name,
        "aria-describedby": help ? `${id}-help` : undefined,
        on: { change: (event) => onInput?.(event.target.checked) },
      }),
      h("span", {}, label),
    ),
    help && h("p", { class: "help", id: `${id}-help` }, help),
  );
  element.control = element.querySelector("input");
  return element;
}

export function rangeField(
  label,
  { value, min = 0, max = 1, step = 0.01, help = "", onInput, show = String, name } = {},
) {
  return field(
    label,
    (id, described) => {
      const output = h("output", { htmlFor: id }, show(value));
      const input = h("input", {
        id,
        type: "range",
        min,
        max,
        step,
        value,
        "aria-describedby": described,
        "data-name": name,
        on: {
          input: () => {
            output.textContent = show(Number(input.value));
            onInput?.(Number(input.value));
          },
        },
      });
      return h("div", { class: "with-value" }, input, output);
    },
    { help, name: name ?? label },
  );
}

// What choices are called; others are shown as they are.
const CHOICES = {
  dreambooth: "DreamBooth",
  lora: "LoRA",
  "textual-inversion": "Textual Inversion",
  hiper: "HiPer",
  p2p: "Prompt-to-prompt",
  pnp: "Plug-and-play",
  best: "Best values (default)",
  paper: "The paper's values",
  official: "The authors' code",
  photoswap: "Photoswap's values",
  "w+": "W+, one latent for each layer",
  w: "W, one latent for all layers",
};

// Texts that say more than the settings' own, which are written for the command line.
const HELPS = {
  method: "",
  preset: "A named set of values to start from.",
  steps: "More steps take longer.",
  negative: "What the picture should not show.",
  guidance: "How closely the picture follows the words.",
};

export const pretty = (name) => {
  const words = name.replace(/_/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

// The form of one group of settings. `given` holds what the user changed; everything else keeps the value that
// the server resolved. basic: names that are always shown; the rest is under "More settings". hidden: not shown.
export function settingsForm(
  settings,
  given,
  { basic = [], hidden = [], labels = {}, helps = {}, onChange } = {},
) {
  const element = h("div", { class: "stack" });
  const more = h("details", { class: "more" }, h("summary", {}, "More settings"));
  const inside = h("div", { class: "stack" });
  more.append(inside);
  const shown = settings.filter((one) => !hidden.includes(one.name));
  for (const { name, value } of shown)
    if (given[name] === value && name !== "method" && name !== "preset") delete given[name];
  const order = [...shown].sort((a, b) => rank(basic, a.name) - rank(basic, b.name));
  for (const one of order)
    (basic.includes(one.name) ? element : inside).append(
      settingField({ ...one, told: helps[one.name] }, given, labels[one.name], onChange),
    );
  if (inside.childElementCount) element.append(more);
  if (Object.keys(given).some((name) => !basic.includes(name) && !hidden.includes(name)))
    more.open = true;
  return element;
}

const rank = (basic, name) => (basic.includes(name) ? basic.indexOf(name) : basic.length);

function settingField(setting, given, label = pretty(setting.name), onChange = () => {}) {
  const holder = h("div", { class: "field" });
  const draw = () => {
    const changed = setting.name in given;
    const value = changed ? given[setting.name] : setting.value;
    const reset =
      changed &&
      button(
        "Reset",
        () => {
          delete given[setting.name];
          onChange(setting.name, undefined);
          draw();
          holder.querySelector("input, select, textarea")?.focus();
        },
        { class: "quiet", title: `Back to ${setting.value}`, "aria-label": `Reset ${label}` },
      );
    const set = (found) => {
      const same = found === setting.value || found === null;
      if (same) delete given[setting.name];
      else given[setting.name] = found;
      const was = changed;
      onChange(setting.name, same ? undefined : found);
      mark(holder, !same, was, draw);
    };
    replace(holder, control(setting, label, value, set, reset));
  };
  draw();
  return holder;
}

// Show or remove the reset button without taking the focus away.
function mark(holder, changed, was, draw) {
  if (changed === was) return;
  const id = document.activeElement?.dataset?.name,
    at = document.activeElement?.selectionStart;
  draw();
  const control = holder.querySelector("input, select, textarea");
  if (id && control?.dataset.name === id) {
    control.focus();
    try {
      if (at !== undefined && at !== null) control.setSelectionRange(at, at);
    } catch {
      /* numbers have no selection */
    }
  }
}

function control(setting, label, value, set, extra) {
  const common = { help: helped(setting), extra, name: setting.name };
  if (setting.choices?.length) {
    const choices = setting.choices.map((one) => [one, CHOICES[one] ?? one]);
    return choiceField(label, choices, { ...common, value, onInput: set });
  }
  const kind = setting.type;
  if (kind === "bool")
    return extra
      ? h(
          "div",
          { class: "stack tight" },
          checkField(label, { ...common, checked: value, onInput: set }),
          h("div", {}, extra),
        )
      : checkField(label, { ...common, checked: value, onInput: set });
  if (kind === "int" || kind === "float") {
    const share = setting.share;
    return numberField(label, {
      ...common,
      value,
      min: setting.at_least ?? undefined,
      max: setting.at_most ?? undefined,
      step: kind === "int" && !share ? 1 : "any",
      onInput: set,
    });
  }
  return textField(label, { ...common, value, onInput: set });
}

function helped(setting) {
  const text = setting.told ?? HELPS[setting.name] ?? setting.help ?? "";
  return text
    ? text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".")
    : "";
}

// Put an error line under the field it names, else into the actions bar.
export function showProblem(place, text) {
  place.querySelector(".problem")?.remove();
  if (text) place.prepend(h("p", { class: "problem", role: "alert" }, text));
}
