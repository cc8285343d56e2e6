// Jobs: followed over server-sent events, shown as progress, cancelled and resumed. A closed tab loses nothing:
// the server keeps the job, and the page attaches again by its id.

import { fileUrl, get, post, remove } from "./api.js";
import { append, button, confirm, h, replace, say, seconds, toast, when } from "./dom.js";

export const ENDED = ["done", "failed", "cancelled"];

// Follow one job. Calls `seen(job)` with the whole picture of it at each change. Returns a function that stops.
export function follow(id, seen) {
  const job = { id, state: "queued", phase: "", index: 0, total: 0, left: null, preview: "", notes: [], result: null, error: "" };
  let source = null, closed = false, wait = 500;
  const change = () => !closed && seen(job);
  const take = (event) => {
    let data;
    try { data = JSON.parse(event.data); } catch { return; }
    wait = 500;
    merge(job, data, event.type);
    change();
    if (ENDED.includes(job.state)) stop();
  };
  const stop = () => { closed = true; source?.close(); };
  const open = () => {
    if (closed) return;
    source = new EventSource(`/api/jobs/${encodeURIComponent(id)}/events`);
    for (const name of ["message", "note", "progress", "finished", "result", "state", "failed", "cancelled"]) source.addEventListener(name, take);
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED || closed) return;
      source.close();
      setTimeout(open, (wait = Math.min(wait * 2, 8000)));
    };
  };
  get(`/api/jobs/${encodeURIComponent(id)}`).then((found) => {
    if (closed) return;
    absorb(job, found);
    change();
    if (ENDED.includes(job.state)) stop(); else open();
  }, (problem) => {
    if (problem.status === 404) { job.state = "gone"; job.error = problem.message; change(); stop(); }
    else open();
  });
  return stop;
}

function absorb(job, found) {
  Object.assign(job, {
    state: found.state ?? found.status ?? job.state, verb: found.verb ?? found.job?.verb, error: found.error ?? "",
    result: found.result ?? job.result, notes: found.notes ?? job.notes, created: found.created ?? found.created_at,
    job: found.job ?? job.job, files: found.files ?? found.result?.files ?? [], place: found.place ?? found.position,
  });
  if (found.progress) merge(job, found.progress, "progress");
}

function merge(job, data, kind) {
  const name = data.event ?? kind;
  if (name === "note") { if (!job.notes.includes(data.text)) job.notes.push(data.text); }
  else if (name === "progress") {
    job.state = "running";
    Object.assign(job, { phase: data.phase, index: data.index, total: data.total, left: data.seconds_left });
    if (data.preview) job.preview = data.preview;
    if (data.kept) job.kept = data.kept;
  } else if (name === "result") { job.state = "done"; job.result = data; job.files = data.files ?? []; }
  else if (name === "state" || name === "failed" || name === "cancelled") absorb(job, { state: kind, ...data });
}

// The card of a job: phase, bar, seconds left, preview, notes, cancel or resume.
export function jobCard(id, { onDone, onChange } = {}) {
  const card = h("section", { class: "card job stack tight", "aria-label": "Progress" });
  let last = "", ended = false;
  const begin = () => follow(id, (job) => {
    draw(card, job, again);
    if (job.state !== last) announce(job);
    last = job.state;
    onChange?.(job);
    if (ENDED.includes(job.state) && !ended) { ended = true; if (job.state === "done") onDone?.(job); }
  });
  const again = async () => {
    try { await post(`/api/jobs/${encodeURIComponent(id)}/resume`); ended = false; stop(); stop = begin(); }
    catch (problem) { toast(problem.message, "bad"); }
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
    card.picture = h("img", { class: "preview", alt: "Preview of the picture that is being made", hidden: true });
    card.told = h("div", { class: "stack tight" });
    card.buttons = h("div", { class: "row" });
    append(card, [h("div", { class: "row spread" }, card.head, card.times), card.bar, card.picture, card.told, card.buttons]);
  }
  card.head.textContent = title(job);
  card.times.textContent = busy && job.total ? `${Math.min(job.index + 1, job.total)} of ${job.total}${job.left === null || job.left === undefined ? "" : `, ${seconds(job.left)} left`}` : "";
  card.bar.hidden = !busy;
  if (job.total) card.bar.value = Math.min(1, (job.index + 1) / job.total); else card.bar.removeAttribute("value");
  if (job.preview && busy) { card.picture.src = previewUrl(job.preview); card.picture.hidden = false; } else card.picture.hidden = true;
  const state = JSON.stringify([job.state, job.error, job.notes.length]);
  if (card.shown === state) return;
  card.shown = state;
  replace(card.told, job.error && job.state !== "done" && h("p", { class: "note bad" }, job.error),
    job.notes.length > 0 && h("details", { class: "more" }, h("summary", {}, `Notes (${job.notes.length})`), h("ul", { class: "small" }, job.notes.map((note) => h("li", {}, note)))));
  replace(card.buttons, busy && button("Cancel", () => cancel(job.id), { class: "small" }),
    ["failed", "cancelled"].includes(job.state) && button("Resume", again, { class: "small" }));
}

