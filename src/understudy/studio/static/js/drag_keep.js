// What is kept of a drag: its film, and its picture in the gallery.

import { post } from "./api.js";
import { button, dialog, h, replace, toast } from "./dom.js";
import { checkField, choiceField } from "./forms.js";
import { jobCard } from "./jobs.js";
import { downloadLink, pictures, resultFigure } from "./results.js";
import { load } from "./store.js";

// A dialog that writes the drag as a GIF or MP4 and offers it for download.
export function filmDialog(session) {
  let format = load("film", "gif"),
    marks = true;
  return dialog("Film of the drag", (close) => {
    const made = h("div", { class: "stack" });
    const write = button("Make the film", () => make(), { class: "primary" });
    const make = async () => {
      write.disabled = true;
      replace(made, h("p", { class: "note", role: "status" }, "The film is being written."));
      try {
        const file = await post(`/api/drag/sessions/${session}/film`, { marks, format });
        replace(made, shown(file, format));
        made.querySelector("a").focus();
      } catch (problem) {
        replace(made, h("p", { class: "note bad", role: "alert" }, problem.message));
      } finally {
        write.disabled = false;
      }
    };
    return [
      h("p", {}, "One frame for each step, up to the step that is shown."),
      choiceField(
        "Format",
        [
          ["gif", "GIF: plays everywhere, 256 colours"],
          ["mp4", "MP4: smaller, all colours"],
        ],
        { value: format, onInput: (value) => (format = value), name: "film" },
      ),
      checkField("Show points and targets", {
        checked: marks,
        onInput: (value) => (marks = value),
      }),
      made,
      h(
        "div",
        { class: "dialog-foot" },
        button("Close the film", () => close(null)),
        write,
      ),
    ];
  });
}

function shown(file, format) {
  const label = "Film of the drag";
  return [
    format === "gif"
      ? h("img", { class: "result-picture film", src: file.url, alt: label })
      : h("video", {
          class: "result-picture film",
          src: file.url,
          controls: true,
          loop: true,
          "aria-label": label,
        }),
    h("div", { class: "row" }, downloadLink(file, `Download the ${format.toUpperCase()}`)),
  ];
}

// Results that were saved to the gallery, the newest first.
export function savedList(state, ctx) {
  const saved = h("div", { class: "stack" });
  const keep = async () => {
    try {
      const mark = load("marks", {});
      const { id } = await post(`/api/drag/sessions/${state.get("session")}/save`, { mark });
      ctx.refreshJobs();
      attach(id);
      state.set("saved", [id]);
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  const attach = (id) => {
    const place = h("div", { class: "stack" });
    saved.prepend(place);
    replace(
      place,
      jobCard(id, {
        onDone: (job) => pictures(job).length && replace(place, result(pictures(job)[0], ctx)),
        onChange: (job) => {
          if (job.state === "gone") place.remove();
        },
      }),
    );
  };
  for (const id of state.get("saved") ?? []) attach(id);
  return { element: saved, keep };
}

const result = (file, ctx) =>
  h(
    "section",
    { class: "card" },
    h("div", { class: "card-head" }, h("h2", {}, "Saved to the gallery")),
    h(
      "div",
      { class: "fit" },
      resultFigure(file, {
        alt: "Dragged picture",
        use: [{ label: "Edit it", go: (one) => ctx.go("edit", { photo: one }) }],
      }),
    ),
  );
