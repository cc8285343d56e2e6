"""Handles and targets: parsed, checked, and turned into tensors.

Outside the engine points are (x, y) in pixels of the picture, whole numbers being pixel centres, as
an image viewer shows them; inside they are rows (y, x) of a tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError

Point = tuple[float, float]
Pair = tuple[Point, Point]

_NUMBER = r"\s*([-+]?(?:\d+\.?\d*|\.\d+|nan|inf))\s*"
_PAIR = re.compile(f"{_NUMBER},{_NUMBER}>{_NUMBER},{_NUMBER}", re.IGNORECASE)


def read_pairs(text: str) -> tuple[Pair, ...]:
    """ "64,80>64,95; 40,60>38,50" -> handles with their targets. Raises InputError."""
    pairs: list[Pair] = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        found = _PAIR.fullmatch(part)
        if found is None:
            raise InputError(
                f"--points must be like 64,80>64,95; 40,60>38,50 (x,y of a handle > x,y of its "
                f"target). Got {part!r}."
            )
        x, y, goal_x, goal_y = map(float, found.groups())
        pairs.append(((x, y), (goal_x, goal_y)))
    return tuple(pairs)


def checked_pairs(pairs: Iterable[Pair], size: tuple[int, int]) -> tuple[Pair, ...]:
    """Handles and targets inside a picture of `size` (height, width).

    Raises InputError, naming the point, for one outside or not a number, and for two handles at one
    place that are to go to different ones.
    """
    height, width = size
    found: list[Pair] = []
    for number, (handle, target) in enumerate(pairs, start=1):
        for name, (x, y) in (("handle", handle), ("target", target)):
            if not (math.isfinite(x) and math.isfinite(y)):
                raise InputError(f"The {name} of point {number}, ({x}, {y}), is not a number.")
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                raise InputError(
                    f"The {name} of point {number}, ({x:g}, {y:g}), lies outside the picture. x "
                    f"goes from 0 to {width - 1}, y from 0 to {height - 1}."
                )
        for other, (place, goal) in enumerate(found, start=1):
            if place == handle and goal != target:
                raise InputError(
                    f"Points {other} and {number} both start at ({place[0]:g}, {place[1]:g}) and "
                    "have different targets. Remove one of them."
                )
        found.append((handle, target))
    # The same point twice would count twice in the loss.
    return tuple(dict.fromkeys(found))


def as_xy(points: Float[Tensor, "n 2"]) -> tuple[Point, ...]:
    """(y, x) as a tensor -> (x, y) in plain numbers."""
    return tuple((x, y) for y, x in points.tolist())


def tensor(points: Iterable[Point]) -> Float[Tensor, "n 2"]:
    return torch.tensor([(y, x) for x, y in points], dtype=torch.float32).reshape(-1, 2)


def tensors(pairs: Iterable[Pair]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    pairs = tuple(pairs)
    return tensor(pair[0] for pair in pairs), tensor(pair[1] for pair in pairs)
