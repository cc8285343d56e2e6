// Gallery: every result with its recipe.

import { get, thumbUrl } from "../api.js";
import { append, button, h, replace, say, toast, when } from "../dom.js";
import { choiceField, pretty } from "../forms.js";
import { compareTwo, detail, dropAll, exportAll } from "../gallery_detail.js";

export const title = "Gallery";

export const lead =
  "Everything that was made in this studio. Each picture contains its recipe: the settings, seeds and versions it was made with.";

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
          h("p", {}, "Results of swaps, edits, drags and new pictures appear here automatically."),
          !items.length &&
            h(
              "div",
              { class: "row" },
              [
                ["swap", "Swap a subject"],
                ["edit", "Edit a photo"],
                ["drag", "Drag points"],
              ].map(([tab, label]) => button(label, () => ctx.go(tab))),
            ),
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
          "aria-label": `${pretty(one.verb ?? "picture")}, ${when(one.created)}, ${one.name}`,
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
