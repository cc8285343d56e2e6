"""The scorer of swap candidates: the recogniser, where pictures show toys.

Any other scorer has the same two methods (`swap.schedule_search.Scorer`); for photographs that is a
feature network such as DINO.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.models.interface import DiffusionModel
from understudy.settings.suits import shows_toys
from understudy.vision.recogniser import Recogniser

GRID = 16  # cells a side that the masks of a layout are compared on
FINE = 32  # cells a side that its key points are compared on
REACH = 0.045  # of the side: deviation of a key point's bump


@dataclass(frozen=True)
class ToyScorer:
    """Identity by the recogniser's embedding, layout by the mask and the key points it sees."""

    recogniser: Recogniser

    def identity(
        self, pictures: Float[Tensor, "b 3 h w"], subject: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Unit vectors; see `Recogniser.identity`."""
        return self.recogniser.identity(pictures.cpu(), None if subject is None else subject.cpu())

    def layout(
        self, pictures: Float[Tensor, "b 3 h w"], subject: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b n"]:
        """The subject's mask on a coarse grid beside a bump at each key point, as a unit vector.

        Mask and key points weigh the same, and so do all key points that are seen.
        """
        seen = self.recogniser.recognise(pictures.cpu(), None if subject is None else subject.cpu())
        mask = F.normalize(F.adaptive_avg_pool2d(seen.mask, GRID).flatten(1), dim=1)
        size = torch.tensor([pictures.shape[-1], pictures.shape[-2]])
        bumps = _bumps(seen.points / size) * seen.visible[..., None]
        return F.normalize(torch.cat([mask, F.normalize(bumps.flatten(1), dim=1)], dim=1), dim=1)


def _bumps(points: Float[Tensor, "b k 2"]) -> Float[Tensor, "b k n"]:
    """A Gaussian about each point on a fine grid; points are shares of width and height."""
    centres = (torch.arange(FINE) + 0.5) / FINE
    across, down = (
        (-((centres - points[..., axis, None]) ** 2) / (2 * REACH**2)).exp() for axis in (0, 1)
    )
    return (down[..., :, None] * across[..., None, :]).flatten(2)


def scorer_for(model: DiffusionModel) -> ToyScorer | None:
    """A scorer for the pictures of this model; None where there is none."""
    from understudy.vision.recogniser import load

    return ToyScorer(load()) if shows_toys(model.name) else None
