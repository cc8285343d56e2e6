// Drag: points of a picture are moved to where they should be, live.

import { post, remove } from "../api.js";
import { PictureCanvas } from "../canvas.js";
import { append, h, replace, toast, typing } from "../dom.js";
import { LiveDrag } from "../drag_live.js";
import { drawSide } from "../drag_source.js";
import { makeView } from "../drag_view.js";
import { uploadAll } from "../inputs.js";
import { state as stateOf } from "../store.js";

export const title = "Drag";

export const lead =
  "Set a point, set where it should go, and watch the picture follow. Any step can be restored.";

const START = {
  source: "seed",
  seed: 3,
  generator: "toybox-gan",
  photo: null,
  session: null,
  settings: {},
  projecting: null,
  saved: [],
};

const HINT =
  "Arrow keys move the cursor (Shift: 10 pixels). Enter sets a point, and again its target. N chooses the next point, Delete removes it. Space runs or pauses, full stop makes one step. Ctrl Z and Ctrl Shift Z undo and redo.";

export function create(ctx) {
  const state = stateOf("drag", START);
  const element = h("div", { class: "bench drag" });
  const side = h("div", { class: "stack" }),
    main = h("div", { class: "stack" });
  append(element, [side, main]);
  const canvas = new PictureCanvas({ label: "Picture to drag", hint: HINT });
  canvas.dims = true;
  const live = new LiveDrag();
  const begin = () => open({ generator: state.get("generator"), seed: state.get("seed") });
  const view = makeView({ state, canvas, live, ctx, begin });
  const open = async (wanted) => {
    try {
      if (state.get("session"))
        remove(`/api/drag/sessions/${state.get("session")}`).catch(() => {});
      const { id } = await post("/api/drag/sessions", {
        ...wanted,
        settings: state.get("settings"),
      });
      state.set("session", id);
      view.reset();
      live.connect(id);
      main.scrollIntoView({ block: "nearest" });
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  drawSide(side, state, open, live, ctx);
  replace(main, view.element);
  if (state.get("session")) live.connect(state.get("session"));
  else view.idle();
  live.on.gone = () => {
    state.set("session", null);
    view.idle();
  };
  window.addEventListener("keydown", (event) => {
    if (
      element.offsetParent === null ||
      event.defaultPrevented ||
      document.querySelector("dialog[open]") ||
      !canvas.picture
    )
      return;
    const control =
      event.target instanceof HTMLElement &&
      event.target.matches("button, a, summary, input, select, textarea");
    view.key(event, control || typing(event.target));
  });
  return {
    element,
    take: async (files) => {
      const [found] = await uploadAll(files.slice(0, 1));
      if (found) {
        state.assign({ photo: found, source: "photo" });
        drawSide(side, state, open, live, ctx);
      }
    },
    left: () => live.running && live.send("pause"),
    receive: async (gift) => {
      if (gift.photo) state.assign({ photo: gift.photo, source: "photo" });
      if (gift.form) await fill(state, gift.form, open, live);
      drawSide(side, state, open, live, ctx);
    },
  };
}

// The form and the picture of a recipe: its saved session, or its seed with its points.
async function fill(state, { settings, inputs, seed }, open, live) {
  const { steps, reset_optimiser, ...kept } = settings.drag ?? {};
  const generator = inputs.generator ?? "toybox-gan";
  state.assign({ generator, settings: inputs.session ? {} : { ...kept, steps, reset_optimiser } });
  const { session, latent, into } = inputs;
  if (session || latent) await open({ generator, session, latent, into });
  else if (seed !== null && seed !== undefined) {
    state.assign({ seed, source: "seed" });
    await open({ generator, seed });
  }
  if (session || !inputs.points) return;
  const pairs = inputs.points
    .split(";")
    .map((pair) => pair.split(">").map((point) => point.split(",").map(Number)));
  live.whenReady(() => live.send("points", { pairs }));
}
