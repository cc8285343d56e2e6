"""Checks requests of the page and turns them into jobs: ids become paths of the data folder.

A wish is {verb, settings, inputs, seed}, like a job, but files are ids, concepts and models are
names of the lists, and places of results are chosen here.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from understudy.errors import InputError
from understudy.jobs.request import Job
from understudy.studio import verbs
from understudy.studio.concepts import Concepts
from understudy.studio.files import FileStore
from understudy.studio.models import GENERATOR, MODEL, Models
from understudy.studio.verbs import Input, Verb

MAX_TEXT, MAX_ITEMS = 4_000, 64
_SWAP = re.compile(r"\s*([^=#]+?)\s*(#\s*[1-9]\d*)?\s*=\s*([^:]+?)\s*(:\s*[\d.]{1,9})?\s*")
FILES = (verbs.PICTURE, verbs.PICTURES, verbs.LISTED, verbs.FILE)
MANY = (verbs.TEXTS, verbs.SWAPS, verbs.CONCEPTS, verbs.PICTURES, verbs.LISTED)


@dataclass(frozen=True)
class Wishes:
    """Checks wishes and makes jobs of them."""

    files: FileStore
    concepts: Concepts
    models: Models

    def checked(self, wish: dict[str, Any]) -> dict[str, Any]:
        """The wish with nothing in it that is not declared. Raises InputError, LookupError."""
        one = verbs.verb(str(wish.get("verb")))
        settings = cast(dict[str, dict[str, Any]], wish.get("settings") or {})
        inputs = {k: v for k, v in (wish.get("inputs") or {}).items() if not _empty(v)}
        seed = wish.get("seed")
        if seed is not None and not (one.seed and 0 <= int(seed) < 2**32):
            said = f"from 0 to {2**32 - 1}" if one.seed else "left out: it has none"
            raise InputError(f"{one.name}: the seed must be {said}. Got {seed}.")
        known = {single.name: single for single in one.inputs}
        for name, value in inputs.items():
            if name in one.asked:
                _check_flag(name, value)
            elif name not in known:
                names = ", ".join((*known, *one.asked))
                raise InputError(f"{one.name} has no {name[:100]!r}. Its inputs are: {names}.")
            else:
                self._check(known[name], value)
        for name, single in known.items():
            if single.needed and name not in inputs:
                raise InputError(f"{one.name} needs {name}: {single.help}.")
        self._check_settings(one, settings, inputs)
        return {"verb": one.name, "settings": settings, "inputs": inputs, "seed": seed}

    def job(self, identity: str, wish: dict[str, Any]) -> Job:
        """The job of a wish that was checked, its inputs staged. Raises InputError, LookupError."""
        one = verbs.verb(wish["verb"])
        folder = self.files.job_folder(identity)
        inputs: dict[str, Any] = {}
        known = {single.name: single for single in one.inputs}
        for name, value in wish["inputs"].items():
            if name in known:
                inputs[name] = self._placed(known[name], value, folder / "in" / name)
        if one.name == "learn" and "masks" in inputs:
            self._name_masks(wish["inputs"], folder / "in" / "masks")
        out = folder / "out"
        out.mkdir(parents=True, exist_ok=True)
        asked = {name: file for name, file in one.asked.items() if wish["inputs"].get(name)}
        places = {**one.places, **asked}
        if one.name == "generate" and inputs.get("count", 1) == 1:
            places["out"] = "generated.png"
        inputs |= {name: str(out / file) for name, file in places.items()}
        if one.name == "learn":
            inputs["out"] = str(self.concepts.store / inputs["name"])
        if one.name == "convert":
            inputs["out"] = str(self.models.folders[0] / Path(inputs["file"]).stem)
        settings = {name: dict(values) for name, values in wish["settings"].items()}
        if "run" in settings and "model" in settings["run"]:
            run = settings["run"]
            run["model"] = self.models.wanted(str(run["model"]), MODEL)
        return Job(verb=one.name, settings=settings, inputs=inputs, seed=wish["seed"])

    def model(self, one: Verb, settings: dict[str, Any], inputs: dict[str, Any]) -> str:
        """The model or generator that a wish is for, as the library calls it."""
        if one.generator:
            return self.models.wanted(str(inputs.get("generator") or "toybox-gan"), GENERATOR)
        name = settings.get("run", {}).get("model") or "toybox"
        return self.models.wanted(str(name), MODEL)

    def _check_settings(
        self, one: Verb, settings: dict[str, dict[str, Any]], inputs: dict[str, Any]
    ) -> None:
        model = self.model(one, settings, inputs)
        for name, values in settings.items():
            hidden = verbs.HIDDEN & set(values)
            if hidden:
                raise InputError(f"{min(hidden)} cannot be set in the studio.")
            one.group(name).filled(values, model)

    def _check(self, single: Input, value: Any) -> None:
        """Raise InputError or LookupError for a value that an input cannot take."""
        fault = InputError(
            f"{single.name} has the wrong kind. Expected {single.kind}: {single.help}."
        )
        many = single.kind in MANY
        items = cast(list[Any], value if isinstance(value, list) else [value])
        if isinstance(value, list) != many:
            raise fault
        if len(items) > MAX_ITEMS:
            raise InputError(f"{single.name} may have {MAX_ITEMS} entries. Got {len(items)}.")
        if single.kind == verbs.FLAG:
            return _check_flag(single.name, value)
        if single.kind == verbs.COUNT:
            return _check_count(single, value)
        if not all(isinstance(item, str) and len(item) <= MAX_TEXT for item in items):
            raise fault
        checks: dict[str, Callable[[str], object]] = {
            **dict.fromkeys(FILES, self.files.get),
            verbs.CONCEPTS: self.concepts.folder,
            verbs.SWAPS: lambda text: self.concepts.folder(split_swap(text)[1]),
            verbs.NAME: self.concepts.free_name,
            verbs.CHECKPOINT: self.models.file,
            verbs.GENERATOR: lambda name: self.models.wanted(name, GENERATOR),
        }
        for item in items:
            checks.get(single.kind, str)(item)

    def _placed(self, single: Input, value: Any, folder: Path) -> Any:
        """An input as the library takes it."""
        if single.kind == verbs.PICTURES:
            self.files.stage([self.files.get(item) for item in value], folder)
            return str(folder)
        if single.kind == verbs.LISTED:
            rows = [self.files.get(item) for item in value]
            return [str(staged) for staged in self.files.stage(rows, folder)]
        if single.kind in FILES:
            return str(self.files.stage([self.files.get(value)], folder)[0])
        if single.kind == verbs.CONCEPTS:
            return [str(self.concepts.folder(item)) for item in value]
        if single.kind == verbs.SWAPS:
            return [self._swap(item) for item in value]
        if single.kind == verbs.GENERATOR:
            return self.models.wanted(value, GENERATOR)
        if single.kind == verbs.CHECKPOINT:
            return str(self.models.file(value))
        return value

    def _name_masks(self, inputs: dict[str, Any], folder: Path) -> None:
        """Masks under the names of their photos, which are in the same order."""
        photos, masks = inputs["photos"], inputs["masks"]
        if len(photos) != len(masks):
            raise InputError(f"Expected a mask for each of {len(photos)} photos. Got {len(masks)}.")
        staged = self.files.stage([self.files.get(one) for one in photos], folder)
        for place, one in zip(staged, masks, strict=True):
            place.unlink()
            shutil.copyfile(self.files.path(self.files.get(one)), place)

    def _swap(self, text: str) -> str:
        """cat#2=rex:0.7 with the concept's folder in the place of its name."""
        word, name, strength = split_swap(text)
        return f"{word}={self.concepts.folder(name)}{strength}"


def split_swap(text: str) -> tuple[str, str, str]:
    """ "cat#2=rex:0.7" -> what is replaced, the concept's name, its strength. Raises InputError.

    The strength is ":0.7" or "".
    """
    match = _SWAP.fullmatch(text)
    if not match:
        raise InputError(
            f"swap must be WORD=CONCEPT, like cat=rex, cat#2=rex or cat=rex:0.7. Got {text!r}."
        )
    return match[1] + _joined(match[2]), match[3], _joined(match[4])


def _joined(text: str | None) -> str:
    return "".join((text or "").split())


def _empty(value: Any) -> bool:
    """Whether an input was left empty: None, "" or []."""
    return value is None or value == "" or value == []


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false. Got {value!r}.")


def _check_count(single: Input, value: Any) -> None:
    low = -math.inf if single.at_least is None else single.at_least
    high = math.inf if single.at_most is None else single.at_most
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(
            f"{single.name} must be a whole number from {low:g} to {high:g}. Got {value!r}."
        )
