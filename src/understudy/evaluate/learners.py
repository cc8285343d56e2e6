"""The contestants of the DreamBooth protocol by name: each turns photos into a concept.

A new method is one line in `LEARNERS`. "untuned" learns nothing and draws the plain class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept
from understudy.evaluate.dreambench import BenchSubject
from understudy.evaluate.stage import Stage
from understudy.settings import LEARN_METHODS, LearnSettings


@dataclass(frozen=True)
class Learner:
    """learns: with the settings for `learn` that make it differ (None: it learns nothing at all).

    wrong_noun: it is told another class than the subject's (DreamBooth's table 4).
    """

    says: str
    learns: Mapping[str, Any] | None = None
    wrong_noun: bool = False

    def settings(self, stage: Stage) -> LearnSettings | None:
        """What it learns with; None if it does not."""
        if self.learns is None:
            return None
        return stage.settings(LearnSettings, **self.learns)

    def noun(self, subject: BenchSubject, nouns: list[str]) -> str:
        """The class it is told: the subject's own, or the next one of the data set."""
        if not self.wrong_noun:
            return subject.noun
        others = sorted(set(nouns) - {subject.noun}) or ["thing"]
        return others[len(subject.name) % len(others)]

    def concept(
        self, stage: Stage, subject: BenchSubject, noun: str, photos: Float[Tensor, "n 3 h w"]
    ) -> Concept | None:
        """The subject's concept, learnt now or before."""
        settings = self.settings(stage)
        if settings is None:
            return None
        name = "".join(c if c.isalnum() else "-" for c in subject.name)
        name = name if name[:1].isalpha() else f"s{name}"
        return stage.concept(name, noun, photos, settings)


LEARNERS: Mapping[str, Learner] = {
    "untuned": Learner("the model as it is, asked for the plain class"),
    **{name: Learner(f"learn --method {name}", {"method": name}) for name in LEARN_METHODS},
    "without-prior": Learner("DreamBooth without prior preservation", {"prior_weight": 0.0}),
    "wrong-noun": Learner("DreamBooth told another class", {}, wrong_noun=True),
}
