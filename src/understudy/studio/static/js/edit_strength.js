// How strongly an edit changes the photo: one slider for the step counts of a method.

import { replace } from "./dom.js";
import { rangeField } from "./forms.js";
import { settingsOf } from "./verbs.js";

// How much of the photo is kept: scales the step counts that use its features.
const COUNTS = {
  p2p: ["cross_map_steps", "self_map_steps"],
  hiper: ["cross_map_steps", "self_map_steps"],
  pnp: ["feature_steps", "self_map_steps"],
};
export async function drawStrength(place, state, settings) {
  const chosen = state.get("settings").edit ?? {},
    method = chosen.method ?? "p2p";
  const found =
    (
      await settingsOf("edit", {
        model: state.get("model") ?? "",
        preset: chosen.preset ?? "",
        method,
      }).catch(() => ({}))
    ).edit ?? [];
  const resolved = Object.fromEntries(found.map((one) => [one.name, one.value])),
    steps = chosen.steps ?? resolved.steps ?? 50;
  const names = (COUNTS[method] ?? []).filter((name) => resolved[name] > 0);
  if (!names.length) return replace(place);
  replace(
    place,
    rangeField("Strength of the change", {
      name: "strength",
      value: state.get("strength") ?? 0,
      min: -1,
      max: 1,
      step: 0.1,
      show: (value) =>
        value === 0
          ? "default"
          : value > 0
            ? `+${Math.round(value * 100)} %`
            : `${Math.round(value * 100)} %`,
      help: "To the right the photo changes more, to the left it stays closer to itself.",
      onInput: (value) => {
        state.set("strength", value || null);
        const edit = { ...state.get("settings").edit };
        for (const name of names) {
          if (value)
            edit[name] = Math.round(
              value > 0
                ? resolved[name] * (1 - value)
                : resolved[name] + (steps - resolved[name]) * -value,
            );
          else delete edit[name];
        }
        state.set("settings", { ...state.get("settings"), edit });
        clearTimeout(place.timer);
        place.timer = setTimeout(() => settings.draw(), 250);
      },
    }),
  );
}
