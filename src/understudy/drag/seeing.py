"""A tracker that works on pictures: optical flow.

Any function of two pictures can give the flow. DragGAN (Pan et al. 2023, section 4.2) compares
itself with such trackers. They need a picture in every step, which feature tracking does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.drag.tracking import Sight, Tracks


@runtime_checkable
class Flow(Protocol):
    """Where every pixel of the first picture went in the second: (x, y), in pixels.

    Pictures are RGB in [-1, 1], of one size.
    """

    def __call__(
        self, first: Float[Tensor, "1 3 h w"], second: Float[Tensor, "1 3 h w"]
    ) -> Float[Tensor, "1 2 h w"]: ...


@dataclass(frozen=True)
class FlowTracker:
    """Follows points from picture to picture: p += flow(p), sampled between pixels.

    Its memory is the picture of the step before. Where that is missing (in the first step, or in a
    session that was saved during a drag) the points stay where they are.
    """

    flow: Flow

    @torch.no_grad()
    def track(self, sight: Sight, points: Float[Tensor, "n 2"], radius: int) -> Tracks:
        now, before = sight.picture(), sight.memory
        still = points.new_zeros(len(points))
        if not isinstance(before, Tensor):
            return Tracks(points, still, still.bool(), now)
        # Flow is given as (x, y), points are (y, x).
        went = sampled(self.flow(before, now).to(points.dtype), points).flip(1)
        lost = ~went.isfinite().all(dim=1)  # a flow that is no number moves nothing
        points = _inside(points + went.masked_fill(lost[:, None], 0), now)
        return Tracks(points, still, lost, now)


def sampled(field: Float[Tensor, "1 c h w"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n c"]:
    """A field at (y, x) in pixels, whole numbers being pixel centres; beyond the edge, the edge."""
    sides = points.new_tensor(field.shape[2:]).sub(1).clamp(min=1)
    places = (2 * points / sides - 1).flip(1)[None, None]  # (1, 1, n, 2) as (x, y) in [-1, 1]
    found = F.grid_sample(field, places, padding_mode="border", align_corners=True)
    return found[0, :, 0].T


def _inside(points: Float[Tensor, "n 2"], picture: Float[Tensor, "1 3 h w"]) -> Tensor:
    """No farther than the picture's edge."""
    sides = points.new_tensor(picture.shape[2:]) - 1
    return torch.minimum(points.clamp(min=0), sides)
