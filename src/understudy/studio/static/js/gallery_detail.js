// One result with its recipe, two compared, several exported or deleted.

import { fileUrl, get, post, remove } from "./api.js";
import { tabOf } from "./app.js";
import { button, confirm, dialog, facts, h, replace, say, toast, when } from "./dom.js";
import { pretty } from "./forms.js";
import { downloadLink } from "./results.js";
import { compareSlider } from "./slider.js";
import { saveBlob, zip } from "./zip.js";

export function compareTwo([one, other]) {
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

export const label = (one) => `${pretty(one.verb ?? "picture")} ${one.name}`;

export async function exportAll(files) {
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

export async function dropAll(files, load) {
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
export function detail(file, ctx, load) {
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
          toast("The job was queued again. Its result will appear in the gallery.", "good");
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
              downloadLink(file, "Download", ""),
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

// A list or an object of a recipe in words.
function told(value) {
  if (Array.isArray(value)) return value.map(String).join(", ");
  return Object.entries(value)
    .map(([name, one]) => `${name} ${one}`)
    .join(", ");
}

function recipeOf({ recipe, missing }) {
  const rows = (values) =>
    Object.entries(values ?? {})
      .filter(
        ([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length),
      )
      .map(([name, value]) => [
        pretty(name),
        typeof value === "object" ? told(value) : String(value),
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
