"""The one rule that fills settings: defaults < method < model < preset if named < given.

* defaults: of the settings class.
* method: what the verb's method starts from (`edit --method pnp`).
* model: what suits the model, from the JSON in its folder (`suits.py`).
* preset: only where it is named; "best" holds nothing, so that naming it changes nothing.
* given: what the user wrote. It always counts.

Works on plain mappings. Knows no verb and no model; free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from understudy.errors import InputError

Value = bool | int | float | str
Values = Mapping[str, Value]

PUBLISHED_STEPS = 50  # the number of sampling steps that published step counts belong to


def unchanged(values: Values, given: Values) -> Values:
    """No rule beyond the layers."""
    return values


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What fills the settings of one verb.

    methods: the values each method starts from; empty for a verb without methods. presets: method
    ("" for a verb without methods) -> preset -> its values. counts: settings that count sampling
    steps, published for PUBLISHED_STEPS and scaled to the steps of the run. rule: has the last word
    on values that were not given; it gets all values and those given.
    """

    verb: str = ""
    methods: Mapping[str, Values] = field(default_factory=dict[str, Values])
    presets: Mapping[str, Mapping[str, Values]] = field(
        default_factory=dict[str, Mapping[str, Values]]
    )
    counts: tuple[str, ...] = ()
    rule: Callable[[Values, Values], Values] = unchanged


def resolve(
    layers: Layers, defaults: Values, given: Values, suited: Mapping[str, Values]
) -> dict[str, Value]:
    """Every setting's value.

    suited: verb, "verb method", or "verb --preset name" (what the preset is for this model) -> the
    values that suit the model.

    Raises InputError for a preset that the method does not have.
    """
    method = str(given.get("method", defaults.get("method", ""))) if layers.methods else ""
    values: dict[str, Value] = {
        **defaults,
        **layers.methods.get(method, {}),
        **suited.get(layers.verb, {}),
        **suited.get(f"{layers.verb} {method}", {}),
    }
    if "preset" in given:
        preset = str(given["preset"])
        values |= named(layers, method, preset)
        values |= suited.get(f"{layers.verb} --preset {preset}", {})
    steps = given.get("steps", values.get("steps", PUBLISHED_STEPS))
    for name in layers.counts:
        value = values[name]
        if isinstance(value, int) and isinstance(steps, int):
            values[name] = round(value * steps / PUBLISHED_STEPS)
    return {**layers.rule({**values, **given}, given), **given}


def named(layers: Layers, method: str, preset: str) -> Values:
    """The values of a preset. Raises InputError where the method has none of that name."""
    found = layers.presets[method]
    if preset not in found:
        raise InputError(
            f"--preset {preset} is not for --method {method}, which has: {', '.join(found)}."
        )
    return found[preset]
