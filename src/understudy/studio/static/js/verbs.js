// What the server knows: verbs with their settings, models, concepts. Asked once for each combination.

import { forget, once } from "./api.js";

// A verb's form for a model (or generator), method and preset; its settings as {group: [setting, ...]}.
export async function settingsOf(
  verb,
  { model = "", generator = "", preset = "", method = "" } = {},
) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ model, generator, preset, method }))
    if (value) query.set(name, value);
  const found = await once(`/api/verbs/${verb}?${query}`);
  return Object.fromEntries(found.groups.map((group) => [group.name, group.settings]));
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

export const diffusion = (found) => found.filter((one) => one.kind === "model");
export const generators = (found) => found.filter((one) => one.kind === "generator");
