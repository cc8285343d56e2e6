// The results of edits: before and after, the words that changed, the changed area.

import { fileUrl } from "./api.js";
import { append, h } from "./dom.js";
import { wordDiff } from "./prompt_words.js";
import { beforeAfter, changedArea, pictures, resultFigure, valuesTable } from "./results.js";

export async function render(done, ctx) {
  const cards = [];
  for (const job of done) {
    const before = fileUrl(job.wish.inputs.photo),
      made = pictures(job),
      several = made.length > 1;
    const use = [{ label: "Edit it again", go: (one) => ctx.go("edit", { photo: one }) }];
    const card = h("section", { class: "card stack" });
    for (const [number, file] of made.entries()) {
      const to = job.wish.inputs.to[number] ?? "";
      append(card, [
        wordDiff(job.wish.inputs.prompt, to),
        beforeAfter(before, file, { labels: ["Photo", "Edit"], alt: to, use }),
      ]);
      if (!several)
        card.append(
          h(
            "div",
            { class: "pictures few" },
            (await changedArea(before, file.url).catch(() => null)) ?? "",
          ),
        );
    }
    if (!made.length) card.append(resultFigure({ url: before, name: "photo" }));
    card.append(
      h(
        "details",
        { class: "more" },
        h("summary", {}, "Details"),
        valuesTable(job.result.values, ["pictures", "target_prompts"]),
      ),
    );
    cards.push(card);
  }
  return cards;
}
