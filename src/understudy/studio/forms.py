"""Forms: a verb's declared settings and inputs as JSON data, values resolved for a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from understudy.jobs.request import group_name
from understudy.settings import EditSettings, InvertSettings
from understudy.settings.edit import INVERSIONS as EDIT_INVERSIONS
from understudy.settings.swap import INVERSIONS as SWAP_INVERSIONS
from understudy.studio.verbs import HIDDEN, Verb


def form(one: Verb, model: str, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A verb's declared settings and inputs as JSON data, values resolved for a model.

    given: values that are chosen already (a preset, a method), by group. Raises InputError.
    """
    groups: list[dict[str, Any]] = []
    for kind in one.groups:
        name, known = group_name(kind), {f.name for f in dataclasses.fields(kind)}
        chosen = {k: v for k, v in given.get(name, {}).items() if k in known}
        if kind is InvertSettings and "method" not in chosen:
            chosen["method"] = _inversion(one, given)
        values = kind.filled(chosen, model).to_dict()
        fields = [
            _setting(field, values[field.name])
            for field in dataclasses.fields(kind)
            if field.name not in HIDDEN
        ]
        optional = kind in one.optional
        help = (kind.__doc__ or "").strip().split("\n\n")[0]
        help = " ".join(help.split())
        groups.append({"name": name, "optional": optional, "help": help, "settings": fields})
    inputs = [single.to_dict() for single in one.inputs]
    places = list(one.asked)
    body = {"verb": one.name, "help": one.help, "groups": groups, "inputs": inputs}
    return {**body, "seed": one.seed, "asked": places}


def _inversion(one: Verb, given: Mapping[str, Mapping[str, Any]]) -> str:
    """The inversion that a verb takes unless one is named."""
    if one.name == "edit":
        method = str(given.get("edit", {}).get("method", EditSettings().method))
        return EDIT_INVERSIONS.get(method, "null-text")
    if one.name in ("swap", "sweep", "explain"):
        preset = str(given.get("swap", {}).get("preset", "best"))
        return "direct" if one.name == "explain" else SWAP_INVERSIONS.get(preset, "direct")
    return InvertSettings().method


def _setting(field: dataclasses.Field[Any], value: Any) -> dict[str, Any]:
    """One setting as JSON data; value: what it is resolved to."""
    limits = field.metadata
    return {
        "name": field.name,
        "type": type(cast(Any, field.default)).__name__,
        "share": limits["share"],
        "choices": list(limits["choices"]),
        "at_least": limits["at_least"],
        "at_most": limits["at_most"],
        "help": limits["help"],
        "default": field.default,
        "value": value,
    }


def main_group(one: Verb) -> str:
    """The group that a preset or a method belongs to."""
    return group_name(one.groups[0]) if one.groups else ""


def fitting(one: Verb, chosen: Mapping[str, str]) -> dict[str, str]:
    """Of a preset and a method what the verb's main group can take."""
    fields = {field.name: field for kind in one.groups[:1] for field in dataclasses.fields(kind)}
    return {
        name: value
        for name, value in chosen.items()
        if name in fields and value in fields[name].metadata["choices"]
    }
