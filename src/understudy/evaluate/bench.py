"""What a swap benchmark is: its cases, and how a result is scored.

`ToyBench` knows the right answers, `PhotoBench` has photos alone; the protocol runs either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError
from understudy.toybox.captions import article


@dataclass(frozen=True)
class Measure:
    """A column of the table: what it is, which way is better, from what difference on, perfect."""

    name: str
    says: str
    higher: bool
    tie: float  # differences of at most this count as none in a duel
    perfect: float


@dataclass(frozen=True)
class Known:
    """What only a world of our own tells: the answer, and where subjects are (1 in the masks)."""

    right: Float[Tensor, "1 3 h w"]
    source_mask: Float[Tensor, "1 1 h w"]
    photo_masks: Float[Tensor, "n 1 h w"]


@dataclass(frozen=True)
class BenchCase:
    """What a method is given: photos of a subject, and a source to put it into.

    prompt describes the source; noun is the word in it whose place the subject takes. subject is
    learnt once for all cases that name it.
    """

    name: str
    seed: int
    subject: str
    class_noun: str
    photos: Float[Tensor, "n 3 h w"]
    source: Float[Tensor, "1 3 h w"]
    prompt: str
    noun: str
    known: Known | None = None

    def target_prompt(self, phrase: str) -> str:
        """The prompt with `phrase` ("sks cat") in the noun's place, after the right article."""
        place = re.compile(rf"\b(an? )?{re.escape(self.noun)}\b", re.IGNORECASE)
        return place.sub(lambda m: article(phrase) if m[1] else phrase, self.prompt, count=1)


@runtime_checkable
class Bench(Protocol):
    """Cases by name, in their order; a subject's cases stand together."""

    @property
    def title(self) -> str: ...
    @property
    def knows_answers(self) -> bool:
        """Whether cases come with what is `Known`."""
        ...

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def measures(self) -> Sequence[Measure]: ...
    @property
    def duels(self) -> Mapping[str, str]:
        """What is fought over (subject, background, overall), and the measure that decides."""
        ...

    @property
    def conditions(self) -> dict[str, Any]:
        """What makes two runs the same benchmark."""
        ...

    def subject(self, name: str) -> str:
        """Whose case it is, without opening anything."""
        ...

    def case(self, name: str) -> BenchCase: ...
    def score(self, name: str, picture: Float[Tensor, "1 3 h w"]) -> dict[str, Any]:
        """Facts of the case (kind, subject, seed) and every measure of an answer to it."""
        ...

    def warnings(self, means: Mapping[str, Mapping[str, float]]) -> list[str]:
        """What looks wrong: means are measure -> method -> mean over all cases."""
        ...


def side_of(told: int, usual: int) -> int:
    """Pixels a side, `usual` where nothing is told; InputError under 64."""
    if 0 < told < 64:
        raise InputError(f"--side must be 64 or more. Got {told}.")
    return told or usual
