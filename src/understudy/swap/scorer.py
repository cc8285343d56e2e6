"""The scorer of swap candidates: the recogniser, where pictures show toys.

Any other judge has the same two methods (`swap.audition.Judge`); for photographs that is a feature
network such as DINO.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.models.interface import DiffusionModel
from understudy.settings.suits import shows_toys
from understudy.vision.recogniser import Recogniser

GRID = 16  # cells a side that a layout is compared on


@dataclass(frozen=True)
class ToyJudge:
    """Identity by the recogniser's embedding, layout by the mask it sees."""

    ruler: Recogniser

    def identity(
        self, pictures: Float[Tensor, "b 3 h w"], subject: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Unit vectors; see `Recogniser.identity`."""
        return self.ruler.identity(pictures.cpu(), None if subject is None else subject.cpu())

    def layout(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
        """The subject's mask on a coarse grid, as a unit vector."""
        mask = self.ruler.recognise(pictures.cpu()).mask
        return F.normalize(F.adaptive_avg_pool2d(mask, GRID).flatten(1), dim=1)


def judge_for(model: DiffusionModel) -> ToyJudge | None:
    """A judge for the pictures of this model; None where none is at hand."""
    from understudy.vision.recogniser import load

    return ToyJudge(load()) if shows_toys(model.name) else None
