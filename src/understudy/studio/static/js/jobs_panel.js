// The list of all jobs, at the side of the page.

import { get, remove } from "./api.js";
import { append, button, confirm, h, replace, seconds, toast, when } from "./dom.js";
import { pretty } from "./forms.js";
import { ENDED } from "./job_events.js";
import { cancel } from "./jobs.js";

// go(tab): opens a tab, to show what a job has made.
export function jobsPanel(element, badge, go) {
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
  const show = (tab) => {
    close();
    go(tab);
  };
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
            ? jobs.map((job) => row(job, refresh, show))
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

// What a job is about, in the words of its form.
function about(inputs = {}) {
  return inputs.name ?? inputs.swap?.join(", ") ?? inputs.to?.[0] ?? inputs.prompt ?? "";
}

function row(job, refresh, show) {
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
    about(job.wish?.inputs) && h("p", {}, about(job.wish?.inputs)),
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
      job.state === "done" &&
        (job.verb === "learn"
          ? button("Learnt subjects", () => show("learn"), { class: "small" })
          : button("Gallery", () => show("gallery"), { class: "small" })),
      busy
        ? button("Cancel", () => cancel(job.id).then(refresh), { class: "small" })
        : button("Delete", drop, { class: "small quiet" }),
    ),
  );
}
