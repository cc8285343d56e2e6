// Forms made from what the server says of each setting: name, kind, choices, bounds, help, value.

import { button, h, replace } from "./dom.js";
import { checkField, choiceField, numberField, pretty, textField } from "./forms.js";

// What choices are called; others are shown as they are.
const CHOICES = {
  dreambooth: "DreamBooth",
  lora: "LoRA",
  "textual-inversion": "Textual Inversion",
  pivotal: "Pivotal tuning",
  hiper: "HiPer",
  p2p: "Prompt-to-prompt",
  pnp: "Plug-and-play",
  best: "Best values (default)",
  paper: "The paper's values",
  official: "The authors' code",
  photoswap: "Photoswap's values",
  flowedit: "FlowEdit",
  flowalign: "FlowAlign",
  "kv-edit": "KV-Edit",
  instruct: "instruction",
  latents: "latents alone",
  "w+": "W+, one latent for each layer",
  w: "W, one latent for all layers",
};

export const choiceLabel = (name) => CHOICES[name] ?? name;

// Texts that say more than the settings' own, which are written for the command line.
const HELPS = {
  method: "",
  preset: "A named set of values to start from.",
  steps: "More steps take longer.",
  negative: "What the picture should not show.",
  space: "W+ follows points more freely, W stays closer to what the generator draws.",
  guidance: "How closely the picture follows the words.",
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
  const shown = settings.filter((one) => !hidden.includes(one.name) && suits(one, settings, given));
  for (const { name, value } of shown)
    if (given[name] === value && name !== "method" && name !== "preset") delete given[name];
  const order = [...shown].sort((a, b) => rank(basic, a.name) - rank(basic, b.name));
  for (const one of order)
    (basic.includes(one.name) ? element : inside).append(
      settingField(
        { ...one, help: unnamed(one, settings), told: helps[one.name] },
        given,
        labels[one.name],
        onChange,
      ),
    );
  if (inside.childElementCount) element.append(more);
  if (Object.keys(given).some((name) => !basic.includes(name) && !hidden.includes(name)))
    more.open = true;
  return element;
}

// The methods that a setting is of; null for one of all. Its help begins with them: "lora: rank".
function methodsOf({ help }, settings) {
  const known = settings.find((one) => one.name === "method")?.choices ?? [];
  const named = /^([a-z0-9, -]+): /.exec(help ?? "")?.[1].split(", ");
  return named?.every((one) => known.includes(one)) ? named : null;
}

// Whether a setting is of the chosen method.
function suits(setting, settings, given) {
  const method = settings.find((one) => one.name === "method"),
    named = methodsOf(setting, settings);
  return setting.name in given || !named || named.includes(given.method ?? method.value);
}

// The help without the names of methods, which the form shows only for the chosen one.
const unnamed = (setting, settings) =>
  methodsOf(setting, settings) ? setting.help.replace(/^[^:]+: /, "") : setting.help;

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
    const choices = setting.choices.map((one) => [one, choiceLabel(one)]);
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
  const text = (setting.told ?? HELPS[setting.name] ?? setting.help ?? "").replace(
    /--([a-z-]+)/g, // an option of the command line is a field here
    (_, name) => `"${pretty(name.replaceAll("-", "_"))}"`,
  );
  if (!text) return "";
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
