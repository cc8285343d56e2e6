"""What a drag changes, and what a step of it found: values of the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.drag.region import FeatureView


@dataclass(frozen=True, eq=False)
class Anchor:
    """Where references come from: a latent, the handles then, and (once computed) the features.

    references: features of the handles, of the resolution that is tracked.
    """

    moving_ws: Float[Tensor, "1 rows w_dim"]
    points: Float[Tensor, "n 2"]
    look: FeatureView | None = None
    references: Float[Tensor, "n c"] | None = None

    def with_features(self, look: FeatureView, tracked: FeatureView | None) -> Anchor:
        """The same with features; tracked: where they are of another resolution."""
        followed = look if tracked is None else tracked
        references = followed.sample(self.points[:, None])[:, 0]
        return replace(self, look=look, references=references)

    @property
    def seen(self) -> FeatureView:
        """The features, once computed."""
        assert self.look is not None, "an anchor is looked at before it is used"
        return self.look


@dataclass(frozen=True, eq=False)
class State:
    """All that a drag changes.

    moving_ws: the part of the latent that moves, one row per layer, or one for all of them in W.
    first, second, count: Adam's moments and steps. points, targets: (y, x) in pixels. anchor: None
    asks the next step to anchor itself. doubtful: whether the last tracking was; memory: its own.
    told: points that the host has read, and its copy of them.
    """

    moving_ws: Float[Tensor, "1 rows w_dim"]
    first: Float[Tensor, "1 rows w_dim"]
    second: Float[Tensor, "1 rows w_dim"]
    points: Float[Tensor, "n 2"]
    targets: Float[Tensor, "n 2"]
    count: int = 0
    step: int = 0
    anchor: Anchor | None = None
    doubtful: bool = False
    memory: object = None
    told: tuple[Tensor, Tensor] | None = None

    @property
    def places(self) -> Float[Tensor, "n 2"]:
        """The points on the host, without asking the device again for what it has told."""
        if self.told is not None and self.told[0] is self.points:
            return self.told[1]
        # A transfer that waits for the device: only where the points were changed outside the loop.
        return self.points.cpu()

    def fresh_moments(self) -> State:
        """The same with an optimiser that never stepped."""
        zeros = torch.zeros_like(self.moving_ws)
        return replace(self, first=zeros, second=zeros.clone(), count=0)

    def to(self, device: torch.device) -> State:
        """The same on a device; a session that was saved comes back on the CPU."""
        if self.moving_ws.device == self.points.device == device:
            return self
        names = ("moving_ws", "first", "second", "points", "targets")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        anchor = self.anchor
        anchor = anchor and Anchor(anchor.moving_ws.to(device), anchor.points.to(device))
        return replace(self, anchor=anchor, memory=None, told=None, **moved)

    def light(self) -> State:
        """The same without its anchor's features, which can be computed again, and pictures."""
        anchor = self.anchor and Anchor(self.anchor.moving_ws, self.anchor.points)
        return replace(self, anchor=anchor, memory=None, told=None)


@dataclass(frozen=True, eq=False)
class Findings:
    """What a step saw, before it moved anything.

    moving_ws: the latent that was measured. points, left and motion are on the host. motion: the
    term of each handle, NaN where it was not pulled.
    reached: whether all handles are near enough. left: pixels to the targets.
    """

    moving_ws: Float[Tensor, "1 rows w_dim"]
    points: Float[Tensor, "n 2"]
    left: Float[Tensor, " n"]
    motion: Float[Tensor, " n"]
    mask: float
    latent: float
    total: float
    reached: bool
    doubtful: bool


@torch.no_grad()
def packed(
    points: Float[Tensor, "n 2"],
    left: Float[Tensor, " n"],
    motion: Float[Tensor, " n"],
    losses: tuple[Tensor, Tensor, Tensor],
    flags: tuple[Tensor, Tensor, Tensor],
) -> Float[Tensor, " numbers"]:
    """All numbers of a step in one vector: each number asked for by itself would keep a GPU
    waiting.

    losses: mask, latent, total. flags: reached, doubtful, finite.
    """
    singles = torch.stack([one.to(left.dtype) for one in (*losses, *flags)])
    return torch.cat([points.flatten(), left, motion, singles])


def findings(moving_ws: Tensor, numbers: Float[Tensor, " numbers"]) -> tuple[Findings, bool]:
    """What a step packed, on the host by now, and whether the gradient is finite."""
    count = (len(numbers) - 6) // 4
    places, (left, motion) = numbers[: 2 * count], numbers[2 * count : -6].chunk(2)
    mask, latent, total, reached, doubtful, finite = numbers[-6:].tolist()
    found = Findings(
        moving_ws.detach(), places.reshape(-1, 2), left, motion, mask, latent, total,
        bool(reached), bool(doubtful),
    )  # fmt: skip
    return found, bool(finite)
