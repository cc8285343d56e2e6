// The frame of the page: tabs by address (#swap), shortcuts, theme, dropped and pasted pictures.

import { readRecipe } from "./api.js";
import { append, button, dialog, h, icon, say, toast, typing } from "./dom.js";
import { jobsPanel } from "./jobs_panel.js";
import { load, save } from "./store.js";
import { showShortcuts } from "./shortcuts.js";

const TABS = [
  ["learn", "Photos & Learn"],
  ["swap", "Swap"],
  ["edit", "Edit"],
  ["drag", "Drag"],
  ["generate", "Generate"],
  null,
  ["gallery", "Gallery"],
  ["compare", "Compare"],
  ["models", "Models"],
  ["settings", "Settings"],
];
const made = new Map();
const making = new Map(); // name -> promise of a tab
let current = null;

export function applyTheme(theme) {
  const root = document.documentElement;
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  else delete root.dataset.theme;
  save("theme", theme);
}

// A tab is made when it is first asked for, once, even if it is asked for twice meanwhile.
function tab(name) {
  if (!making.has(name)) {
    const one = make(name);
    making.set(name, one);
    one.catch(() => making.delete(name));
  }
  return making.get(name);
}

async function make(name) {
  const module = await import(`./tabs/${name}.js`);
  const element = h("section", {
    class: "tab",
    "aria-labelledby": `title-${name}`,
    hidden: true,
  });
  const content = module.create({ go, refreshJobs, applyTheme });
  append(element, [
    h(
      "header",
      { class: "tab-head" },
      h("h1", { id: `title-${name}`, tabindex: -1 }, module.title),
      h("p", { class: "lead" }, module.lead),
    ),
    content.element,
  ]);
  document.getElementById("main").append(element);
  made.set(name, { ...content, frame: element });
  return made.get(name);
}

let refreshJobs = () => {};
let turn = 0;
// The tab that was asked for last, also where an earlier one takes longer to load.
async function show(focus) {
  const mine = ++turn;
  const asked = location.hash.slice(1).split("?")[0] || load("tab", "learn");
  const name = TABS.some((one) => one?.[0] === asked) ? asked : "learn";
  const found = await tab(name).catch((problem) => {
    toast(`This tab could not be opened: ${problem.message}`, "bad");
    console.error(problem);
  });
  if (!found || mine !== turn) return;
  for (const other of made.values()) other.frame.hidden = other !== found;
  if (current && current !== found) current.left?.();
  current = found;
  save("tab", name);
  for (const link of document.querySelectorAll("#nav a")) {
    const here = link.hash === `#${name}`;
    if (here) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  const label = TABS.find((one) => one?.[0] === name)[1];
  document.title = `${label} - understudy studio`;
  found.shown?.();
  if (focus) {
    document.getElementById(`title-${name}`).focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

// Go to a tab and hand it something: a recipe, a picture, a concept.
export async function go(name, gift) {
  location.hash = name;
  const found = await tab(name);
  if (gift) await found.receive?.(gift);
}

function frame() {
  const nav = document.getElementById("nav");
  append(
    nav,
    TABS.map((one) =>
      one ? h("a", { href: `#${one[0]}` }, icon(one[0]), one[1]) : h("div", { class: "nav-gap" }),
    ),
  );
  const jobs = h(
    "button",
    { type: "button", class: "quiet", "aria-expanded": "false", "aria-controls": "jobs" },
    icon("jobs"),
    "Jobs",
  );
  const dark = () =>
    document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
  append(document.getElementById("tools"), [
    jobs,
    button(
      "Light or dark theme",
      () => {
        applyTheme(dark() ? "light" : "dark");
        say(dark() ? "Dark theme" : "Light theme");
      },
      { icon: "theme", only: true, class: "quiet" },
    ),
    button("Keyboard shortcuts", () => showShortcuts(), {
      icon: "help",
      only: true,
      class: "quiet",
    }),
  ]);
  refreshJobs = jobsPanel(document.getElementById("jobs"), jobs, go);
}

// Pictures dropped or pasted anywhere go to the open tab; a PNG of ours offers its recipe.
async function received(files) {
  const pictures = files.filter(
    (file) =>
      file.type.startsWith("image/") || /\.(png|jpe?g|webp|tiff?|bmp|heic|avif)$/i.test(file.name),
  );
  if (!pictures.length)
    return toast("This file is not a picture. Use PNG, JPEG, WebP, TIFF or BMP.", "bad");
  if (pictures.length === 1 && pictures[0].type === "image/png") {
    const recipe = await readRecipe(pictures[0]).catch(() => null);
    if (recipe) return offer(pictures[0], recipe);
  }
  if (!current?.take)
    return toast("This tab does not accept pictures. Open Swap, Edit or Photos & Learn first.", "bad");
  await current.take(pictures);
}

async function offer(file, { recipe, form, missing = [] }) {
  const can = form && TABS.some((one) => one?.[0] === tabOf(form.verb));
  const choice = await dialog("This picture has a recipe", (close) => [
    h(
      "p",
      {},
      `understudy made it with the command "${recipe.command}". ${can ? "Its settings can be filled into the form." : "It has no settings for a form of the studio."}`,
    ),
    missing.length > 0 &&
      h(
        "p",
        { class: "note warn" },
        `Not in this studio: ${missing.map((one) => `${one.role} ${one.name}`).join(", ")}. Choose them in the form.`,
      ),
    h(
      "div",
      { class: "dialog-foot" },
      button("Cancel", () => close(null)),
      current?.take && button("Use it as a photo", () => close("photo")),
      can && button("Fill the form", () => close("form"), { class: "primary" }),
    ),
  ]);
  if (choice === "photo") await current.take([file]);
  if (choice === "form") await go(tabOf(form.verb), { form });
}

export const tabOf = (verb) =>
  ({ sweep: "swap", explain: "swap", project: "drag", invert: "edit", demo: "learn" })[verb] ??
  verb;

function listen() {
  window.addEventListener("hashchange", () => show(true));
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer?.files.length) received([...event.dataTransfer.files]);
  });
  window.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) {
      event.preventDefault();
      received(files);
    }
  });
  window.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
      const run = current?.frame.querySelector("button[data-run]:not(:disabled)");
      if (run && !document.querySelector("dialog[open]")) {
        event.preventDefault();
        run.click();
      }
    }
    if (
      event.defaultPrevented ||
      typing(event.target) ||
      document.querySelector("dialog[open]") ||
      event.ctrlKey ||
      event.metaKey ||
      event.altKey
    )
      return;
    if (event.key === "?") {
      event.preventDefault();
      showShortcuts();
    }
    if (/^[1-9]$/.test(event.key) && load("keys", true)) {
      const name = TABS.filter(Boolean)[Number(event.key) - 1][0];
      event.preventDefault();
      location.hash = name;
    }
  });
}

applyTheme(load("theme", "system"));
frame();
listen();
show(false);
