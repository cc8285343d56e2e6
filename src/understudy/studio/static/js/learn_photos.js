// The photos of a subject: uploaded, checked, cropped, masked.

import { fileUrl, once, post, thumbUrl } from "./api.js";
import { button, dialog, h, replace, say, toast } from "./dom.js";
import { cropDialog, maskDialog } from "./editors.js";
import { droppable, fileButton, uploadAll, uploadExamples } from "./inputs.js";

// redraw(): draws the whole form anew, after its name and noun were changed by an example.
export function photoList(state, redraw) {
  const photos = h("div", { class: "stack tight" });
  let reports = {},
    checking = 0;

  const take = async (files) => {
    add(await uploadAll(files));
  };
  const add = (found) => {
    state.set("photos", [...state.get("photos"), ...found]);
    draw();
    check();
    if (found.length) say(`${found.length} photos added`);
  };
  const check = async () => {
    const mine = ++checking,
      held = state.get("photos");
    if (!held.length) {
      reports = {};
      return draw();
    }
    try {
      const found = await post("/api/preflight", {
        photos: held.map((one) => one.id),
        model: state.get("model") ?? "toybox",
        method: state.get("settings").learn?.method ?? "dreambooth",
      });
      if (mine !== checking) return;
      reports = found;
      draw();
      const many = found.photos.filter((one) => one.error || one.warnings.length).length;
      say(
        many
          ? `${many} of ${found.photos.length} photos have warnings.`
          : "All photos are suitable for learning.",
      );
    } catch (problem) {
      if (problem.status === 404) {
        state.set("photos", []);
        draw();
      }
      toast(problem.message, "bad");
    }
  };
  const change = (number, found) => {
    const held = [...state.get("photos")];
    if (found) held[number] = found;
    else held.splice(number, 1);
    state.set("photos", held);
    draw();
    check();
  };
  const crop = async (number) => {
    const photo = state.get("photos")[number],
      made = await cropDialog(fileUrl(photo.id));
    if (!made) return;
    const [taken] = await uploadAll([
      new File([made], photo.name.replace(/\.\w+$/, "") + "-crop.png", { type: "image/png" }),
    ]);
    if (taken) change(number, taken);
  };
  const paint = async (number) => {
    const photo = state.get("photos")[number];
    const made = await maskDialog(fileUrl(photo.id), {
      existing: photo.mask ? fileUrl(photo.mask.id) : null,
      lead: "Paint over the subject. Learning then gives the rest of the photo less weight. A mask is needed for all photos or none.",
    });
    if (!made) return;
    if (made === "none") return change(number, { ...photo, mask: null });
    const [mask] = await uploadAll([new File([made], "mask.png", { type: "image/png" })], {
      mask: true,
    });
    if (mask) change(number, { ...photo, mask });
  };
  const draw = () => {
    const held = state.get("photos"),
      place = h(
        "div",
        { class: "drop" },
        h(
          "p",
          {},
          held.length
            ? "Drop or paste more photos"
            : "Drop photos of one subject here, or paste them",
        ),
        h(
          "div",
          { class: "row" },
          fileButton("Choose photos", take, { multiple: true }),
          button("Example subjects", () => examples(), {}),
        ),
      );
    droppable(place, take);
    replace(
      photos,
      place,
      (reports.warnings ?? []).map((line) => h("p", { class: "note warn" }, capital(line))),
      held.length > 0 &&
        h(
          "ul",
          { class: "thumbs plain" },
          held.map((photo, number) =>
            tile(
              photo,
              (reports.photos ?? []).find((one) => one.id === photo.id),
              number,
            ),
          ),
        ),
    );
  };
  const tile = (photo, report, number) =>
    h(
      "li",
      { class: "thumb" },
      h("img", { src: thumbUrl(photo.id), alt: photo.name }),
      h("span", { class: "name" }, photo.name),
      report &&
        h(
          "ul",
          { class: "findings" },
          report.error
            ? h("li", { class: "bad" }, report.error)
            : report.warnings.map((line) => h("li", {}, capital(line))),
          !report.error &&
            !report.warnings.length &&
            h("li", { class: "plain" }, "Suitable for learning"),
        ),
      !report && h("p", { class: "small muted" }, "Checking..."),
      photo.mask && h("span", { class: "badge good" }, "mask"),
      h(
        "div",
        { class: "row" },
        button("Crop", () => crop(number), { "aria-label": `Crop ${photo.name}` }),
        button("Mask", () => paint(number), { "aria-label": `Mask of ${photo.name}` }),
        button("Remove", () => change(number, null), {
          icon: "trash",
          only: true,
          class: "quiet",
          "aria-label": `Remove ${photo.name}`,
        }),
      ),
    );
  const examples = () =>
    dialog(
      "Example subjects",
      (close) => {
        const list = h("div", { class: "stack" }, h("p", { class: "muted" }, "Loading..."));
        once("/examples/examples.json").then(
          ({ subjects }) =>
            replace(
              list,
              subjects.map((one) =>
                h(
                  "section",
                  { class: "card stack tight" },
                  h(
                    "div",
                    { class: "row spread" },
                    h("h3", {}, `${one.name}, a ${one.noun}`),
                    button(
                      "Use these photos",
                      async () => {
                        close();
                        state.assign({ photos: [], name: one.name, noun: one.noun });
                        redraw();
                        add(await uploadExamples(one.files));
                      },
                      { class: "primary small" },
                    ),
                  ),
                  h(
                    "div",
                    { class: "strip" },
                    one.files.map((file) =>
                      h("img", {
                        src: `/examples/${file}`,
                        alt: `${one.name}, ${one.noun}`,
                        loading: "lazy",
                      }),
                    ),
                  ),
                ),
              ),
            ),
          (problem) => replace(list, h("p", { class: "note bad" }, problem.message)),
        );
        return [list];
      },
      { wide: true },
    );
  return { element: photos, take, add, check, draw, examples };
}

const capital = (text) =>
  text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
