"""What a setting is: its default, its help, its bounds, and the check of all three.

Free of torch. Knows no verb: the settings of the verbs are in the other files of this package.
Which values fill what is not given is said in `resolve.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from understudy.errors import InputError
from understudy.settings import former
from understudy.settings.resolve import Layers, Value, resolve
from understudy.settings.suits import suits

T = TypeVar("T", bound="Settings")
SWITCH = ("auto", "on", "off")


def knob(
    default: Value,
    help: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    share: bool = False,
    switch: bool = False,
) -> Any:
    """One setting: its default, what it does in one line, and what it may be.

    share: a whole number counts, a fraction from 0.0 to 1.0 is a share of the whole. switch: of
    the choices SWITCH; the command line spells it --x and --no-x.
    """
    bounds = {"help": help, "at_least": at_least, "at_most": at_most, "choices": choices}
    bounds |= {"share": share, "switch": switch}
    return dataclasses.field(default=default, metadata=bounds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: checks every knob against its bounds when made."""

    filling: ClassVar[Layers] = Layers()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))

    def to_dict(self) -> dict[str, Value]:
        """The values as plain JSON data, in the order of declaration."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
        """The reverse of `to_dict`, former names included; an unknown one is an InputError."""
        values = cls._current(values)
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name, value in values.items():  # checked before a value of another type is passed on
            if name not in known:
                raise InputError(f"{cls.__name__} has no {name!r}. It has: {', '.join(known)}.")
            check(known[name], value)
        return cls(**values)

    @classmethod
    def filled(cls: type[T], given: Mapping[str, Any], model: str = "") -> T:
        """Settings from the values given; `resolve` fills the rest.

        model: name or folder of the model they are for; "" for none in particular. Raises
        InputError for a value out of bounds and for a preset that the method does not have.
        """
        given = cls._current(given)
        cls.from_dict(given)
        defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(cls)}
        return cls.from_dict(resolve(cls.filling, defaults, given, suits(model)))

    @classmethod
    def _current(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        return former.current(values, former.SETTINGS.get(group_name(cls), {}))


def group_name(kind: type[Settings]) -> str:
    """SwapSettings -> "swap": what jobs and recipes call this group of settings."""
    return kind.__name__.removesuffix("Settings").lower()


def check(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise InputError, naming the knob, unless `value` has the right kind and bounds."""
    name, limits = option(field.name), field.metadata
    kind: Any = type(field.default)
    if limits["share"] and isinstance(value, float):
        if not 0 <= value <= 1:
            raise InputError(f"{name} must be a count, or a share from 0.0 to 1.0. Got {value}.")
        return
    fits = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} must be {KINDS[kind]}. Got {value!r}.")
    if limits["choices"] and value not in limits["choices"]:
        raise InputError(f"{name} must be one of {', '.join(limits['choices'])}. Got {value!r}.")
    if kind is float and not -1e300 < value < 1e300:  # NaN, infinity, a vast whole number
        raise InputError(f"{name} must be a finite number. Got {value}.")
    if limits["at_least"] is not None and value < limits["at_least"]:
        raise InputError(f"{name} must be at least {limits['at_least']}. Got {value}.")
    if limits["at_most"] is not None and value > limits["at_most"]:
        raise InputError(f"{name} must be at most {limits['at_most']}. Got {value}.")


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def option(name: str) -> str:
    """The command-line spelling of a knob: ``self_map_steps`` -> ``--self-map-steps``."""
    return "--" + name.replace("_", "-")


def count_or_share(text: str | float) -> int | float:
    """ "20" counts, "0.4" is a share. Raises InputError for anything else."""
    try:
        return int(text) if isinstance(text, int) or "." not in str(text) else float(text)
    except ValueError:
        raise InputError(f"expected a count like 20 or a share like 0.4. Got {text!r}.") from None
