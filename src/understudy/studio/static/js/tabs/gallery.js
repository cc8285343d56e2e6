// Gallery: every result with its recipe.

import { fileUrl, get, post, remove, thumbUrl } from "../api.js";
import { tabOf } from "../app.js";
import { append, button, confirm, dialog, facts, h, replace, say, toast, when } from "../dom.js";
import { choiceField, pretty } from "../forms.js";
import { downloadLink } from "../results.js";
import { compareSlider } from "../slider.js";
import { saveBlob, zip } from "../zip.js";

export const title = "Gallery";
export const lead =
  "Everything that was made here. Each picture carries its recipe: the settings, seeds and versions it was made with.";

export function create(ctx) {
  const grid = h("ul", { class: "pictures plain", "aria-label": "Pictures" });
  const more = button("Show more", () => load(true), { hidden: true });
  const tools = h("div", { class: "toolbar" });
  const element = h(
    "div",
    { class: "stack" },
    tools,
    grid,
    h("div", { class: "row center" }, more),
  );
  let items = [],
    next = null,
    verb = "",
    selecting = false;
  const selected = new Set();

  const load = async (further = false) => {
    try {
      const found = await get(`/api/gallery?most=60${further && next ? `&after=${next}` : ""}`);
      items = further ? [...items, ...found.items] : found.items;
      next = found.next;
      for (const id of [...selected]) if (!items.some((one) => one.id === id)) selected.delete(id);
      draw();
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  const draw = () => {
    const shown = items.filter((one) => !verb || one.verb === verb);
    drawTools();
    more.hidden = next === null;
    replace(grid, shown.map(tile));
    if (!shown.length)
      replace(
        grid,
        h(
          "li",
          { class: "empty wide-cell" },
          h("h2", {}, items.length ? "No picture of this kind" : "Nothing made yet"),
          h("p", {}, "Results of swaps, edits, drags and new pictures appear here by themselves."),
        ),
      );
  };
  const tile = (one) =>
    h(
      "li",
      {},
      append(
        button(null, () => (selecting ? toggle(one.id) : detail(one, ctx, load)), {
          class: "tile",
          "aria-pressed": selecting ? String(selected.has(one.id)) : undefined,
          "aria-label": `${pretty(one.verb ?? "picture")} ${one.name}, ${when(one.created)}`,
        }),
        [
          h("img", { src: one.thumb ?? thumbUrl(one.id), alt: "", loading: "lazy" }),
          h("span", { class: "cap" }, `${pretty(one.verb ?? "picture")}, ${when(one.created)}`),
        ],
      ),
    );
  const toggle = (id) => {
    if (selected.has(id)) selected.delete(id);
    else selected.add(id);
    draw();
    grid
      .querySelectorAll("button")
      [
        items.filter((one) => !verb || one.verb === verb).findIndex((one) => one.id === id)
      ]?.focus();
  };
  const chosen = () => items.filter((one) => selected.has(one.id));
  const drawTools = () => {
    const kinds = [...new Set(items.map((one) => one.verb).filter(Boolean))];
    const filter = choiceField(
      "Show",
      [["", "everything"], ...kinds.map((kind) => [kind, pretty(kind)])],
      {
        value: verb,
        onInput: (value) => {
          verb = value;
          draw();
        },
      },
    );
    filter.classList.add("inline");
    replace(
      tools,
      filter,
      button(
        selecting ? "Stop selecting" : "Select",
        () => {
          selecting = !selecting;
          selected.clear();
          draw();
          say(selecting ? "Select pictures." : "");
        },
        { "aria-pressed": String(selecting) },
      ),
      selecting && [
        h("span", { class: "small muted", "aria-live": "polite" }, `${selected.size} selected`),
        button("Compare two", () => compareTwo(chosen()), { disabled: selected.size !== 2 }),
        button("Export", () => exportAll(chosen()), { icon: "download", disabled: !selected.size }),
        button("Delete", () => dropAll(chosen(), load), {
          class: "danger",
          disabled: !selected.size,
        }),
      ],
    );
  };
  load();
  return {
    element,
    shown: () => load(),
    receive: async (gift) => {
      if (gift.compare) compareTwo(gift.compare);
    },
  };
}

function compareTwo([one, other]) {
  dialog(
    "Compare two results",
    () => [
      h(
        "div",
        { class: "fit" },
        compareSlider(fileUrl(one.id), fileUrl(other.id), {
          labels: [label(one), label(other)],
          alt: label(other),
        }),
      ),
      h(
        "div",
        { class: "pictures few" },
        [one, other].map((file) =>
          h(
            "figure",
            {},
            h("img", { src: fileUrl(file.id), alt: label(file) }),
            h(
              "figcaption",
              {},
              `${label(file)}, ${when(file.created)}, ${file.width} x ${file.height}`,
            ),
          ),
        ),
      ),
    ],
    { wide: true },
  );
}
const label = (one) => `${pretty(one.verb ?? "picture")} ${one.name}`;

async function exportAll(files) {
  const note = toast("Collecting the files.");
  try {
    const parts = [];
    for (const [number, file] of files.entries()) {
      const name = `${String(number + 1).padStart(3, "0")}-${file.name}`;
      const answer = await fetch(`${fileUrl(file.id)}?download=1`);
      if (!answer.ok) throw new Error(`${file.name} could not be read.`);
      parts.push({ name, bytes: new Uint8Array(await answer.arrayBuffer()) });
      const recipe = await get(`/api/gallery/${file.id}/recipe`).catch(() => null);
      if (recipe)
        parts.push({
          name: `${name}.recipe.json`,
          bytes: new TextEncoder().encode(JSON.stringify(recipe.recipe, null, 2)),
        });
    }
    saveBlob(zip(parts), "understudy-export.zip");
    note.remove();
    toast(`${files.length} pictures with their recipes were exported.`, "good");
  } catch (problem) {
    note.remove();
    toast(problem.message, "bad");
  }
}

async function dropAll(files, load) {
  const many = files.length === 1 ? "this picture" : `${files.length} pictures`;
  if (!(await confirm(`Delete ${many}?`, "Delete", { detail: "This cannot be undone." })))
    return false;
  for (const file of files) {
    try {
      await remove(`/api/gallery/${file.id}`);
    } catch (problem) {
      toast(problem.message, "bad");
    }
  }
  say(`${many} deleted`);
  await load();
  return true;
}

// One picture large, with its recipe and what one does with it.
function detail(file, ctx, load) {
  dialog(
    label(file),
    (close) => {
      const side = h(
        "div",
        { class: "stack" },
        h("p", { class: "muted" }, "Reading the recipe..."),
      );
      let told = null;
      const go = (tab, gift) => {
        close();
        ctx.go(tab, gift);
      };
      const rerun = async () => {
        try {
          await post(`/api/gallery/${file.id}/rerun`);
          close();
          ctx.refreshJobs();
          toast("The job was queued again. Its result appears in the gallery.", "good");
        } catch (problem) {
          toast(problem.message, "bad");
        }
      };
      const fillForm = button(
        "Fill the form",
        () => go(tabOf(told.form.verb), { form: told.form }),
        { disabled: true },
      );
      get(`/api/gallery/${file.id}/recipe`).then(
        (found) => {
          told = found;
          fillForm.disabled = !found.form;
          replace(side, recipeOf(found));
        },
        (problem) => replace(side, h("p", { class: "note" }, problem.message)),
      );
      return [
        h(
          "div",
          { class: "detail" },
          h("img", { class: "result-picture", src: fileUrl(file.id), alt: label(file) }),
          h(
            "div",
            { class: "stack" },
            h(
              "div",
              { class: "row" },
              downloadLink(file, "Download"),
              fillForm,
              button("Run again", rerun),
              button(
                "Delete",
                async () => {
                  if (await dropAll([file], load)) close();
                },
                { class: "danger" },
              ),
            ),
            h(
              "div",
              { class: "row" },
              button("Use in Swap", () => go("swap", { photo: file }), { class: "small" }),
              button("Use in Edit", () => go("edit", { photo: file }), { class: "small" }),
              button("Compare", () => go("compare", { files: [file] }), { class: "small" }),
            ),
            facts([
              ["Size", `${file.width} x ${file.height} pixels`],
              ["Made", when(file.created)],
            ]),
            side,
          ),
        ),
      ];
    },
    { wide: true },
  );
}

function recipeOf({ recipe, missing }) {
  const rows = (values) =>
    Object.entries(values ?? {})
      .filter(
        ([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length),
      )
      .map(([name, value]) => [
        pretty(name),
        typeof value === "object" ? JSON.stringify(value) : String(value),
      ]);
  return [
    h("h3", {}, "Recipe"),
    facts([
      ["Command", recipe.command],
      ["Model", recipe.model],
      ["Seed", recipe.seed === null ? "" : String(recipe.seed)],
      ...rows(recipe.arguments),
    ]),
    missing?.length > 0 &&
      h(
        "p",
        { class: "note warn" },
        `No longer in this studio: ${missing.map((one) => `${one.role} ${one.name}`).join(", ")}`,
      ),
    h("details", { class: "more" }, h("summary", {}, "Settings"), facts(rows(recipe.settings))),
    h(
      "details",
      { class: "more" },
      h("summary", {}, "Inputs and versions"),
      facts([
        ...(recipe.ingredients ?? []).map((one) => [
          pretty(one.role),
          `${one.name} (${one.sha256.slice(0, 12)})`,
        ]),
        ...rows(recipe.versions),
      ]),
    ),
  ];
}
