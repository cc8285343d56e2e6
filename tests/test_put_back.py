"""project/put_back.py: an edit in its photo again, in its place, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from understudy.project.align import Square, crop_square, cut, face_square, middle
from understudy.project.put_back import put_back

PHOTO = torch.rand(1, 3, 120, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1


def smooth(height: int = 120, width: int = 160) -> Tensor:
    """Waves, slow enough to be sampled."""
    y, x = torch.arange(height)[:, None] / 20, torch.arange(width)[None] / 24
    return torch.stack([(y + x).sin(), (y - x).cos(), (2 * y).sin() * x.cos()])[None] * 0.6


@pytest.mark.parametrize(
    "square",
    [
        crop_square((30, 20, 110, 100), (120, 160)),
        face_square((60, 50), (88, 44), (64, 72), (88, 68)),
        Square((10.0, 10.0), (40.0, 8.0), (-8.0, 40.0)),  # half outside
    ],
)
def test_what_was_cut_out_comes_back_in_its_place(square: Square) -> None:
    # A photo whose negative is cut from the same place: put back, it is the negative inside.
    photo = smooth()
    before, after = (cut(p, square, (96, 96)) for p in (photo, -photo))
    far = (before - after).abs().amax(1) > 0.4  # beyond doubt another colour
    assert bool(far.any())
    made = put_back(photo, before, after, square)
    y, x = torch.meshgrid(torch.arange(120) + 0.5, torch.arange(160) + 0.5, indexing="ij")
    size = square.right[0] ** 2 + square.right[1] ** 2
    dx, dy = x - square.centre[0], y - square.centre[1]
    u, v = (a * dx + b * dy for a, b in (square.right, square.down))
    across = torch.maximum(u.abs(), v.abs()) / size  # 1 at the border of these squares
    assert torch.equal(made[..., across > 1.01], photo[..., across > 1.01])
    inner = (across < 0.9) & ((2 * photo[0]).abs().amax(0) > 0.5)
    assert float((made - -photo)[..., inner].abs().mean()) < 0.02


def test_without_a_change_the_photo_stays_bit_for_bit() -> None:
    square = crop_square((30, 20, 110, 100), (120, 160))
    drawn = cut(PHOTO, square, (32, 32))
    assert torch.equal(put_back(PHOTO, drawn, drawn + 0.02, square), PHOTO)
    away = Square((500.0, 500.0), (20.0, 0.0), (0.0, 20.0))
    assert torch.equal(put_back(PHOTO, drawn, -drawn, away), PHOTO)


def test_only_what_changed_is_replaced_and_small_photos_do_not_alias() -> None:
    square = crop_square((0, 0, 40, 40), (120, 160))
    before = torch.zeros(1, 3, 160, 160)
    after = before.clone()
    after[..., 80:120, 80:120] = torch.tensor([0.9, -0.9]).repeat(20)  # stripes of one pixel
    made = put_back(PHOTO, before, after, square)
    assert torch.equal(made[..., :18, :18], PHOTO[..., :18, :18])
    assert float(made[..., 23:27, 23:27].abs().max()) < 0.2  # stripes average out


def test_the_middle_of_a_photo_is_what_fitting_keeps() -> None:
    wide = middle((120, 160), (64, 64))
    assert (wide.centre, wide.right, wide.down) == ((80, 60), (60, 0), (0, 60))
    tall = middle((200, 100), (64, 64))
    assert (tall.centre, tall.right, tall.down) == ((50, 100), (50, 0), (0, 50))
    assert math.isclose(middle((100, 100), (100, 50)).right[0], 25)


def test_squares_are_told_as_numbers() -> None:
    square = face_square((60, 50), (88, 44), (64, 72), (88, 68))
    assert Square.from_list(square.to_list()) == square
    for wrong in ([1.0, 2.0], [0.0] * 7):
        with pytest.raises(ValueError):
            Square.from_list(wrong)
