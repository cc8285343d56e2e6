// The table of learnt subjects.

import { button, dialog, h, replace } from "./dom.js";
import { showProblem } from "./forms.js";
import { learnt } from "./learnt.js";
import { choiceLabel } from "./settings_form.js";
import { concepts } from "./verbs.js";

export function library(ctx, element) {
  const list = h("div", { class: "stack" });
  const card = h(
    "section",
    { class: "card", "aria-label": "Learnt subjects" },
    h("div", { class: "card-head" }, h("h2", {}, "Learnt subjects")),
    list,
  );
  element.refresh = async () => {
    const found = await concepts(true).catch(() => []);
    replace(
      list,
      found.length
        ? h(
            "div",
            { class: "table-scroll" },
            h(
              "table",
              { class: "subjects" },
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  ["Name", "Expands to", "Method", "Model", ""].map((one) =>
                    h("th", { scope: "col" }, one),
                  ),
                ),
              ),
              h(
                "tbody",
                {},
                found.map((one) =>
                  h(
                    "tr",
                    {},
                    h("td", {}, h("strong", {}, one.id)),
                    h("td", {}, one.phrase),
                    h("td", {}, choiceLabel(one.kind)),
                    h("td", {}, one.base_model),
                    h(
                      "td",
                      {},
                      h(
                        "div",
                        { class: "row" },
                        button(
                          "Details",
                          () =>
                            dialog(
                              `Subject ${one.id}`,
                              () => {
                                const place = h("div", { class: "stack" });
                                learnt(one.id, ctx).then(
                                  (found) => replace(place, found),
                                  (problem) => showProblem(place, problem.message),
                                );
                                return [place];
                              },
                              { wide: true },
                            ),
                          { class: "small" },
                        ),
                        button("Swap", () => ctx.go("swap", { concept: one.id }), {
                          class: "small",
                        }),
                        button("Generate", () => ctx.go("generate", { concept: one.id }), {
                          class: "small",
                        }),
                      ),
                    ),
                  ),
                ),
              ),
            ),
          )
        : h("p", { class: "muted" }, "None yet."),
    );
  };
  element.refresh();
  return card;
}
