"""Point tracking: nearest features in a window around each handle (DragGAN, section 3.2).

A tracker is an argument of the drag: anything that answers `track` may stand in for the nearest
feature, for instance optical flow between the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.drag.region import FeatureView, constants

TINY = 1e-12
AT_ONCE = 16  # points whose windows are compared at once, to bound memory


@dataclass(frozen=True, eq=False)
class Tracks:
    """Where points are now, (y, x) in pixels, and how far each one's features are from its own.

    unsure: points whose features are too far from the reference to be believed. memory: what the
    tracker wants to see again in the next step.
    """

    points: Float[Tensor, "n 2"]
    distances: Float[Tensor, " n"]
    unsure: Bool[Tensor, " n"]
    memory: object = None


@dataclass(frozen=True, eq=False)
class Sight:
    """What a tracker may look at in a step.

    look: features around the points as they were, without gradients. references: features of the
    points where they were anchored. picture: draws the picture of now, for trackers that see; no
    picture is drawn unless it is asked for. memory: what the tracker kept in the step before; None
    in the first, and after points were moved by hand.
    """

    look: FeatureView
    references: Float[Tensor, "n c"]
    picture: Callable[[], Float[Tensor, "1 3 h w"]]
    memory: object = None


@runtime_checkable
class Tracker(Protocol):
    """Follows points from one step to the next. radius: how far one may move, in pixels."""

    def track(self, sight: Sight, points: Float[Tensor, "n 2"], radius: int) -> Tracks: ...


@dataclass(frozen=True)
class FeatureTracker:
    """The nearest feature, in the first row and column that has it.

    norm: of feature differences. window: whether pixels exactly `radius` away belong to it.
    subpixel: refine the nearest pixel by the slopes of the features around it.
    doubt: distance over norm of the reference above which a point is unsure; 0: never.
    """

    norm: Literal["l2", "l1"] = "l2"
    window: Literal["closed", "open"] = "closed"
    subpixel: bool = False
    doubt: float = 0.0

    @torch.no_grad()
    def track(self, sight: Sight, points: Float[Tensor, "n 2"], radius: int) -> Tracks:
        parts = [
            self._track(sight, points, radius, slice(start, start + AT_ONCE))
            for start in range(0, len(points), AT_ONCE)
        ]
        return Tracks(
            torch.cat([part.points for part in parts]),
            torch.cat([part.distances for part in parts]),
            torch.cat([part.unsure for part in parts]),
        )

    def _track(self, sight: Sight, points: Tensor, radius: int, some: slice) -> Tracks:
        look, references, points = sight.look.only(some), sight.references[some], points[some]
        reach = radius if self.window == "closed" else radius - 1
        steps = torch.arange(-reach, reach + 1, device=points.device, dtype=points.dtype)
        # Windows are centred on whole pixels, so that the candidates are pixel centres.
        centres = points.round()
        window = centres[:, None] + steps[:, None]  # (n, r, axis): rows, and columns
        apart = look.pixels(window) - references[:, :, None, None]
        order = 1 if self.norm == "l1" else 2
        # Eq. 2 of the paper: nearest in feature space within Omega_2(p, r2).
        distances = torch.linalg.vector_norm(apart, ord=order, dim=1)  # (n, r, r)
        # Outside the picture features are zeros, which may be nearer than any real feature.
        within = look.inside(window)
        inside = within[:, :, None, 0] & within[:, None, :, 1]
        distances = distances.masked_fill(~inside, torch.inf)
        # The first minimum in reading order, as argmin of the published program takes it.
        best = distances.flatten(1).argmin(dim=1)
        found = centres + steps[torch.stack([best // len(steps), best % len(steps)], dim=1)]
        nearest = distances.flatten(1).gather(1, best[:, None])[:, 0]
        if self.subpixel:
            found = found + _between(look, references, found)
        # The distance is judged relative to the feature's own length, which differs between layers.
        size = torch.linalg.vector_norm(references, ord=order, dim=1)
        unsure = (
            nearest > self.doubt * size if self.doubt else torch.zeros_like(best, dtype=torch.bool)
        )
        return Tracks(found, nearest, unsure)


def _between(look: FeatureView, references: Tensor, points: Tensor) -> Float[Tensor, "n 2"]:
    """One Gauss-Newton step from the nearest pixels towards the reference, at most a pixel.

    Lucas & Kanade 1981: the features' slopes tell how far between pixels the handle lies.
    """
    sides = constants(look.grid, points.device, points.dtype)[2]
    unit = torch.eye(2, dtype=points.dtype, device=points.device)
    # Central differences, one-sided at the edge of the picture.
    after = torch.minimum(points[:, None] + unit, sides)  # (n, axis, 2)
    before = (points[:, None] - unit).clamp(min=0)
    apart = (after - before).abs().sum(dim=2)[..., None]
    slopes = (look.sample(after) - look.sample(before)) / apart  # (n, axis, c)
    missing = references - look.sample(points[:, None])[:, 0]
    # The normal equations of the two-dimensional least-squares problem, slightly damped: flat
    # features have no slope to solve by.
    normal = slopes @ slopes.transpose(1, 2)
    steep = normal.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    normal = normal + (1e-6 * steep + TINY) * unit
    wanted = (slopes @ missing[..., None])[..., 0]
    return _solved(normal, wanted).clamp(-1, 1)


def _solved(normal: Float[Tensor, "n 2 2"], wanted: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """normal^-1 wanted, by Cramer's rule: torch.linalg.solve would make the host wait, to look for
    singular matrices."""
    (a, b), (c, d) = (row.unbind(1) for row in normal.unbind(1))
    y, x = wanted.unbind(1)
    return torch.stack([d * y - b * x, a * x - c * y], dim=1) / (a * d - b * c)[:, None]
