// The picture that is dragged: tools, timeline, points, film and results.

import { fileUrl } from "./api.js";
import { button, confirm, h, say, toast } from "./dom.js";
import { filmDialog, savedList } from "./drag_keep.js";
import { drawPoints, pixel } from "./drag_points.js";
import { brushTools } from "./editors.js";
import { uploadAll } from "./inputs.js";

export function makeView({ state, canvas, live, ctx, begin }) {
  let chosen = -1,
    maskTimer = 0,
    uploading = null,
    asked = false,
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
    "aria-label": "Timeline: the step that is shown",
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
  const saved = savedList(state, ctx);
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
      ? `Dragging: ${average(head.left)} px left`
      : head.why ||
        (canvas.pending
          ? "Now click where this point should go."
          : head.points.length
            ? "Press Run, or Space."
            : "Click the picture where something should move.");
    drawPoints(list, canvas.points, head.left, drop);
    const opened = body.hidden;
    body.hidden = false;
    waiting.hidden = true;
    if (opened && asked) body.scrollIntoView({ block: "nearest" }); // on a phone it is below the form
    asked = false;
  };
  live.on.error = (message) => {
    status.textContent = message;
    toast(message, "bad");
  };
  live.on.closed = (message) => {
    body.hidden = true;
    waiting.hidden = false;
    const open = button("Open again", () => live.connect(state.get("session")), { class: "small" });
    waiting.replaceChildren(message, " ", open);
    if (waiting.offsetParent === null) toast("A drag was closed. Its tab says why.");
  };
  live.on.state = (text) => Object.assign(waiting, { hidden: !text, textContent: text });
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
    ),
    h(
      "div",
      { class: "toolbar", role: "group", "aria-label": "What a click does" },
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
      button("Save to the gallery", saved.keep, { icon: "gallery" }),
      button("Film", () => filmDialog(state.get("session")), { icon: "download" }),
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
      "Open a generated picture by its seed, or project a photo. Then set points by clicking twice: where something is, and where it should go.",
    ),
    h("div", { class: "row center" }, button("Open a toy face", begin, { class: "primary" })),
  );
  pick("points");
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
      say(`Point ${chosen + 1}, target at ${pixel(canvas.cursor)}`);
      canvas.draw();
    },
  };
  return {
    element: h("section", { class: "card stack" }, waiting, empty, body, saved.element),
    idle: () => {
      body.hidden = true;
      empty.hidden = false;
      waiting.hidden = true;
    },
    reset: () => {
      asked = body.hidden = true;
      delete canvas.canvas.dataset.moment;
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

const average = (values) =>
  values.length ? (values.reduce((sum, one) => sum + one, 0) / values.length).toFixed(1) : "0";
