"""Declared contents of a file: JSON fields with their kinds and bounds, tensors with names, dtypes
and shapes.

Each loader declares what its file may hold with the values below and has it checked before
anything is built from it. A value that does not fit raises `Unfit`, in one line without control
characters; the loader adds the file's name. Free of torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

FLOATS = ("float16", "bfloat16", "float32", "float64")
MAX_TENSORS = 65_536  # tensors in one file
MAX_TEXT = 20_000  # characters of one text
MAX_ITEMS = 1_000_000  # entries of one list or object


class Unfit(ValueError):
    """A value that the declaration does not allow. The message names it and says what is wanted."""


@dataclass(frozen=True)
class Text:
    """Text of at most `most` characters. pattern: a regular expression for the whole of it."""

    most: int = MAX_TEXT
    pattern: str = ""
    choices: tuple[str, ...] = ()

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, str):
            raise Unfit(f"{name} must be text. Got {shown(value)}")
        if len(value) > self.most:
            raise Unfit(f"{name} has {len(value):,} characters; at most {self.most:,} are read")
        if self.choices and value not in self.choices:
            raise Unfit(f"{name} must be one of {', '.join(self.choices)}. Got {shown(value)}")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise Unfit(f"{name} does not have the expected form. Got {shown(value)}")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Unfit(f"{name} is not valid Unicode")


@dataclass(frozen=True)
class Number:
    """A finite number from `least` to `most`. whole: an integer."""

    least: float = -1e12
    most: float = 1e12
    whole: bool = False

    def check(self, value: Any, name: str) -> None:
        kind = "a whole number" if self.whole else "a number"
        fits = isinstance(value, int if self.whole else (int, float))
        if not fits or isinstance(value, bool) or not self.least <= value <= self.most:
            bounds = f"{kind} from {self.least:g} to {self.most:g}"
            wanted = f"{self.least:g}" if self.least == self.most else bounds
            raise Unfit(f"{name} must be {wanted}. Got {shown(value)}")


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, bool):
            raise Unfit(f"{name} must be true or false. Got {shown(value)}")


@dataclass(frozen=True)
class Data:
    """Any JSON value. Its depth and size were bounded when it was parsed."""

    def check(self, value: Any, name: str) -> None:
        return


@dataclass(frozen=True)
class Scalar:
    """null, true, false, a finite number or text."""

    def check(self, value: Any, name: str) -> None:
        if isinstance(value, str):
            Text().check(value, name)
        elif value is not None and not isinstance(value, bool):
            Number().check(value, name)


@dataclass(frozen=True)
class Maybe:
    """null, or what `kind` says."""

    kind: Kind

    def check(self, value: Any, name: str) -> None:
        if value is not None:
            self.kind.check(value, name)


@dataclass(frozen=True)
class Items:
    """A list of `least` to `most` entries of one kind."""

    kind: Kind
    least: int = 0
    most: int = MAX_ITEMS

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, (list, tuple)):
            raise Unfit(f"{name} must be a list. Got {shown(value)}")
        if not self.least <= len(value) <= self.most:
            wanted = (
                f"{self.least:,}" if self.least == self.most else f"{self.least} to {self.most}"
            )
            raise Unfit(f"{name} has {len(value):,} entries. Expected {wanted}")
        for place, entry in enumerate(value):
            self.kind.check(entry, f"{name}[{place}]")


@dataclass(frozen=True)
class Table:
    """A JSON object with keys of one form and values of one kind."""

    kind: Kind
    pattern: str = ""
    most: int = MAX_ITEMS

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise Unfit(f"{name} must be an object. Got {shown(value)}")
        if len(value) > self.most:
            raise Unfit(f"{name} has {len(value):,} entries; at most {self.most:,} are read")
        key = Text(most=400, pattern=self.pattern)
        for word, entry in value.items():
            key.check(word, f"a key of {name}")
            self.kind.check(entry, f"{name}[{shown(word)}]")


@dataclass(frozen=True)
class Record:
    """A JSON object with named fields. others: the kind of fields not named here, None to refuse
    them."""

    fields: Mapping[str, Kind]
    optional: Mapping[str, Kind] = field(default_factory=dict[str, "Kind"])
    others: Kind | None = None

    def check(self, value: Any, name: str) -> None:
        if not isinstance(value, dict):
            raise Unfit(f"{name} must be an object. Got {shown(value)}")
        for word, kind in self.fields.items():
            if word not in value:
                raise Unfit(f"{name} has no {word!r}")
            kind.check(value[word], word)
        for word, entry in value.items():
            if word in self.fields:
                continue
            kind = self.optional.get(word, self.others)
            if kind is None:
                raise Unfit(f"{name} has the unknown field {shown(word)}")
            kind.check(entry, word if word in self.optional else f"{name}[{shown(word)}]")


Kind = Text | Number | Flag | Data | Scalar | Maybe | Items | Table | Record


@dataclass(frozen=True)
class Tensors:
    """Tensors of a file whose whole name matches the regular expression `names`.

    shape: sizes separated by spaces. A number is that size; `_` is any; a word is the same size
    wherever it stands in the file; a word that begins with a dot is the same among the names whose
    first group is the same; "..." stands for any further sizes.
    dtypes: as torch calls them. needed: at least one such tensor must be there. empty: a size may
    be 0.
    """

    names: str
    shape: str
    dtypes: tuple[str, ...] = FLOATS
    needed: bool = False
    empty: bool = False


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file of ours: tensors, and one JSON object in the header.

    format: what the header entry "format" says. key: the header entry that holds the object.
    what, made_by: for messages, like "drag session" and "understudy drag".
    """

    format: str
    key: str
    what: str
    made_by: str
    fields: Record
    tensors: tuple[Tensors, ...]


