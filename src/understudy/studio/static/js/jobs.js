// Jobs: followed over server-sent events, shown as progress, cancelled and resumed. A closed tab loses nothing:
// the server keeps the job, and the page attaches again by its id.

import { fileUrl, get, post, remove } from "./api.js";
import { append, button, confirm, h, replace, say, seconds, toast, when } from "./dom.js";

export const ENDED = ["done", "failed", "cancelled"];

const STREAMS = 2; // of a page at once: browsers open six connections to a server over all tabs
let streams = 0;

// Follow one job. Calls `seen(job)` with the whole picture of it at each change. Returns a function that stops.
// Events are read from a stream while the page is visible; more than STREAMS jobs are asked for once a second.
export function follow(id, seen) {
  const job = {
    id,
    state: "queued",
    phase: "",
    index: 0,
    total: 0,
    left: null,
    preview: "",
    notes: [],
    result: null,
    error: "",
  };
  const path = `/api/jobs/${encodeURIComponent(id)}`;
  let source = null,
    timer = 0,
    closed = false,
    last = 0;
  const change = () => {
    if (!closed) seen(job);
    if (ENDED.includes(job.state)) stop();
  };
  const hangUp = () => {
    if (source) {
      source.close();
      source = null;
      streams--;
    }
  };
  const stop = () => {
    closed = true;
    hangUp();
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
  };
  const take = (event) => {
    last = Number(event.lastEventId) || last;
    try {
      merge(job, JSON.parse(event.data), event.type);
    } catch {
      return;
    }
    change();
  };
  const stream = () => {
    streams++;
    source = new EventSource(`${path}/events?after=${last}`);
    for (const name of ["note", "progress", "finished", "result", "state"])
      source.addEventListener(name, take);
    source.addEventListener("end", () => {
      hangUp();
      look();
    });
    source.onerror = () => {
      hangUp();
      timer = setTimeout(look, 1500);
    };
  };
  const look = async () => {
    if (closed || source) return;
    clearTimeout(timer);
    try {
      const found = await get(path);
      last = Math.max(last, found.last_event ?? 0);
      absorb(job, found);
      change();
    } catch (problem) {
      if (problem.status === 404) {
        Object.assign(job, { state: "gone", error: problem.message });
        change();
        return stop();
      }
    }
    if (closed || source) return;
    if (streams < STREAMS && !document.hidden) stream();
    else timer = setTimeout(look, document.hidden ? 5000 : 1000);
  };
  document.addEventListener("visibilitychange", look);
  look();
  return stop;
}

function absorb(job, found) {
  const wish = found.wish ?? job.wish;
  Object.assign(job, {
    state: found.state ?? job.state,
    verb: found.verb ?? job.verb,
    wish,
    error: found.error ?? "",
    created: found.created ?? job.created,
  });
  if (found.result) Object.assign(job, { result: found.result, files: found.result.files ?? [] });
  if (found.progress) progressed(job, found.progress);
}

function progressed(job, data) {
  Object.assign(job, {
    phase: data.phase,
    index: data.index,
    total: data.total,
    left: data.seconds_left,
  });
  if (data.preview) job.preview = data.preview;
}

function merge(job, data, kind) {
  if (kind === "note") {
    if (!job.notes.includes(data.text)) job.notes.push(data.text);
  } else if (kind === "progress") progressed(job, data);
  else if (kind === "result") Object.assign(job, { result: data, files: data.files ?? [] });
  else if (kind === "state") Object.assign(job, { state: data.state, error: data.error ?? "" });
}

// The card of a job: phase, bar, seconds left, preview, notes, cancel or resume.
export function jobCard(id, { onDone, onChange } = {}) {
  const card = h("section", { class: "card job stack tight", "aria-label": "Progress" });
  let last = "",
    ended = false;
  const begin = () =>
    follow(id, (job) => {
      draw(card, job, again);
      if (job.state !== last) announce(job);
      last = job.state;
      onChange?.(job);
      if (ENDED.includes(job.state) && !ended) {
        ended = true;
        if (job.state === "done") onDone?.(job);
      }
    });
  const again = async () => {
    try {
      await post(`/api/jobs/${encodeURIComponent(id)}/resume`);
      ended = false;
      stop();
      stop = begin();
    } catch (problem) {
      toast(problem.message, "bad");
    }
  };
  let stop = begin();
  card.detach = () => stop();
  return card;
}

function announce(job) {
  if (job.state === "done") say(`The ${job.verb ?? "job"} is done.`);
  if (job.state === "failed") say(`The ${job.verb ?? "job"} failed: ${job.error}`, true);
  if (job.state === "cancelled") say("The job was cancelled.");
  if (job.state === "running") say("The job is running.");
}