export const previewUrl = (preview) => (preview.startsWith("/") || preview.startsWith("data:") ? preview : `data:image/png;base64,${preview}`);

function title(job) {
  if (job.state === "queued") return job.place > 0 ? `Waiting, ${job.place} before it` : "Waiting";
  if (job.state === "running") return job.phase || "Starting: loading the model";
  return { done: "Done", failed: "Failed", cancelled: "Cancelled", gone: "This job was deleted" }[job.state] ?? pretty(job.state);
}

const pretty = (text) => String(text).charAt(0).toUpperCase() + String(text).slice(1);

export async function cancel(id) {
  try { await post(`/api/jobs/${encodeURIComponent(id)}/cancel`); say("Cancelling after this step."); }
  catch (problem) { toast(problem.message, "bad"); }
}

// Files of a finished job as [{id, name, url}].
export function filesOf(job) {
  const files = job.files?.length ? job.files : (job.result?.files ?? []);
  return files.map((file) => (typeof file === "string" ? { id: file, name: file, url: fileUrl(file) } : { url: fileUrl(file.id), ...file }));
}

// The list of all jobs, at the side of the page.
export function jobsPanel(element, badge) {
  let timer = 0;
  const list = h("div", { class: "stack tight" });
  const close = () => { element.hidden = true; badge.setAttribute("aria-expanded", "false"); badge.focus(); };
  append(element, [h("div", { class: "row spread" }, h("h2", {}, "Jobs"), button("Close the list of jobs", close, { icon: "close", only: true, class: "quiet" })), list]);
  element.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  const refresh = async () => {
    clearTimeout(timer);
    try {
      const found = await get("/api/jobs");
      const jobs = found.jobs ?? found;
      const busy = jobs.filter((job) => !ENDED.includes(job.state)).length;
      badge.lastChild.textContent = busy ? `Jobs (${busy})` : "Jobs";
      if (!element.hidden) replace(list, jobs.length ? jobs.slice(0, 60).map((job) => row(job, refresh)) : h("p", { class: "muted" }, "No jobs yet."));
      timer = setTimeout(refresh, busy || !element.hidden ? 2000 : 10000);
    } catch { timer = setTimeout(refresh, 8000); }
  };
  badge.addEventListener("click", () => {
    element.hidden = !element.hidden;
    badge.setAttribute("aria-expanded", String(!element.hidden));
    if (!element.hidden) { refresh(); element.querySelector("button").focus(); }
  });
  refresh();
  return refresh;
}

function row(job, refresh) {
  const busy = !ENDED.includes(job.state);
  const progress = job.progress ?? {};
  const kind = { done: "good", failed: "bad", running: "on" }[job.state] ?? "";
  const share = progress.total ? Math.min(1, (progress.index + 1) / progress.total) : undefined;
  const drop = async () => { if (await confirm("Delete this job?", "Delete", { detail: "Its entry is removed from the list. Results in the gallery stay." })) { try { await remove(`/api/jobs/${encodeURIComponent(job.id)}`); } catch (problem) { toast(problem.message, "bad"); } refresh(); } };
  return h("div", { class: "job-row" },
    h("div", { class: "row spread" }, h("strong", {}, pretty(job.verb ?? job.job?.verb ?? "job")), h("span", { class: `badge ${kind}` }, job.state)),
    busy && h("progress", { max: 1, value: share, "aria-label": "Progress" }),
    h("p", { class: "small muted" }, busy ? `${progress.phase ?? ""} ${progress.seconds_left ? `${seconds(progress.seconds_left)} left` : ""}` : job.error || when(job.created ?? job.created_at)),
    h("div", { class: "row" }, busy ? button("Cancel", () => cancel(job.id).then(refresh), { class: "small" }) : button("Delete", drop, { class: "small quiet" })));
}
