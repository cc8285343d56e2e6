// The card of a job: progress, preview, cancel and resume.

import { post } from "./api.js";
import { append, button, h, replace, say, seconds, toast } from "./dom.js";
import { ENDED, follow } from "./job_events.js";

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
  const state = JSON.stringify([job.state, job.error, job.notes.length, job.cancelling]);
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
    busy && !job.cancelling && button("Cancel", () => cancel(job.id), { class: "small" }),
    ["failed", "cancelled"].includes(job.state) && button("Resume", again, { class: "small" }),
  );
}

export const previewUrl = (preview) =>
  preview.startsWith("/") || preview.startsWith("data:")
    ? preview
    : `data:image/png;base64,${preview}`;

function title(job) {
  if (job.state === "queued") return "Waiting for its turn";
  if (job.state === "running" && job.cancelling) return "Cancelling after this step";
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
