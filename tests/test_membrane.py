"""membrane.py: an edit agrees with the photo at the border of what is pasted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from understudy.pictures.membrane import REACH, offset
from understudy.pictures.paste import NONE, paste

HEIGHT, WIDTH = 18, 24


def pictures(seed: int, count: int = 1) -> tuple[Tensor, Tensor]:
    """A photo and edits that differ from it by at most 0.2."""
    random = torch.Generator().manual_seed(seed)
    photo = torch.rand(1, 3, HEIGHT, WIDTH, generator=random) - 0.5
    apart = torch.rand(count, 3, HEIGHT, WIDTH, generator=random) - 0.5
    return photo, photo + 0.4 * apart


def plain(photo: Tensor, edited: Tensor, taken: Tensor, most: float) -> np.ndarray:
    """The membrane by a dense solve in float64: one equation for each pixel that is taken."""
    apart = (photo - edited)[0].double().numpy()
    inside = taken[0, 0].numpy()
    like = np.abs(apart).max(0) <= most
    places = list(zip(*np.nonzero(inside), strict=True))
    number = {place: n for n, place in enumerate(places)}
    matrix, right = np.zeros((len(places), len(places))), np.zeros((len(places), 3))
    for (row, column), n in number.items():
        matrix[n, n] = 1 / (REACH * max(inside.shape)) ** 2
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if not (0 <= near[0] < HEIGHT and 0 <= near[1] < WIDTH):
                continue
            if near in number:
                matrix[n, n] += 1
                matrix[n, number[near]] -= 1
            elif like[near]:
                matrix[n, n] += 1
                right[n] += apart[:, near[0], near[1]]
    found = np.zeros((3, HEIGHT, WIDTH))
    for place, value in zip(places, np.linalg.solve(matrix, right), strict=True):
        found[:, place[0], place[1]] = value
    return found


def box(*rows_and_columns: int) -> Tensor:
    top, bottom, left, right = rows_and_columns
    taken = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.bool)
    taken[..., top:bottom, left:right] = True
    return taken


TWO = box(3, 9, 2, 9) | box(8, 15, 8, 20)


@pytest.mark.parametrize("taken", [box(4, 13, 5, 19), box(0, 9, 0, 12), box(0, 18, 6, 15), TWO])
def test_it_is_the_dense_solution(taken: Tensor) -> None:
    photo, edited = pictures(0)
    found = offset(photo, edited, taken, 0.15)[0].numpy()
    assert np.abs(found - plain(photo, edited, taken, 0.15)).max() < 2e-5
    assert not found[:, ~taken[0, 0].numpy()].any()


def test_several_edits_are_solved_each_by_itself() -> None:
    photo, edited = pictures(1, count=3)
    taken = torch.cat([box(4, 13, 5, 19), box(0, 9, 0, 12), torch.zeros_like(box(0, 1, 0, 1))])
    both = offset(photo, edited, taken, 0.2)
    for n in range(3):
        alone = offset(photo, edited[n : n + 1], taken[n : n + 1], 0.2)
        assert torch.allclose(both[n : n + 1], alone, atol=1e-5)
    assert not both[2].any()


def test_it_is_nowhere_larger_than_on_the_border_and_fades() -> None:
    photo = torch.zeros(1, 3, 128, 128)
    edited = torch.full((1, 3, 128, 128), -0.08)
    taken = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    taken[..., 24:104, 24:104] = True
    found = offset(photo, edited, taken, NONE)[0, 0]
    assert found.min() >= 0 and found.max() <= 0.08
    assert found[64, 24] > 0.06
    assert found[64, 64] < 0.001  # the subject in the middle keeps its colours
    ratio = float(found[64, 30] / found[64, 34])
    assert ratio == pytest.approx(np.exp(4 / (REACH * 128)), rel=0.05)


def test_a_border_of_other_content_is_left_out() -> None:
    """A thing beside the mask that the edit damaged does not bleed into it."""
    photo = torch.zeros(1, 3, HEIGHT, WIDTH)
    edited = torch.zeros(1, 3, HEIGHT, WIDTH)
    edited[..., :, 12:] = 0.9
    assert not offset(photo, edited, box(4, 12, 4, 12), NONE).any()
    assert not offset(photo, edited, torch.ones_like(box(0, 1, 0, 1)), NONE).any()  # no border


def test_a_pasted_edit_meets_the_photo_without_a_step() -> None:
    """A background that is drawn 12 of 255 too light: the step was 12, and is below 1.2."""
    photo = torch.zeros(1, 3, 64, 64)
    swapped = torch.full((1, 3, 64, 64), 0.095)
    swapped[..., 26:38, 26:38] = 0.8
    redrawn = torch.full_like(photo, -0.1)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1

    def step(agree: bool) -> tuple[float, Tensor]:
        made = paste(photo, swapped, mask, 0, redrawn, agree=agree)
        outside = mask[0, 0] == 0
        assert torch.equal(made[0][:, outside], photo[0][:, outside])
        return float((made[0, 0, 30, 16] - made[0, 0, 30, 15]).abs()), made

    hard, before = step(False)
    soft, after = step(True)
    assert hard == pytest.approx(0.091, abs=0.01) and soft < 0.1 * hard
    assert torch.allclose(after[..., 28:36, 28:36], before[..., 28:36, 28:36], atol=0.01)
