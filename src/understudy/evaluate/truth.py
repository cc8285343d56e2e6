"""Known facts of a rendered scene as tensors, for measurements.

Knows the toy world and its pictures; knows no models and no edits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy import toybox
from understudy.pictures.tensors import grown, to_mask, to_tensor
from understudy.toybox import Scene

MARGIN = 2  # pixels about a changed region that count as changed, too


@dataclass(frozen=True)
class Shown:
    """A scene, its picture, and where one of its subjects is.

    mask: the visible part of the subject; points: (x, y) in pixels of toybox.POINTS, 0 where the
    class lacks the point; visible: which of them are seen.
    """

    scene: Scene
    picture: Float[Tensor, "1 3 h w"]
    mask: Float[Tensor, "1 1 h w"]
    points: Float[Tensor, "1 k 2"]
    visible: Bool[Tensor, "1 k"]


def shown(scene: Scene, size: int | tuple[int, int] = 128, subject: int = 0) -> Shown:
    """Render a scene and tell what is known of a subject."""
    drawn = toybox.render(scene, size)
    points = torch.zeros(1, len(toybox.POINTS), 2)
    visible = torch.zeros(1, len(toybox.POINTS), dtype=torch.bool)
    for name, point in drawn.keypoints[subject].items():
        place = toybox.POINTS.index(name)
        points[0, place] = torch.tensor([point.x, point.y])
        visible[0, place] = point.visible
    return Shown(scene, to_tensor(drawn.picture), to_mask(drawn.masks[subject]), points, visible)


def pictures(
    scenes: Sequence[Scene], size: int | tuple[int, int] = 128
) -> Float[Tensor, "n 3 h w"]:
    """Scenes rendered alike."""
    return torch.cat([to_tensor(toybox.render(scene, size).picture) for scene in scenes])


def changed(
    source: Scene, right: Scene, size: int | tuple[int, int] = 128, subject: int = 0
) -> Float[Tensor, "1 1 h w"]:
    """Where a scene and its right answer may differ: both toys, their shadows, a small margin."""
    regions = [toybox.influence(scene, subject, size) for scene in (source, right)]
    region = to_mask(np.logical_or(*regions).astype(np.float32))
    return grown(region, MARGIN)
