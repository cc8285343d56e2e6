"""What the methods of one evaluation share: the model, its settings, learnt concepts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept
from understudy.errors import ConceptError, InputError
from understudy.learn import Subject, learn_steps
from understudy.models.interface import DiffusionModel
from understudy.settings import (
    EditSettings,
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    Settings,
    SwapSettings,
)
from understudy.settings.knobs import KINDS, count_or_share

VERBS: Mapping[str, type[Settings]] = {
    "learn": LearnSettings,
    "generate": GenerateSettings,
    "invert": InvertSettings,
    "swap": SwapSettings,
    "edit": EditSettings,
}
S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Setup:
    """A model, what its verbs were told beside what suits it, and a folder for what is kept.

    told: verb -> knob -> value. Concepts and inversions are kept in `store` under names that say
    how they were made, so that a run that is killed does not learn again.
    """

    model: DiffusionModel
    told: Mapping[str, Mapping[str, Any]]
    store: Path

    def settings(self, kind: type[S], **more: Any) -> S:
        """A verb's settings for this model: what was told, but `more` before it."""
        (verb,) = (verb for verb, known in VERBS.items() if known is kind)
        return kind.filled({**self.told.get(verb, {}), **more}, self.model.name)

    def facts(self, *settings: Settings) -> dict[str, Any]:
        """What a result depends on, for run.json."""
        named = {type(s).__name__.removesuffix("Settings").lower(): s.to_dict() for s in settings}
        return {"model": self.model.name, "fingerprint": self.model.base_fingerprint, **named}

    def concept(
        self, name: str, noun: str, photos: Float[Tensor, "n 3 h w"], settings: LearnSettings
    ) -> Concept:
        """The concept of a subject, learnt now unless it was before.

        Its record says what that took: "learning_seconds", and "class_seconds" for those class
        pictures that no earlier subject had left; on a CPU of the processor, whatever else runs.
        """
        said = json.dumps([self.facts(settings), noun], sort_keys=True).encode()
        digest = hashlib.sha256(said + photos.numpy().tobytes()).hexdigest()[:12]
        folder = self.store / "concepts" / f"{name}-{digest}"
        if folder.exists():
            try:
                return Concept.load(folder)
            except ConceptError:
                pass  # cut short: learn it again
        clock = time.process_time if self.model.device.type == "cpu" else time.monotonic
        began = drawn = clock()
        step = None
        subject, cache = Subject(name, noun, photos), self.store / "classes"
        for step in learn_steps(self.model, subject, settings=settings, cache=cache):
            drawn = clock() if step.phase == "prior" else drawn
        assert step is not None and step.concept is not None
        taken = {"learning_seconds": clock() - drawn, "class_seconds": drawn - began}
        record = {**step.concept.record, **{k: round(v, 2) for k, v in taken.items()}}
        concept = replace(step.concept, record=record)
        concept.save(folder)
        return concept


def told(words: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What "learn.steps=200" and the like say, checked; InputError names what is unknown."""
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        verb, _, knob = name.partition(".")
        if not equals or verb not in VERBS:
            verbs = ", ".join(VERBS)
            raise InputError(f"--set must be VERB.KNOB=VALUE, VERB one of {verbs}. Got {word!r}.")
        fields = {field.name: field for field in dataclasses.fields(VERBS[verb])}
        if knob not in fields:
            raise InputError(f"{verb} has no {knob!r}. It has: {', '.join(fields)}.")
        kind = count_or_share if fields[knob].metadata["share"] else type(fields[knob].default)
        found.setdefault(verb, {})[knob] = _value(word, kind, value)
    for verb, values in found.items():
        VERBS[verb].from_dict(values)
    return found


def _value(word: str, kind: Any, value: str) -> Any:
    if kind is bool:
        if value not in ("true", "false"):
            raise InputError(f"--set {word}: expected true or false.")
        return value == "true"
    try:
        return kind(value)
    except InputError as error:
        raise InputError(f"--set {word}: {error}") from None
    except ValueError:
        raise InputError(f"--set {word}: expected {KINDS[kind]}. Got {value!r}.") from None


def seed_of(*names: str | int) -> int:
    """A seed for this row and no other: it depends on the names alone, on no order or shard."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def pick(wanted: str, known: Iterable[str], option: str = "--methods") -> list[str]:
    """Names of a comma-separated list, each checked, none twice; InputError lists what there is."""
    known, names = list(known), [word.strip() for word in wanted.split(",") if word.strip()]
    for name in names:
        if name not in known:
            raise InputError(f"{option} must be among {', '.join(known)}. Got {name!r}.")
    if not names:
        raise InputError(f"{option} must name at least one of {', '.join(known)}.")
    return list(dict.fromkeys(names))