function draw(card, job, again) {
  const busy = !ENDED.includes(job.state) && job.state !== "gone";
  card.dataset.state = job.state;
  if (!card.bar) {
    card.head = h("strong", {});
    card.times = h("span", { class: "times" });
    card.bar = h("progress", { max: 1, "aria-label": "Progress of the job" });
    card.picture = h("img", {
      class: "preview",
      alt: "Preview of the picture that is being made",
      hidden: true,
    });
    card.told = h("div", { class: "stack tight" });
    card.buttons = h("div", { class: "row" });
    append(card, [
      h("div", { class: "row spread" }, card.head, card.times),
      card.bar,
      card.picture,
      card.told,
      card.buttons,
    ]);
  }
  card.head.textContent = title(job);
  card.times.textContent =
    busy && job.total
      ? `${Math.min(job.index + 1, job.total)} of ${job.total}${job.left === null || job.left === undefined ? "" : `, ${seconds(job.left)} left`}`
      : "";
  card.bar.hidden = !busy;
  if (job.total) card.bar.value = Math.min(1, (job.index + 1) / job.total);
  else card.bar.removeAttribute("value");
  if (job.preview && busy) {
    card.picture.src = previewUrl(job.preview);
    card.picture.hidden = false;
  } else card.picture.hidden = true;
  const state = JSON.stringify([job.state, job.error, job.notes.length]);
  if (card.shown === state) return;
  card.shown = state;
  replace(
    card.told,
    job.error && job.state !== "done" && h("p", { class: "note bad" }, job.error),
    job.notes.length > 0 &&
      h(
        "details",
        { class: "more" },
        h("summary", {}, `Notes (${job.notes.length})`),
        h(
          "ul",
          { class: "small" },
          job.notes.map((note) => h("li", {}, note)),
        ),
      ),
  );
  replace(
    card.buttons,
    busy && button("Cancel", () => cancel(job.id), { class: "small" }),
    ["failed", "cancelled"].includes(job.state) && button("Resume", again, { class: "small" }),
  );
}

export const previewUrl = (preview) =>
  preview.startsWith("/") || preview.startsWith("data:")
    ? preview
    : `data:image/png;base64,${preview}`;

function title(job) {
  if (job.state === "queued") return "Waiting for its turn";
  if (job.state === "running") return job.phase || "Starting: loading the model";
  return (
    { done: "Done", failed: "Failed", cancelled: "Cancelled", gone: "This job was deleted" }[
      job.state
    ] ?? pretty(job.state)
  );
}

const pretty = (text) => String(text).charAt(0).toUpperCase() + String(text).slice(1);

export async function cancel(id) {
  try {
    await post(`/api/jobs/${encodeURIComponent(id)}/cancel`);
    say("Cancelling after this step.");
  } catch (problem) {
    toast(problem.message, "bad");
  }
}

// Files of a finished job as [{id, name, url}].
export function filesOf(job) {
  return (job.files ?? job.result?.files ?? []).map((file) => ({ url: fileUrl(file.id), ...file }));
}

// The list of all jobs, at the side of the page.
export function jobsPanel(element, badge) {
  let timer = 0;
  const list = h("div", { class: "stack tight" });
  const close = () => {
    element.hidden = true;
    badge.setAttribute("aria-expanded", "false");
    badge.focus();
  };
  append(element, [
    h(
      "div",
      { class: "row spread" },
      h("h2", {}, "Jobs"),
      button("Close the list of jobs", close, { icon: "close", only: true, class: "quiet" }),
    ),
    list,
  ]);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  const refresh = async () => {
    clearTimeout(timer);
    try {
      const { jobs, counts } = await get(`/api/jobs?most=${element.hidden ? 1 : 60}`);
      const busy = (counts.queued ?? 0) + (counts.running ?? 0);
      badge.lastChild.textContent = busy ? `Jobs (${busy})` : "Jobs";
      if (!element.hidden)
        replace(
          list,
          jobs.length
            ? jobs.map((job) => row(job, refresh))
            : h("p", { class: "muted" }, "No jobs yet."),
        );
      timer = setTimeout(refresh, busy || !element.hidden ? 2000 : 10000);
    } catch {
      timer = setTimeout(refresh, 8000);
    }
  };
  badge.addEventListener("click", () => {
    element.hidden = !element.hidden;
    badge.setAttribute("aria-expanded", String(!element.hidden));
    if (!element.hidden) {
      refresh();
      element.querySelector("button").focus();
    }
  });
  refresh();
  return refresh;
}

function row(job, refresh) {
  const busy = !ENDED.includes(job.state);
  const progress = job.progress ?? {};
  const kind = { done: "good", failed: "bad", running: "on" }[job.state] ?? "";
  const share = progress.total ? Math.min(1, (progress.index + 1) / progress.total) : undefined;
  const drop = async () => {
    if (
      await confirm("Delete this job?", "Delete", {
        detail: "Its entry is removed from the list. Results in the gallery stay.",
      })
    ) {
      try {
        await remove(`/api/jobs/${encodeURIComponent(job.id)}`);
      } catch (problem) {
        toast(problem.message, "bad");
      }
      refresh();
    }
  };
  return h(
    "div",
    { class: "job-row" },
    h(
      "div",
      { class: "row spread" },
      h("strong", {}, pretty(job.verb)),
      h("span", { class: `badge ${kind}` }, job.state),
    ),
    busy && h("progress", { max: 1, value: share, "aria-label": "Progress" }),
    h(
      "p",
      { class: "small muted" },
      busy
        ? `${progress.phase ?? ""} ${progress.seconds_left ? `${seconds(progress.seconds_left)} left` : ""}`
        : job.error || when(job.created),
    ),
    h(
      "div",
      { class: "row" },
      busy
        ? button("Cancel", () => cancel(job.id).then(refresh), { class: "small" })
        : button("Delete", drop, { class: "small quiet" }),
    ),
  );
}
