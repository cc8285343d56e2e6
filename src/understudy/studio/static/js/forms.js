// Labelled fields.

import { h } from "./dom.js";

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

export const pretty = (name) => {
  const words = name.replace(/_/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

// Put an error line under the field it names, else into the actions bar.
export function showProblem(place, text) {
  place.querySelector(".problem")?.remove();
  if (text) place.prepend(h("p", { class: "problem", role: "alert" }, text));
}
