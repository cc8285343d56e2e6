// Small helpers to build the page. Text is always set as text, never parsed as HTML.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on")
      for (const [event, call] of Object.entries(value)) element.addEventListener(event, call);
    else if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element && !name.includes("-") && name !== "list" && name !== "form")
      element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  return append(element, children);
}

const ICONS = {
  learn: "M4 7h3l2-2h6l2 2h3v12H4zM12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z",
  swap: "M4 8h13l-3-3M20 16H7l3 3",
  edit: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
  drag: "M5 19L17 7M17 7h-6M17 7v6M5 19m-1.6 0a1.6 1.6 0 1 0 3.2 0a1.6 1.6 0 1 0-3.2 0",
  generate: "M12 4l1.8 5.2L19 11l-5.2 1.8L12 18l-1.8-5.2L5 11l5.2-1.8zM18.5 4v3M17 5.5h3",
  gallery: "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  models: "M12 4l8 4-8 4-8-4zM4 12l8 4 8-4M4 16l8 4 8-4",
  settings: "M5 7h8M17 7h2M15 5v4M5 12h2M11 12h8M9 10v4M5 17h9M18 17h1M16 15v4",
  close: "M6 6l12 12M18 6L6 18",
  undo: "M8 5L4 9l4 4M4 9h10a5 5 0 0 1 0 10h-3",
  redo: "M16 5l4 4-4 4M20 9H10a5 5 0 0 0 0 10h3",
  theme: "M12 4a8 8 0 1 0 8 8 6 6 0 0 1-8-8z",
  help: "M9 9a3 3 0 1 1 4.2 2.8c-.8.4-1.2 1-1.2 2M12 17.5v.2",
  jobs: "M5 6h14M5 12h14M5 18h8",
  play: "M8 5l11 7-11 7z",
  pause: "M8 5v14M16 5v14",
  step: "M6 5l8 7-8 7zM18 5v14",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  trash: "M5 7h14M10 7V5h4v2M7 7l1 13h8l1-13",
  ends: "M9 8l-4 4 4 4M15 8l4 4-4 4",
};

export function icon(name) {
  return svg(
    "svg",
    { class: "i", viewBox: "0 0 24 24", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }),
  );
}

export function button(label, click, attributes = {}) {
  const { icon: name, only, ...rest } = attributes;
  const given = only ? { "aria-label": label, title: label } : {};
  const classes = [rest.class, only && "icon"].filter(Boolean).join(" ");
  return h(
    "button",
    { type: "button", ...rest, ...given, class: classes, on: { click } },
    name && icon(name),
    !only && label,
  );
}

let spoken = 0;
// Tell people who use a screen reader; `urgent` interrupts.
export function say(text, urgent = false) {
  const place = document.getElementById(urgent ? "alert" : "live");
  place.textContent = text + (spoken++ % 2 ? "\u00a0" : ""); // a change is announced even if the words are the same
}

export function toast(text, kind = "", seconds = kind === "bad" ? 20 : 6) {
  const note = h(
    "div",
    { class: `toast ${kind}` },
    h("span", {}, text),
    button("Dismiss", () => note.remove(), { icon: "close", only: true, class: "quiet small" }),
  );
  document.getElementById("toasts").append(note);
  say(text, kind === "bad");
  setTimeout(() => note.remove(), seconds * 1000);
  return note;
}

// A dialog that returns the focus to where it was. `build(close)` gives its content.
export function dialog(title, build, { wide = false } = {}) {
  const before = document.activeElement;
  const id = `dialog-${Math.random().toString(36).slice(2)}`;
  const box = h("dialog", { class: wide ? "wide" : "", "aria-labelledby": id });
  const close = (value) => {
    box.returnValue = "";
    box.dataset.value = "";
    box.close();
    result(value);
  };
  let result;
  const done = new Promise((resolve) => {
    result = resolve;
  });
  append(box, [
    h(
      "div",
      { class: "dialog-head" },
      h("h2", { id }, title),
      button("Close", () => close(null), { icon: "close", only: true, class: "quiet" }),
    ),
    h("div", { class: "dialog-body" }, build(close, box)),
  ]);
  box.addEventListener("cancel", () => result(null));
  box.addEventListener("close", () => {
    box.remove();
    before?.focus?.();
    result(null);
  });
  document.body.append(box);
  box.showModal();
  box.querySelector(".dialog-foot .primary:not(:disabled)")?.focus();
  return done;
}

export function confirm(question, action, { detail = "", danger = true } = {}) {
  return dialog(question, (close) => [
    detail && h("p", {}, detail),
    h(
      "div",
      { class: "dialog-foot" },
      button("Cancel", () => close(false)),
      button(action, () => close(true), { class: danger ? "danger" : "primary" }),
    ),
  ]);
}

export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "";
  if (value < 1) return "less than 1 s";
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return "";
  if (value < 1e6) return `${Math.max(1, Math.round(value / 1e3))} KB`;
  return value < 1e9 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(1)} GB`;
}

export function when(text) {
  const date = new Date(typeof text === "number" ? text * 1000 : text);
  return Number.isNaN(date.getTime())
    ? ""
    : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

// dl of facts; values that are empty are left out.
export function facts(entries) {
  const list = h("dl", { class: "facts" });
  for (const [name, value] of entries) {
    if (value === undefined || value === null || value === "") continue;
    append(list, [h("dt", {}, name), h("dd", {}, value)]);
  }
  return list;
}

export function typing(target) {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable ||
      (target.matches("input, textarea, select") &&
        !["checkbox", "radio", "range", "button"].includes(target.type)))
  );
}
