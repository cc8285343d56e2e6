"""SwapBench as a benchmark to run: cases are rendered, results scored against right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from understudy.evaluate import swapbench
from understudy.evaluate.bench import BenchCase, Known, Measure, side_of
from understudy.evaluate.swap_scores import CHOICES, COPIED, MEASURES, Answers, score
from understudy.settings.evaluate import CasesSettings
from understudy.vision.recogniser import Recogniser

SIDE = 128  # pixels a side of every picture, unless told
BENCH = {"name": swapbench.NAME, "version": swapbench.VERSION}


class ToyBench:
    """SwapBench in one size; see `Bench`. Keeps the last case, which several methods share."""

    knows_answers = True
    measures: Sequence[Measure] = MEASURES
    duels: Mapping[str, str] = {  # Photoswap's own three
        "subject": "identity",
        "background": "background, dB",
        "overall": "overall",
    }

    def __init__(self, wish: CasesSettings, recogniser: Recogniser) -> None:
        self.size, self.side, self.recogniser = wish.size, side_of(wish.side, SIDE), recogniser
        numbers = list(swapbench.cases(wish.size))[: wish.limit or None]
        self.names = [swapbench.case_name(number) for number in numbers]
        self._last: tuple[int, Answers] | None = None

    @property
    def title(self) -> str:
        return f"{swapbench.NAME} {swapbench.VERSION}, {self.size}, {self.side} pixels"

    @property
    def conditions(self) -> dict[str, Any]:
        told = f"{self.recogniser.name}, told where the right answer's subject is"
        choices = {"scorer": told, **CHOICES}
        return {"bench": BENCH, "size": self.size, "side": self.side, "choices": choices}

    def answers(self, name: str) -> Answers:
        """What is known of a case; rendered and looked at once."""
        number = swapbench.number_of(name)
        if self._last is None or self._last[0] != number:
            self._last = (number, Answers.of(swapbench.case(number), self.recogniser, self.side))
        return self._last[1]

    def subject(self, name: str) -> str:
        return str(swapbench.number_of(name) // len(swapbench.ORDER))

    def case(self, name: str) -> BenchCase:
        found = self.answers(name)
        case = found.case
        return BenchCase(
            name, case.number, case.subject.name, case.subject.identity.class_name, found.photos,
            found.source.picture, case.prompt, case.noun,
            Known(found.right.picture, found.source.mask, found.photo_masks),
        )  # fmt: skip

    def score(self, name: str, picture: Float[Tensor, "1 3 h w"]) -> dict[str, Any]:
        found = self.answers(name)
        case = found.case
        facts = {"kind": case.kind, "subject": case.subject.name, "seed": case.number}
        return {**facts, **score(picture, found, self.recogniser)}

    def warnings(self, means: Mapping[str, Mapping[str, float]]) -> list[str]:
        return [
            f"{method} looks cut out of the photos: copying {value:.2f} on average (over {COPIED})."
            for method, value in means["copying"].items()
            if value > COPIED
        ]
