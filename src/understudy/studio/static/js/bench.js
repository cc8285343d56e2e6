// What the tabs with a form share: a form at the left, jobs and results at the right, kept over reloads.

import { get, post } from "./api.js";
import { append, button, h, replace, say, toast } from "./dom.js";
import { choiceField, showProblem } from "./forms.js";
import { settingsForm } from "./settings_form.js";
import { jobCard } from "./jobs.js";
import { load, save } from "./store.js";
import { diffusion, models, settingsOf } from "./verbs.js";

export const CONSENT = [
  ["unstated", "Not stated, or no people"],
  ["self", "It is me"],
  ["permission", "They gave permission"],
  ["public-domain", "Public domain"],
];

// form: element with the fields. build(): the job, or throws Error with one line. render(job): elements of a result.
export function workbench({
  state,
  label,
  form,
  build,
  render,
  empty,
  refreshJobs,
  extra = [],
  runs = [],
  watch = null,
}) {
  const actions = h("div", { class: "actions" });
  const output = h("div", { class: "stack", role: "region", "aria-label": "Result" });
  const run = button(label, () => start(build), { class: "primary big", "data-run": "" });
  append(actions, [
    run,
    ...runs.map((one) => button(one.label, () => start(one.build), { title: one.title ?? "" })),
    ...extra,
  ]);
  const start = async (make) => {
    showProblem(actions, "");
    run.disabled = true;
    const ids = [];
    try {
      const jobs = [await make()].flat();
      for (const job of jobs) {
        ids.push((await post("/api/jobs", job)).id);
        state.set("jobs", [...ids]); // a page that is closed now finds them again
      }
      attach(ids);
      say(ids.length > 1 ? `${ids.length} jobs were started.` : "The job was started.");
      refreshJobs?.();
      if (matchMedia("(max-width: 960px)").matches)
        output.scrollIntoView({ behavior: "smooth", block: "start" });
    } catch (problem) {
      if (ids.length) attach(ids);
      showProblem(actions, problem.message);
    } finally {
      run.disabled = false;
    }
  };
  let cards = [];
  let turn = 0;
  const attach = (ids) => {
    cards.forEach((card) => card.detach());
    const done = new Map();
    const results = h("div", { class: "stack" });
    cards = ids.map((id) =>
      jobCard(id, {
        onChange: (job) => {
          if (job.state === "gone") card(id)?.remove();
          else watch?.see(job);
        },
        onDone: async (job) => {
          done.set(id, job);
          const all = ids.filter((one) => done.has(one)).map((one) => done.get(one));
          const mine = ++turn;
          const shown = await Promise.resolve(render(all, ids.length)).catch((problem) =>
            h("p", { class: "note bad" }, `The result cannot be shown: ${problem.message}`),
          );
          if (mine === turn) replace(results, shown);
          if (output.offsetParent === null) toast(`${label}: done. Its tab shows the result.`);
          if (ids.length > 1 || job.notes.length === 0) card(id)?.remove();
          refreshJobs?.();
        },
      }),
    );
    const card = (id) => cards[ids.indexOf(id)];
    replace(output, cards, watch?.element, results);
  };
  const held = state.get("jobs") ?? [];
  if (held.length) attach(held);
  else replace(output, empty ?? "");
  const panel = h(
    "form",
    { class: "card stack", on: { submit: (event) => event.preventDefault() } },
    form,
    actions,
  );
  return {
    element: h("div", { class: "bench" }, panel, output),
    output,
    start,
    attach,
    problem: (text) => showProblem(actions, text),
  };
}

// Preset, method and all settings of a verb as fields that follow the chosen model. state: {model, settings: {}}.
// helps(): texts below fields by name, in the place of the settings' own.
export function settingsPart({
  state,
  verb,
  group = verb,
  basic = [],
  hidden = [],
  labels = {},
  helps = () => ({}),
  onChange,
}) {
  const place = h("div", { class: "stack" });
  let turn = 0;
  const draw = async () => {
    const mine = ++turn,
      given = state.get("settings")?.[group] ?? {};
    try {
      const groups = await settingsOf(verb, {
        model: state.get("model") ?? "",
        preset: given.preset ?? "",
        method: given.method ?? "",
      });
      if (mine !== turn) return;
      const focused = document.activeElement?.dataset?.name;
      replace(
        place,
        settingsForm(groups[group] ?? [], given, {
          basic,
          hidden,
          labels,
          helps: helps(),
          onChange: (name) => changed(name, given),
        }),
      );
      if (focused) place.querySelector(`[data-name="${focused}"]`)?.focus();
    } catch (problem) {
      if (given.preset) {
        // a preset of another method
        delete given.preset;
        state.set("settings", { ...state.get("settings"), [group]: given });
        toast(problem.message);
        return draw();
      }
      replace(place, h("p", { class: "note bad" }, problem.message));
    }
  };
  // The form changes `given` in place, so the state must hold this very object.
  const changed = (name, given) => {
    for (const key of Object.keys(given)) if (given[key] === undefined) delete given[key];
    state.set("settings", { ...state.get("settings"), [group]: given });
    if (name === "preset" || name === "method") draw();
    onChange?.(name);
  };
  if (!state.get("settings")?.[group])
    state.set("settings", { ...state.get("settings"), [group]: {} });
  draw();
  return Object.assign(place, { draw });
}

// The model of a form; shown only where there is a choice.
export function modelField(state, onChange) {
  const place = h("div", {});
  models().then(
    (found) => {
      const names = diffusion(found).map((one) => one.id);
      const chosen = state.get("model") ?? load("model", names[0]);
      if (!state.get("model")) state.set("model", chosen);
      if (!names.includes(chosen)) names.push(chosen);
      replace(
        place,
        choiceField("Model", names, {
          value: chosen,
          name: "model",
          onInput: (value) => {
            state.set("model", value);
            onChange?.(value);
          },
        }),
      );
    },
    (problem) => replace(place, h("p", { class: "note bad" }, problem.message)),
  );
  return place;
}

// Settings as a job wants them: groups that hold anything, and the model.
export function given(state, ...groups) {
  const settings = {};
  for (const group of groups) {
    const values = state.get("settings")?.[group] ?? {};
    if (Object.keys(values).length || group === groups[0]) settings[group] = { ...values };
  }
  settings.run = {
    ...(state.get("model") ? { model: state.get("model") } : {}),
    ...load("run", {}),
  };
  const marks = load("marks", {});
  if (Object.keys(marks).length) settings.mark = marks;
  return settings;
}

// Consent of people in the photos: one value for all forms, recorded in each result.
export function consentField() {
  return choiceField("People in the photos", CONSENT, {
    value: load("marks", {}).consent ?? "unstated",
    name: "consent",
    help: "Only use photos of people with their consent. It is recorded in each result.",
    onInput: (value) => {
      const marks = load("marks", {});
      if (value === "unstated") delete marks.consent;
      else marks.consent = value;
      save("marks", marks);
    },
  });
}

export function need(value, text) {
  if (!value || (Array.isArray(value) && !value.length)) throw new Error(text);
  return value;
}

export async function exists(id) {
  try {
    await get(`/api/files/${encodeURIComponent(id)}/thumb`);
    return true;
  } catch {
    return false;
  }
}
export { toast };
