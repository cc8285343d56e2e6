// Further pictures of an instruction: "picture 2", "picture 3" and so on; the photo is picture 1.

import { thumbUrl } from "./api.js";
import { button, h, replace, say } from "./dom.js";
import { droppable, fileButton, uploadAll } from "./inputs.js";

export const LISTED = 9; // FLUX.2 reads ten pictures, the photo included

// The list of state.references. shown(): whether the chosen method reads any. Returns an element with draw().
export function referenceList(state, shown) {
  const element = h("fieldset", { class: "field", hidden: true }, h("legend", {}, "Other pictures"));
  const body = h("div", { class: "stack tight" });
  element.append(body);
  const set = (found) => {
    state.set("references", found.slice(0, LISTED));
    element.draw();
  };
  const take = async (files) => {
    const found = await uploadAll(files);
    set([...state.get("references"), ...found]);
    if (found.length) say(`${state.get("references").length} other pictures`);
  };
  const row = (one, number) =>
    h(
      "div",
      { class: "picked" },
      h("img", { src: thumbUrl(one.id), alt: `Picture ${number + 2}: ${one.name}` }),
      h(
        "div",
        { class: "stack tight" },
        h("p", { class: "name" }, `Picture ${number + 2}: ${one.name}`),
        button("Remove", () => set(state.get("references").filter((_, at) => at !== number)), {
          class: "small",
          "aria-label": `Remove picture ${number + 2}`,
        }),
      ),
    );
  element.draw = () => {
    element.hidden = !shown();
    const held = state.get("references");
    replace(
      body,
      held.map(row),
      held.length < LISTED && fileButton("Add a picture", take, { multiple: true }),
      h(
        "p",
        { class: "small muted" },
        "For FLUX.2: pictures that the instruction calls picture 2, picture 3 and so on. The photo is picture 1.",
      ),
    );
  };
  droppable(element, take);
  element.draw();
  return element;
}
