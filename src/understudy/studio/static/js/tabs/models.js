// Models: what can be used, how much disk it takes, checks and conversion.

import { forget, get, post } from "../api.js";
import { bytes, button, h, replace, toast } from "../dom.js";
import { jobCard } from "../jobs.js";

export const title = "Models";
export const lead =
  "Models for swaps, edits and drags. Put model folders and checkpoint files into the models folder of the studio; nothing is downloaded.";

export function create(ctx) {
  const element = h("div", { class: "stack" });
  const load = async () => {
    try {
      forget("/api/models");
      const found = await get("/api/models");
      replace(
        element,
        table(found.models, found.folder),
        files(found.files ?? [], ctx, load),
        used(found.used ?? {}),
      );
    } catch (problem) {
      replace(element, h("p", { class: "note bad" }, problem.message));
    }
  };
  load();
  return { element, shown: load };
}

function table(models, folder) {
  return h(
    "section",
    { class: "card" },
    h("div", { class: "card-head" }, h("h2", {}, "Models and generators")),
    folder
      ? h("p", { class: "small" }, "Models folder: ", h("code", {}, folder))
      : h(
          "p",
          { class: "small muted" },
          "The terminal showed the models folder when the studio started.",
        ),
    h(
      "div",
      { class: "table-scroll" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["Name", "For", "From", "Size", ""].map((one) =>
              h("th", { scope: "col", class: one === "Size" ? "number" : "" }, one),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          models.map((one) =>
            h(
              "tr",
              {},
              h("td", {}, h("strong", {}, one.id)),
              h("td", {}, one.kind === "generator" ? "Drag" : "Learn, Swap, Edit, Generate"),
              h("td", {}, one.source),
              h("td", { class: "number" }, bytes(one.bytes)),
              h("td", {}, checkButton(one)),
            ),
          ),
        ),
      ),
    ),
  );
}

function checkButton(model) {
  const told = h("span", { class: "small", role: "status" });
  const check = async () => {
    told.textContent = "Checking...";
    try {
      const found = await post(`/api/models/${encodeURIComponent(model.id)}/check`, {
        kind: model.kind,
      });
      told.textContent = found.ok ? `Complete: ${found.message}` : found.message;
      told.className = `small ${found.ok ? "good" : "danger"}-text`;
    } catch (problem) {
      told.textContent = problem.message;
      told.className = "small danger-text";
    }
  };
  return h(
    "div",
    { class: "row" },
    button("Check", check, { class: "small", "aria-label": `Check ${model.id}` }),
    told,
  );
}

function files(found, ctx, load) {
  const progress = h("div", { class: "stack" });
  const convert = async (file) => {
    try {
      const { id } = await post(`/api/models/convert`, { file: file.id });
      ctx.refreshJobs();
      const done = () => {
        toast(`${file.id} was converted and is now in the list.`);
        load();
      };
      replace(progress, jobCard(id, { onDone: done }));
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  return h(
    "section",
    { class: "card stack tight" },
    h("h2", {}, "Checkpoint files"),
    h(
      "p",
      { class: "muted small" },
      "StyleGAN files (.pkl, .pt) and single-file Stable Diffusion checkpoints in the models folder. They are converted to folders of safetensors without running any code in them.",
    ),
    found.length
      ? h(
          "table",
          {},
          h(
            "tbody",
            {},
            found.map((file) =>
              h(
                "tr",
                {},
                h("td", {}, file.id),
                h("td", { class: "number" }, bytes(file.bytes)),
                h(
                  "td",
                  {},
                  button("Convert", () => convert(file), {
                    class: "small",
                    "aria-label": `Convert ${file.id}`,
                  }),
                ),
              ),
            ),
          ),
        )
      : h("p", { class: "muted" }, "There are none."),
    progress,
  );
}

function used(found) {
  const names = {
    uploads: "Uploaded photos",
    jobs: "Results",
    concepts: "Learnt subjects",
    models: "Models",
    cache: "Cached inversions",
  };
  return h(
    "section",
    { class: "card" },
    h("div", { class: "card-head" }, h("h2", {}, "Disk used by the studio")),
    h(
      "table",
      {},
      h(
        "tbody",
        {},
        Object.entries(found).map(([name, size]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, names[name] ?? name),
            h("td", { class: "number" }, size ? bytes(size) : "empty"),
          ),
        ),
      ),
    ),
  );
}
