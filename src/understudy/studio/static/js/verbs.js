// What the server knows: verbs with their settings, models, concepts. Asked once for each combination.

import { forget, once } from "./api.js";

// The settings of a verb's groups, resolved for a model, method and preset: {group: [setting, ...]}.
export async function settingsOf(verb, { model = "", preset = "", method = "" } = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ verb, model, preset, method })) if (value) query.set(name, value);
  const found = await once(`/api/verbs?${query}`);
  const entry = Array.isArray(found) ? found.find((one) => one.verb === verb || one.name === verb) : (found.verbs ?? found)[verb] ?? (found.verbs ?? []).find?.((one) => one.verb === verb || one.name === verb);
  const groups = {};
  for (const setting of entry?.settings ?? []) (groups[setting.group] ??= []).push(setting);
  return groups;
}

export async function models() {
  const found = await once("/api/models");
  return found.models ?? found;
}

export async function concepts(again = false) {
  if (again) forget("/api/concepts");
  const found = await once("/api/concepts");
  return found.concepts ?? found;
}

export const diffusion = (found) => found.filter((one) => (one.kind ?? "model") !== "generator");
export const generators = (found) => found.filter((one) => one.kind === "generator");
