"""A face in a photo -> the upright square that face generators were trained on.

The square is told by both eyes and both corners of the mouth (Karras et al. 2018,
arXiv:1710.10196, appendix C). They come from the user, or from a landmark model, which is an extra;
without either, a crop box drawn by hand does. Points and boxes are (x, y) in pixels of the upright
photo, pixel centres at +0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.errors import ExtraMissing, InputError, PictureError, sentence
from understudy.pictures.photo import Pixels

Point = tuple[float, float]
# Of the 68 points of the iBUG annotation: each eye's, and the corners of the mouth.
LEFT_EYE, RIGHT_EYE, MOUTH = slice(36, 42), slice(42, 48), (48, 54)
SMALLEST = 16  # pixels: a face, or a crop, must be at least so large


@dataclass(frozen=True)
class Square:
    """A turned rectangle in a photo: its centre, and the vectors to its right and lower edges."""

    centre: Point
    right: Point
    down: Point

    def to_list(self) -> list[float]:
        """Six numbers, for JSON."""
        return [*self.centre, *self.right, *self.down]

    @classmethod
    def from_list(cls, told: Sequence[float]) -> Square:
        """Of what `to_list` gave. ValueError for anything else."""
        x, y, right_x, right_y, down_x, down_y = (float(number) for number in told)
        return cls((x, y), (right_x, right_y), (down_x, down_y))


def face_square(left_eye: Point, right_eye: Point, left_mouth: Point, right_mouth: Point) -> Square:
    """The square around a face; left and right as seen in the picture.

    Raises InputError where the points do not make a face.
    """
    e0, e1, m0, m1 = (np.array(p) for p in (left_eye, right_eye, left_mouth, right_mouth))
    across = e1 - e0
    down = (m0 + m1) / 2 - (e0 + e1) / 2
    centre = (e0 + e1) / 2 + 0.1 * down
    half = max(4.0 * float(np.hypot(*across)), 3.6 * float(np.hypot(*down))) / 2
    axis = across + np.array([down[1], -down[0]])  # the eyes' line, and the face's turned by 90
    length = float(np.hypot(*axis))
    if not math.isfinite(half) or length < 1e-6 or half < SMALLEST / 2:
        raise InputError(
            f"The eyes {left_eye}, {right_eye} and mouth {left_mouth}, {right_mouth} do not make a "
            "face: expected left eye, right eye; left and right corner of the mouth, in pixels."
        )
    x, y = (float(value) for value in axis / length * half)
    return Square((float(centre[0]), float(centre[1])), (x, y), (-y, x))


def crop_square(box: tuple[float, float, float, float], photo: tuple[int, int]) -> Square:
    """The upright rectangle x0 y0 x1 y1 of a photo of this (height, width).

    Raises InputError for a box that is empty, tiny, or outside the photo.
    """
    x0, y0, x1, y1 = box
    inside = 0 <= x0 and 0 <= y0 and x1 <= photo[1] and y1 <= photo[0]
    if not (inside and x1 - x0 >= SMALLEST and y1 - y0 >= SMALLEST):
        raise InputError(
            f"A crop is x0,y0,x1,y1 within the {photo[1]} x {photo[0]} photo, {SMALLEST} pixels a "
            f"side or more. Got {x0:g},{y0:g},{x1:g},{y1:g}."
        )
    return Square(((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) / 2, 0), (0, (y1 - y0) / 2))


def middle(photo: tuple[int, int], size: tuple[int, int]) -> Square:
    """The largest rectangle in the middle of a photo with the shape of `size`; (height, width)."""
    scale = min(photo[0] / size[0], photo[1] / size[1]) / 2
    centre = (photo[1] / 2, photo[0] / 2)
    return Square(centre, (size[1] * scale, 0.0), (0.0, size[0] * scale))


def cut(
    picture: Float[Tensor, "1 3 h w"], square: Square, size: tuple[int, int]
) -> Float[Tensor, "1 3 h2 w2"]:
    """The square at `size` (height, width), averaged where it shrinks; its surroundings mirrored.

    Sampled at several points a pixel, so that a large photo does not alias.
    """
    height, width = picture.shape[-2:]
    shrink = 2 * max(math.hypot(*square.right) / size[1], math.hypot(*square.down) / size[0])
    finer = max(1, min(8, math.ceil(shrink / 2)))
    rows, columns = size[0] * finer, size[1] * finer
    v = ((torch.arange(rows) + 0.5) / rows * 2 - 1)[:, None]
    u = ((torch.arange(columns) + 0.5) / columns * 2 - 1)[None]
    x = square.centre[0] + u * square.right[0] + v * square.down[0]
    y = square.centre[1] + u * square.right[1] + v * square.down[1]
    grid = torch.stack([x / width * 2 - 1, y / height * 2 - 1], dim=-1)[None].to(picture)
    found = F.grid_sample(
        picture, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return F.avg_pool2d(found, finer)


def find_face(pixels: Pixels, landmarks: Path) -> Square:
    """The largest face of a photo, by dlib's 68-point model in the file `landmarks`.

    Raises ExtraMissing without dlib, InputError for a file that is no such model, PictureError
    where no face is seen.
    """
    try:
        import dlib  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ExtraMissing("faces", "--landmarks") from None
    if not landmarks.is_file():
        raise InputError(f"--landmarks {landmarks} is not a file. Expected dlib's 68-point model.")
    known: Any = dlib
    try:
        finder = known.shape_predictor(str(landmarks))
    except RuntimeError as error:
        raise InputError(
            f"--landmarks {landmarks} is not a landmark model: {sentence(error)}"
        ) from error
    faces = list(known.get_frontal_face_detector()(pixels, 1))
    if not faces:
        raise PictureError("No face was found. Give --eyes and --mouth, or --crop.")
    shape = finder(pixels, max(faces, key=lambda face: face.area()))
    points = np.array([(part.x + 0.5, part.y + 0.5) for part in shape.parts()])
    if len(points) != 68:
        raise InputError(f"--landmarks {landmarks} finds {len(points)} points. Expected 68.")
    eyes = [points[part].mean(axis=0) for part in (LEFT_EYE, RIGHT_EYE)]
    four = [(float(x), float(y)) for x, y in (*eyes, *(points[i] for i in MOUTH))]
    return face_square(four[0], four[1], four[2], four[3])
