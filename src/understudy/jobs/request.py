"""A job: which verb, with which settings, on which inputs. Data only, JSON in and out.

A verb takes the keyword parameters of its function and the fields of its `Inputs` class; `bound`
checks a job against them. Free of torch.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from understudy.errors import InputError
from understudy.files.reading import parse_json
from understudy.files.spec import shown
from understudy.settings import former
from understudy.settings.inputs import Inputs
from understudy.settings.knobs import Settings, group_name
from understudy.settings.resolve import Value

FORMAT = 1
EMPTY: Any = inspect.Parameter.empty


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done.

    settings: group ("swap", "run") -> setting -> value; what is left out is resolved for the
    model. inputs: prompts, and paths as text. seed: of the picture, where a verb has one.
    """

    verb: str
    settings: Mapping[str, Mapping[str, Value]] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None

    @classmethod
    def of(cls, verb: str, *parts: Settings | Inputs, **inputs: Any) -> Job:
        """A job from settings and inputs; an input that is None is left out."""
        groups = {group_name(type(g)): g.to_dict() for g in parts if isinstance(g, Settings)}
        for group in parts:
            inputs |= group.to_dict() if isinstance(group, Inputs) else {}
        given = {name: _plain(value) for name, value in inputs.items() if value is not None}
        seed = given.pop("seed", None)
        return cls(verb=verb, settings=groups, inputs=given, seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """The job as plain JSON data."""
        settings = {name: dict(values) for name, values in self.settings.items()}
        body = {"format": FORMAT, "verb": self.verb, "settings": settings}
        return {**body, "inputs": dict(self.inputs), "seed": self.seed}

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Job:
        """The reverse of `to_json`. Raises InputError for anything else."""
        return cls.from_dict(parse_json(text, "This job"))

    @classmethod
    def from_dict(cls, body: Any) -> Job:
        """The reverse of `to_dict`, former names included. Raises InputError for anything else."""
        if not isinstance(body, dict):
            raise InputError("A job must be a JSON object with verb, settings, inputs and seed.")
        values: dict[str, Any] = dict(cast(dict[str, Any], body))
        found = values.pop("format", None)
        if found != FORMAT:
            raise InputError(f"Expected a job of format {FORMAT}. Got {shown(found)}.")
        kinds = {"verb": str, "settings": dict, "inputs": dict, "seed": int | None}
        for name, value in values.items():
            if name not in kinds:
                raise InputError(f"A job has no {shown(name)}. It has: {', '.join(kinds)}.")
            if not isinstance(value, kinds[name]) or isinstance(value, bool):
                raise InputError(f"A job's {name} has the wrong kind: {shown(value)}.")
        if not 0 <= (values.get("seed") or 0) < 2**63:
            raise InputError(
                f"A job's seed must be from 0 to 2^63 - 1. Got {shown(values['seed'])}."
            )
        if "verb" not in values:
            raise InputError("A job must name its verb.")
        groups = cast(dict[str, Any], values.get("settings", {}))
        if not all(isinstance(group, dict) for group in groups.values()):
            raise InputError("A job's settings must be groups of values, like swap and run.")
        values["settings"] = {
            name: former.current(group, former.SETTINGS.get(name, {}))
            for name, group in groups.items()
        }
        inputs = former.INPUTS.get(values["verb"], {})
        values["inputs"] = former.current(values.get("inputs", {}), inputs)
        return cls(**values)


def bound(function: Callable[..., Any], job: Job) -> dict[str, Any]:
    """The keyword arguments of a verb's function for a job.

    Its first parameter, the work, is left to the runner. Settings are filled for the model of the
    job. Raises InputError, naming it, for an input or group that the verb does not have, for one
    of another kind, and for one that is missing.
    """
    wanted, groups = inputs_of(function), settings_of(function)
    inputs = {**job.inputs, **({} if job.seed is None else {"seed": job.seed})}
    unknown = set(job.settings) - {group_name(one.annotation) for one in groups.values()}
    unknown |= set(inputs) - wanted.keys()
    if unknown:
        raise InputError(
            f"{job.verb} has no {min(unknown)!r}. Its inputs are: {', '.join(wanted)}."
        )
    model = str(job.settings.get("run", {}).get("model") or inputs.get("generator") or "toybox")
    found: dict[str, Any] = {}
    for name, parameter in groups.items():
        given = job.settings.get(group_name(parameter.annotation))
        if given is not None or parameter.default is EMPTY:
            found[name] = parameter.annotation.filled(given or {}, model)
    for name, parameter in wanted.items():
        if name in inputs:
            found[name] = _converted(job.verb, name, inputs[name], parameter.annotation)
        elif parameter.default is EMPTY:
            raise InputError(f"{job.verb} needs {name!r}.")
    for name, kind in _input_groups(function).items():
        fields = [field.name for field in dataclasses.fields(kind)]
        found[name] = kind(**{field: found.pop(field) for field in fields if field in found})
    return found


@cache  # a batch asks for every row, and to resolve the type hints takes 0.1 ms
def inputs_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The inputs of a verb's function: its parameters, and the fields of its `Inputs` classes.

    The annotation of each is its type.
    """
    hints, found = get_type_hints(function), dict[str, inspect.Parameter]()
    groups = _input_groups(function)
    for name, one in _parameters(function).items():
        if name in groups:
            kinds = get_type_hints(groups[name])
            for field in dataclasses.fields(groups[name]):
                known = field.default is not MISSING or field.default_factory is not MISSING
                default = None if known else EMPTY
                found[field.name] = inspect.Parameter(
                    field.name, one.KEYWORD_ONLY, default=default, annotation=kinds[field.name]
                )
        elif settings_kind(hints[name]) is None:
            found[name] = one.replace(annotation=hints[name])
    return types.MappingProxyType(found)


@cache
def settings_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The groups of settings of a verb's function; the annotation of each is its class."""
    hints = get_type_hints(function)
    found = {
        name: one.replace(annotation=kind)
        for name, one in _parameters(function).items()
        if (kind := settings_kind(hints[name])) is not None
    }
    return types.MappingProxyType(found)


@cache
def _input_groups(function: Callable[..., Any]) -> Mapping[str, type[Inputs]]:
    hints = get_type_hints(function)
    found = {
        name: hints[name]
        for name in _parameters(function)
        if isinstance(hints[name], type) and issubclass(hints[name], Inputs)
    }
    return types.MappingProxyType(found)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """All but the first one, the work."""
    return dict(list(inspect.signature(function).parameters.items())[1:])


def path_inputs(function: Callable[..., Any]) -> frozenset[str]:
    """The inputs of a verb's function that are paths."""
    hints = {name: one.annotation for name, one in inputs_of(function).items()}
    return frozenset(n for n, h in hints.items() if Path in (h, *get_args(h)))


def settings_kind(hint: Any) -> type[Settings] | None:
    """The Settings class of a type hint, optional or not."""
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, Settings):
            return kind
    return None


def _plain(value: Any) -> Any:
    """A path as text, a tuple as a list."""
    if isinstance(value, Path):
        return str(value)
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _converted(verb: str, name: str, value: Any, hint: Any) -> Any:
    """An input as its type hint wants it."""
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in choices:
        if kind is Path and isinstance(value, str):
            return Path(value)
        if get_origin(kind) is list and isinstance(value, list):
            (item,) = get_args(kind)
            return [_converted(verb, name, one, item) for one in cast(list[Any], value)]
        plain = isinstance(kind, type) and isinstance(value, kind)
        if plain and isinstance(value, bool) == (kind is bool):
            return value
    raise InputError(f"{verb}: {name} has the wrong kind: {shown(value)}.")
