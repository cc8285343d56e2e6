"""The methods of the DreamBooth protocol by name: each turns photos into a concept.

A new method is one line in `LEARNERS`. "untuned" learns nothing and draws the plain class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept
from understudy.evaluate.dreambench import BenchSubject
from understudy.evaluate.setup import Setup
from understudy.learn.identifier import candidates, rare_words
from understudy.models.interface import DiffusionModel
from understudy.settings import LEARN_METHODS, LearnSettings

TAILS = (1, 3, 5, 10, 20)  # HiPer's N, from too little to too much


@dataclass(frozen=True)
class Learner:
    """learns: with the settings for `learn` that make it differ (None: it learns nothing at all).

    noun: what it is told the subject is: its class, another class, or a rare word, which is no
    class at all (DreamBooth's table 4). photos: how many it sees, from the first; 0 for all.
    """

    says: str
    learns: Mapping[str, Any] | None = None
    noun: Literal["its own", "wrong", "none"] = "its own"
    photos: int = 0

    def settings(self, setup: Setup) -> LearnSettings | None:
        """What it learns with; None if it does not."""
        if self.learns is None:
            return None
        return setup.settings(LearnSettings, **self.learns)

    def facts(self) -> dict[str, Any]:
        """What its results depend on beside settings, where it is not what the others do."""
        said = {} if self.noun == "its own" else {"noun": self.noun}
        return said | ({"photos": self.photos} if self.photos else {})

    def told(self, setup: Setup, subject: BenchSubject, nouns: Sequence[str]) -> str:
        """The class it is told: the subject's own, the next of the data set, or a rare word."""
        if self.noun == "its own":
            return subject.noun
        if self.noun == "none":
            return rare_noun(setup.model, setup.settings(LearnSettings).seed)
        others = sorted(set(nouns) - {subject.noun}) or ["thing"]
        return others[len(subject.name) % len(others)]

    def concept(
        self,
        setup: Setup,
        subject: BenchSubject,
        nouns: Sequence[str],
        photos: Float[Tensor, "n 3 h w"],
    ) -> Concept | None:
        """The subject's concept, learnt now or before. nouns: of all subjects of the data set."""
        settings = self.settings(setup)
        if settings is None:
            return None
        name = "".join(c if c.isalnum() else "-" for c in subject.name)
        name = name if name[:1].isalpha() else f"s{name}"
        seen = photos[: self.photos or None]
        return setup.concept(name, self.told(setup, subject, nouns), seen, settings)


def rare_noun(model: DiffusionModel, seed: int) -> str:
    """A rare word that can stand where a noun would, and is never the identifier itself."""
    words = rare_words(model)
    drawn = candidates(words, 1, seed)
    return next((word for word in reversed(words) if word not in drawn), "thing")


LEARNERS: Mapping[str, Learner] = {
    "untuned": Learner("the model as it is, asked for the plain class"),
    **{name: Learner(f"learn --method {name}", {"method": name}) for name in LEARN_METHODS},
    "hiper": Learner("learn --method hiper, of one photo", {"method": "hiper"}, photos=1),
    "without-prior": Learner("DreamBooth without prior preservation", {"prior_weight": 0.0}),
    "wrong-noun": Learner("DreamBooth told another class", {}, noun="wrong"),
    "no-noun": Learner(
        "DreamBooth told a rare word for a class, without prior", {"prior_weight": 0.0}, noun="none"
    ),
    **{
        f"hiper-{n}": Learner(
            f"HiPer with {n} learnt embeddings, of one photo",
            {"method": "hiper", "tail": n},
            photos=1,
        )
        for n in TAILS
    },
}
