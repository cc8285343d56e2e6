"""Trackers that work on pictures: optical flow, or point-tracking networks.

Plug-ins: any function of pictures will do. DragGAN (Pan et al. 2023, section 4.2) compares itself
with such trackers. A drag draws a picture a step for them, which a feature tracker never needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.drag.tracking import Sight, Tracks
from understudy.errors import InputError


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

    What it keeps is the picture of the step before; where that is missing (the first step, or a
    session that was saved amid a drag) points are believed where they are.
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


@dataclass(frozen=True, eq=False)
class Followed:
    """What a network says of points in a run of pictures.

    places: (x, y) in pixels, in every picture. visible: 0 to 1. known: what the network recognises
    the points by, to be told again in the next run; None where it keeps nothing.
    """

    places: Float[Tensor, "f n 2"]
    visible: Float[Tensor, "f n"]
    known: Float[Tensor, "n c"] | None = None


@runtime_checkable
class PointNetwork(Protocol):
    """Follows points, (x, y) in the first of some pictures, through all of them."""

    def __call__(
        self,
        pictures: Float[Tensor, "f 3 h w"],
        points: Float[Tensor, "n 2"],
        known: Float[Tensor, "n c"] | None,
    ) -> Followed: ...


@dataclass(frozen=True, eq=False)
class _Chain:
    """Pictures so far, and for each point where its run began: in which of them, and at what."""

    pictures: Float[Tensor, "f 3 h w"]
    begun: Int[Tensor, " n"]
    places: Float[Tensor, "n 2"]
    known: Float[Tensor, "n c"] | None = None


@dataclass(frozen=True)
class PointTracker:
    """Follows points by a network that sees a run of pictures at once, as PIPs does.

    Harley et al. 2022, arXiv:2204.04153. A run begins where a point was last seen well, and grows
    with the drag, its last picture repeated until there are `frames`. A run that is full ends: the
    next begins at the latest picture in which the point is more visible than `sure`, a bound that
    falls by `slack` until there is one.
    """

    network: PointNetwork
    frames: int = 8
    sure: float = 0.9
    slack: float = 0.02

    def __post_init__(self) -> None:
        if self.frames < 2 or self.slack <= 0:
            raise InputError("A run of pictures has at least 2 frames, and slack is above 0.")

    @torch.no_grad()
    def track(self, sight: Sight, points: Float[Tensor, "n 2"], radius: int) -> Tracks:
        now, chain = sight.picture(), sight.memory
        still = points.new_zeros(len(points))
        if not isinstance(chain, _Chain):
            begun = torch.zeros(len(points), dtype=torch.long, device=points.device)
            return Tracks(points, still, still.bool(), _Chain(now, begun, points.flip(1)))
        chain = replace(chain, pictures=torch.cat([chain.pictures, now]))
        places, visible, ends = points.flip(1).clone(), still.clone(), chain
        for first in sorted(set(chain.begun.tolist())):
            rows = torch.nonzero(chain.begun == first)[:, 0]
            seen = self._followed(chain, first, rows)
            last = len(chain.pictures) - 1 - first
            places[rows], visible[rows] = seen.places[last], seen.visible[last].to(visible)
            ends = self._ended(ends, first, rows, seen, last)
        tracked = _inside(places.flip(1), now)
        return Tracks(tracked, still, visible < 0.5, _shortened(ends))

    def _followed(self, chain: _Chain, first: int, rows: Tensor) -> Followed:
        """The network on the run that begins at the picture `first`."""
        run = chain.pictures[first : first + self.frames]
        # The network takes a fixed number of frames; the last one is repeated until there are
        # enough.
        run = torch.cat([run, run[-1:].expand(self.frames - len(run), -1, -1, -1)])
        known = None if chain.known is None else chain.known[rows]
        return self.network(run, chain.places[rows], known)

    def _ended(self, chain: _Chain, first: int, rows: Tensor, seen: Followed, last: int) -> _Chain:
        """With the next runs of these points, where this one is full."""
        known = chain.known
        if seen.known is not None:
            known = seen.known.new_zeros(len(chain.begun), seen.known.shape[1])
            known = known if chain.known is None else chain.known.clone()
            known[rows] = seen.known
        if last + 1 < self.frames:
            return replace(chain, known=known)
        begun, places = chain.begun.clone(), chain.places.clone()
        for column, row in enumerate(rows.tolist()):
            step = self._latest(seen.visible[1:, column].nan_to_num().tolist()) + 1
            begun[row], places[row] = first + step, seen.places[step, column]
        return replace(chain, begun=begun, places=places, known=known)

    def _latest(self, visible: list[float]) -> int:
        """The latest picture that shows the point well enough."""
        falls = max(0, math.floor((self.sure - max(visible)) / self.slack) + 1)
        bound = self.sure - falls * self.slack
        return max(
            (i for i, share in enumerate(visible) if share > bound), default=len(visible) - 1
        )


def _shortened(chain: _Chain) -> _Chain:
    """Without the pictures that no run needs any more."""
    first = int(chain.begun.min()) if len(chain.begun) else 0
    return replace(chain, pictures=chain.pictures[first:], begun=chain.begun - first)


def _inside(points: Float[Tensor, "n 2"], picture: Float[Tensor, "1 3 h w"]) -> Tensor:
    """No farther than the picture's edge."""
    sides = points.new_tensor(picture.shape[2:]) - 1
    return torch.minimum(points.clamp(min=0), sides)
