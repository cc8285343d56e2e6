// The state of a job, followed over server-sent events. A closed tab loses nothing: the server keeps the job,
// and the page follows it again by its id.

import { fileUrl, get } from "./api.js";

export const ENDED = ["done", "failed", "cancelled"];

// Browsers open six connections to a server over all tabs, so streams are few: of a page, and of all.
const STREAMS = 2,
  SEATS = 3;
let streams = 0;

// A place for a stream among those of all tabs; a function that gives it back, or null where all are taken.
async function seat() {
  if (!navigator.locks) return () => {}; // plain HTTP on a network has none
  for (let number = 0; number < SEATS; number++) {
    const leave = await new Promise((resolve) => {
      navigator.locks.request(`understudy-stream-${number}`, { ifAvailable: true }, (lock) =>
        lock ? new Promise((done) => resolve(done)) : resolve(null),
      );
    });
    if (leave) return leave;
  }
  return null;
}

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
    cancelling: false,
    result: null,
    error: "",
  };
  const path = `/api/jobs/${encodeURIComponent(id)}`;
  let source = null,
    leave = null,
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
      leave();
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
  const stream = (place) => {
    leave = place;
    streams++;
    source = new EventSource(`${path}/events?after=${last}`);
    for (const name of ["note", "progress", "finished", "cancelling", "resumed", "result", "state"])
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
    const place = streams < STREAMS && !document.hidden ? await seat() : null;
    if (closed || source) return place?.();
    if (place) stream(place);
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
    notes: [...new Set(found.notes ?? job.notes)],
    cancelling: found.cancelling ?? job.cancelling,
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
  else if (kind === "cancelling" || kind === "resumed") job.cancelling = kind === "cancelling";
  else if (kind === "state") Object.assign(job, { state: data.state, error: data.error ?? "" });
}

// Files of a finished job as [{id, name, url}].
export function filesOf(job) {
  return (job.files ?? job.result?.files ?? []).map((file) => ({ url: fileUrl(file.id), ...file }));
}