# What a header tells of a tensor: its dtype as torch calls it, and its shape.
Told = tuple[str, tuple[int, ...]]


def check_headers(told: Mapping[str, Told], allowed: Iterable[Tensors]) -> None:
    """Raise `Unfit` unless every tensor is declared, and every needed one is there.

    This takes the header alone, so nothing is read or built before it has passed.
    """
    if len(told) > MAX_TENSORS:
        raise Unfit(f"it holds {len(told):,} tensors; at most {MAX_TENSORS:,} are read")
    declared = list(allowed)
    sizes: dict[str, int] = {}
    seen = set[Tensors]()
    for name, (dtype, shape) in told.items():
        found = next(((d, m) for d in declared if (m := re.fullmatch(d.names, name))), None)
        if found is None:
            raise Unfit(f"it holds a tensor {shown(name)}, which is not expected")
        one, match = found
        seen.add(one)
        if dtype not in one.dtypes:
            raise Unfit(f"{shown(name)} is of type {dtype}. Expected {' or '.join(one.dtypes)}")
        group = match[1] if match.re.groups else ""
        if (0 in shape and not one.empty) or not _fits(shape, one.shape.split(), group, sizes):
            raise Unfit(f"{shown(name)} has the shape {shape}. Expected ({_written(one, sizes)})")
    for one in declared:
        if one.needed and one not in seen:
            raise Unfit(f"it has no tensor {one.names!r}")


def check_finite(tensors: Mapping[str, Any]) -> None:
    """Raise `Unfit`, naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Unfit(f"{shown(name)} holds numbers that are not finite (NaN, infinity)")


def shown(value: Any, most: int = 60) -> str:
    """A value of a file for a message: short, on one line, without control characters."""
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} (not finite)"
    text = value if isinstance(value, str) else repr(value)
    short = text if len(text) <= most else text[:most] + "..."
    return repr(short) if isinstance(value, str) else short


def _fits(shape: tuple[int, ...], wanted: list[str], group: str, sizes: dict[str, int]) -> bool:
    """Whether a shape is the declared one. Words that are new get their size here."""
    if wanted and wanted[-1] == "...":
        wanted = wanted[:-1]
        shape = shape[: len(wanted)]
    if len(shape) != len(wanted):
        return False
    for size, word in zip(shape, wanted, strict=True):
        if word.isdigit():
            word_size = int(word)
        elif word == "_":
            continue
        else:
            word_size = sizes.setdefault(f"{group}{word}" if word[0] == "." else word, size)
        if size != word_size:
            return False
    return True


def _written(one: Tensors, sizes: Mapping[str, int]) -> str:
    return ", ".join(str(sizes.get(word, word.lstrip("."))) for word in one.shape.split())
