// Drag: points of a picture are moved to where they should be, live.

import { fileUrl, post, remove } from "../api.js";
import { PictureCanvas } from "../canvas.js";
import { append, button, confirm, dialog, h, replace, say, toast, typing } from "../dom.js";
import { LiveDrag } from "../drag_live.js";
import { brushTools } from "../editors.js";
import { choiceField, numberField, settingsForm } from "../forms.js";
import { fileButton, pictureInput, uploadAll } from "../inputs.js";
import { jobCard, filesOf } from "../jobs.js";
import { downloadLink, pictures, resultFigure } from "../results.js";
import { state as stateOf } from "../store.js";
import { generators, models, settingsOf } from "../verbs.js";

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
  const view = makeView({ state, canvas, live, ctx });
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
      if (gift.form) {
        const { settings, inputs, seed } = gift.form;
        state.assign({
          generator: inputs.generator ?? "toybox-gan",
          settings: settings.drag ?? {},
          ...(seed === null ? {} : { seed, source: "seed" }),
        });
        if (seed !== null) await open({ generator: state.get("generator"), seed });
        if (inputs.points)
          live.whenReady(() =>
            live.send("points", {
              pairs: inputs.points
                .split(";")
                .map((pair) => pair.split(">").map((point) => point.split(",").map(Number))),
            }),
          );
      }
      drawSide(side, state, open, live, ctx);
    },
  };
}

// The form: where the picture comes from, and the settings.
function drawSide(place, state, open, live, ctx) {
  const source = h("div", { class: "stack" });
  const pick = (name) => {
    state.set("source", name);
    drawSide(place, state, open, live, ctx);
    place.querySelector(`[data-source=${name}]`).focus();
  };
  const kinds = [
    ["seed", "Generated picture"],
    ["photo", "Your photo"],
  ];
  const tabs = h(
    "div",
    { class: "segments", role: "group", "aria-label": "Where the picture comes from" },
    kinds.map(([name, label]) =>
      button(label, () => pick(name), {
        "aria-pressed": String(state.get("source") === name),
        "data-source": name,
      }),
    ),
  );
  models().then(
    (found) => {
      const names = generators(found).map((one) => one.id);
      const generator =
        names.length > 1 &&
        choiceField("Generator", names, {
          value: state.get("generator"),
          name: "generator",
          onInput: (value) => state.set("generator", value),
        });
      replace(
        source,
        generator,
        state.get("source") === "seed" ? seedPart(state, open) : photoPart(state, open),
      );
    },
    (problem) => replace(source, h("p", { class: "note bad" }, problem.message)),
  );
  const settings = h("div", {});
  const given = state.get("settings");
  const changed = (name) => {
    for (const key of Object.keys(given)) if (given[key] === undefined) delete given[key];
    state.set("settings", { ...given });
    live.send("settings", { settings: { ...given } });
    if (name === "preset") drawSettings();
  };
  const drawSettings = () =>
    settingsOf("drag", { generator: state.get("generator"), preset: given.preset ?? "" }).then(
      (groups) =>
        replace(
          settings,
          settingsForm(groups.drag ?? [], given, {
            basic: ["space", "layers", "steps", "learning_rate"],
            labels: { space: "Latent space", steps: "Largest number of steps" },
            hidden: ["truncation", "keep_every"],
            onChange: changed,
          }),
        ),
    );
  drawSettings();
  replace(
    place,
    h(
      "form",
      { class: "card stack", on: { submit: (event) => event.preventDefault() } },
      tabs,
      source,
    ),
    h(
      "form",
      { class: "card stack", on: { submit: (event) => event.preventDefault() } },
      h("h2", {}, "Settings"),
      settings,
    ),
  );
}

function seedPart(state, open) {
  const seed = numberField("Seed", {
    value: state.get("seed"),
    min: 0,
    max: 4294967295,
    name: "seed",
    help: "Each number is another picture.",
    onInput: (value) => state.set("seed", value ?? 0),
  });
  const start = () => open({ generator: state.get("generator"), seed: state.get("seed") });
  return h(
    "div",
    { class: "stack" },
    seed,
    h(
      "div",
      { class: "row" },
      button("Open this picture", start, { class: "primary", "data-run": "" }),
      button("Random picture", () => {
        state.set("seed", Math.floor(Math.random() * 10000));
        seed.control.value = state.get("seed");
        start();
      }),
    ),
  );
}

// A photo is projected first: a latent is searched that draws it.
function photoPart(state, open) {
  const photo = pictureInput({
    label: "Photo",
    value: state.get("photo"),
    examples: false,
    onChange: (found) => state.set("photo", found),
  });
  const progress = h("div", { class: "stack" });
  const watch = (id) =>
    replace(
      progress,
      jobCard(id, {
        onDone: (job) => {
          const latent = filesOf(job).find((file) => file.name.endsWith(".safetensors")),
            [picture] = pictures(job),
            values = job.result.values;
          const into = job.wish.inputs.photo;
          replace(
            progress,
            h(
              "div",
              { class: "stack tight" },
              picture &&
                resultFigure(picture, {
                  caption: `The projection reproduces the photo at ${values.psnr} dB. Below about 20 dB, drag results look unlike the photo.`,
                }),
              button(
                "Drag this photo",
                () =>
                  open({
                    generator: job.wish.inputs.generator ?? "toybox-gan",
                    latent: latent.id,
                    into,
                  }),
                { class: "primary" },
              ),
            ),
          );
        },
      }),
    );
  const effort = choiceField(
    "Projection",
    [
      ["fast", "Fast, less exact"],
      ["full", "Full, minutes on a CPU"],
    ],
    {
      value: state.get("effort") ?? "fast",
      name: "effort",
      onInput: (value) => state.set("effort", value),
    },
  );
  const project = async () => {
    if (!state.get("photo")) return toast("Choose a photo first.", "bad");
    try {
      const settings =
        (state.get("effort") ?? "fast") === "fast" ? { steps: 120, tune_steps: 60 } : {};
      const { id } = await post("/api/jobs", {
        verb: "project",
        settings: { project: settings },
        inputs: { photo: state.get("photo").id, generator: state.get("generator") },
      });
      state.set("projecting", id);
      watch(id);
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  if (state.get("projecting")) watch(state.get("projecting"));
  return h(
    "div",
    { class: "stack" },
    photo,
    h(
      "p",
      { class: "small muted" },
      "The generator must know this kind of picture: the built-in one draws toy faces. The photo is cut to a square around its middle.",
    ),
    effort,
    h("div", { class: "row" }, button("Project the photo", project, { class: "primary" })),
    progress,
  );
}

function makeView({ state, canvas, live, ctx }) {
  let chosen = -1,
    maskTimer = 0,
    uploading = null,
    shownMask = "";
  const status = h("p", { class: "status", "aria-live": "polite" });
  const run = button("Run", () => live.send(live.running ? "pause" : "run"), {
    icon: "play",
    class: "primary",
  });
  const tools = [
    ["points", "Points"],
    ["brush", "Area that may change"],
    ["look", "Move the view"],
  ].map(([tool, label]) => [
    tool,
    button(label, () => pick(tool), { "aria-pressed": "false", class: "small" }),
  ]);
  const painting = brushTools(canvas, () => painted(), { wand: false, compact: true });
  const pick = (tool) => {
    canvas.tool = tool === "erase" ? "erase" : tool;
    painting.hidden = !["brush", "erase"].includes(tool);
    if (!painting.hidden) painting.pick(tool);
    tools.forEach(([name, one]) =>
      one.setAttribute(
        "aria-pressed",
        String(name === tool || (tool === "erase" && name === "brush")),
      ),
    );
    canvas.draw();
  };
  const time = h("input", {
    type: "range",
    min: 0,
    max: 0,
    value: 0,
    "aria-label": "Timeline: the moment that is shown",
    on: { input: () => live.send("goto", { moment: Number(time.value) }) },
  });
  const told = h("output", { class: "small muted" });
  const undo = button("Undo", () => live.send("undo"), {
      icon: "undo",
      only: true,
      title: "Undo one step (Ctrl Z)",
    }),
    redo = button("Redo", () => live.send("redo"), {
      icon: "redo",
      only: true,
      title: "Redo one step (Ctrl Shift Z)",
    });
  const list = h("div", { class: "stack tight" });
  const saved = h("div", { class: "stack" });
  const send = (pairs) => {
    live.send("points", { pairs });
    if (live.running) live.send("run");
  };
  const pairs = () =>
    canvas.points.map((point) => [
      [point.handle.x, point.handle.y],
      [point.target.x, point.target.y],
    ]);
  canvas.on.place = (place) => {
    if (!canvas.pending) {
      canvas.pending = { ...place };
      say(
        `Point set at ${Math.round(place.x)}, ${Math.round(place.y)}. Now set where it should go.`,
      );
      status.textContent = "Now click where this point should go.";
      return canvas.draw();
    }
    const handle = canvas.pending;
    canvas.pending = null;
    canvas.points.push({ handle, target: { ...place } });
    chosen = canvas.active = canvas.points.length - 1;
    say("Target set.");
    send(pairs());
  };
  canvas.on.moved = ({ index, end }, place) => {
    canvas.points[index][end] = { ...place };
    canvas.draw();
  };
  canvas.on.dropped = () => send(pairs());
  const painted = () => {
    clearTimeout(maskTimer);
    maskTimer = setTimeout(sendMask, 250);
  };
  const sendMask = async () => {
    if (canvas.mask.empty) {
      shownMask = "";
      return live.send("mask", { file: null });
    }
    uploading = canvas.mask.png();
    const [file] = await uploadAll(
      [new File([await uploading], "mask.png", { type: "image/png" })],
      { mask: true },
    );
    if (!file) return;
    state.set("mask", (shownMask = file.id));
    live.send("mask", { file: file.id });
  };
  canvas.on.paint = painted;
  // The mask of the moment that is shown, unless one is being painted.
  const showMask = (file) => {
    if (file === shownMask || canvas.held || canvas.pen) return;
    shownMask = file;
    if (file)
      canvas.mask.take(fileUrl(file)).then(
        () => canvas.draw(),
        () => {},
      );
    else canvas.mask.restore(null);
  };
  const drop = (index) => {
    canvas.points.splice(index, 1);
    canvas.active = chosen = Math.min(index, canvas.points.length - 1);
    send(pairs());
    say("Point removed.");
  };
  const drawList = (head) =>
    replace(
      list,
      canvas.points.length
        ? h(
            "table",
            {},
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                ["Point", "From", "To", "Left", ""].map((one) => h("th", { scope: "col" }, one)),
              ),
            ),
            h(
              "tbody",
              {},
              canvas.points.map((point, index) =>
                h(
                  "tr",
                  {},
                  h("td", {}, String(index + 1)),
                  h("td", {}, at(point.handle)),
                  h("td", {}, at(point.target)),
                  h(
                    "td",
                    {},
                    head.left[index] === undefined ? "" : `${head.left[index].toFixed(1)} px`,
                  ),
                  h(
                    "td",
                    {},
                    button("Remove", () => drop(index), {
                      icon: "trash",
                      only: true,
                      class: "quiet small",
                      "aria-label": `Remove point ${index + 1}`,
                    }),
                  ),
                ),
              ),
            ),
          )
        : h(
            "p",
            { class: "muted small" },
            "No points yet. Click the picture where something should move, then click where it should go.",
          ),
    );
  live.on.frame = async (head, bitmap) => {
    canvas.show(bitmap);
    if (!canvas.held?.point)
      canvas.points = head.points.map((point, index) => ({
        handle: { x: point[0], y: point[1] },
        target: { x: head.targets[index][0], y: head.targets[index][1] },
      }));
    Object.assign(canvas.canvas.dataset, {
      moment: head.moment,
      moments: head.moments,
      step: head.step,
      re: head.re,
      points: head.points.length,
    });
    showMask(head.masked ? head.mask || state.get("mask") || "" : "");
    canvas.draw();
    time.max = head.moments - 1;
    if (document.activeElement !== time || !live.waiting) time.value = head.moment;
    time.setAttribute(
      "aria-valuetext",
      `moment ${head.moment + 1} of ${head.moments}, step ${head.step}`,
    );
    told.textContent = `${head.moment + 1} of ${head.moments}, step ${head.step}`;
    undo.disabled = head.moment === 0;
    redo.disabled = head.moment >= head.moments - 1;
    runLabel(run, head.running);
    status.textContent = head.running
      ? `Dragging: ${mean(head.left)} px left`
      : head.why ||
        (canvas.pending
          ? "Now click where this point should go."
          : head.points.length
            ? "Press Run, or Space."
            : "Click the picture where something should move.");
    drawList(head);
    body.hidden = false;
    waiting.hidden = true;
  };
  live.on.error = (message) => {
    status.textContent = message;
    toast(message, "bad");
  };
  live.on.state = (text) => {
    waiting.hidden = !text;
    waiting.textContent = text;
  };
  const film = async () => {
    const note = toast("The film is being written.");
    try {
      const file = await post(`/api/drag/sessions/${state.get("session")}/film`, {
        marks: true,
        format: "gif",
      });
      note.remove();
      dialog("Film", () => [
        h("img", { class: "result-picture", src: file.url, alt: "Film of the drag" }),
        h("div", { class: "dialog-foot" }, downloadLink(file, "Download the film")),
      ]);
    } catch (problem) {
      note.remove();
      toast(problem.message, "bad");
    }
  };
  const keep = async () => {
    try {
      const { id } = await post(`/api/drag/sessions/${state.get("session")}/save`);
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
        onDone: (job) => {
          const [file] = pictures(job);
          if (file)
            replace(
              place,
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
              ),
            );
        },
        onChange: (job) => {
          if (job.state === "gone") place.remove();
        },
      }),
    );
  };
  const again = async () => {
    if (
      await confirm("Remove all points?", "Remove", {
        detail: "The picture stays as it is. Undo brings them back.",
      })
    ) {
      canvas.pending = null;
      send([]);
    }
  };
  const waiting = h("p", { class: "note", role: "status", hidden: true });
  const body = h(
    "div",
    { class: "stack tight", hidden: true },
    h(
      "div",
      { class: "toolbar" },
      run,
      button("One step", () => live.send("step"), { icon: "step" }),
      h("span", { class: "sep" }),
      undo,
      redo,
      h("span", { class: "sep" }),
      tools.map(([, one]) => one),
    ),
    painting,
    canvas.element,
    status,
    h("div", { class: "timeline" }, time, told),
    list,
    h(
      "div",
      { class: "row" },
      button("Save to the gallery", keep, { icon: "gallery" }),
      button("Film", film, { icon: "download" }),
      button("Remove all points", again, {}),
      button("Show all of the picture", () => canvas.zoomBy(0), { class: "quiet" }),
    ),
  );
  const empty = h(
    "div",
    { class: "empty stack tight" },
    h("h2", {}, "No picture is open"),
    h(
      "p",
      {},
      "Open the picture of a seed, or project a photo of yours. Then set points by clicking twice: where something is, and where it should be.",
    ),
  );
  pick("points");
  for (const id of state.get("saved") ?? []) attach(id);
  const keys = {
    " ": () => live.send(live.running ? "pause" : "run"),
    ".": () => live.send("step"),
    p: () => pick("points"),
    b: () => pick("brush"),
    e: () => pick("erase"),
    v: () => pick("look"),
    Delete: () => chosen >= 0 && drop(chosen),
    Backspace: () => chosen >= 0 && drop(chosen),
    n: () => {
      if (!canvas.points.length) return;
      chosen = canvas.active = (chosen + 1) % canvas.points.length;
      canvas.cursor = { ...canvas.points[chosen].target };
      say(`Point ${chosen + 1}, target at ${at(canvas.cursor)}`);
      canvas.draw();
    },
  };
  return {
    element: h("section", { class: "card stack" }, waiting, empty, body, saved),
    idle: () => {
      body.hidden = true;
      empty.hidden = false;
      waiting.hidden = true;
    },
    reset: () => {
      canvas.pending = null;
      canvas.points = [];
      canvas.mask?.clear();
      empty.hidden = true;
    },
    key: (event, control) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
        event.preventDefault();
        return live.send(event.shiftKey ? "redo" : "undo");
      }
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "y") {
        event.preventDefault();
        return live.send("redo");
      }
      if (control || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape" && canvas.pending) {
        canvas.pending = null;
        say("Point removed.");
        return canvas.draw();
      }
      const call = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (call) {
        event.preventDefault();
        call();
      }
    },
  };
}

function runLabel(run, running) {
  if (run.dataset.running === String(running)) return;
  run.dataset.running = String(running);
  const fresh = button(running ? "Pause" : "Run", () => {}, { icon: running ? "pause" : "play" });
  run.replaceChildren(...fresh.childNodes);
}
const at = (point) => `${Math.round(point.x)}, ${Math.round(point.y)}`;
const mean = (values) =>
  values.length ? (values.reduce((sum, one) => sum + one, 0) / values.length).toFixed(1) : "0";
