"""Masks of training photos that come without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import tiny_model
from understudy.errors import InputError
from understudy.learn import photo_masks
from understudy.masks.selection import Selection


def test_a_mask_has_a_rim_and_a_photo_without_the_noun_counts_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = tiny_model()
    asked = list[tuple[Any, ...]]()
    side, _ = model.picture_size
    photos = torch.stack([torch.full((3, side, side), value) for value in (0.5, -0.5)])
    box = torch.zeros(side, side)
    box[10:20, 12:16] = 1

    def find(given: Any, photo: Any, prompt: str, select: Selection) -> Any:
        asked.append((prompt, select, photo.mean()))
        if len(asked) == 2:
            raise InputError("there is no cat in this photo")
        return box.numpy()

    monkeypatch.setattr(photo_masks, "find_mask", find)
    found = photo_masks.found_masks(model, photos, "a photo of a cat", "cat")
    assert [one[:2] for one in asked] == [("a photo of a cat", Selection(("cat",)))] * 2
    assert asked[0][2] > asked[1][2], "each photo is looked at by itself"
    rim = round(photo_masks.RIM * side)
    wide: Tensor = torch.zeros(side, side)
    wide[10 - rim : 20 + rim, 12 - rim : 16 + rim] = 1
    assert rim >= 1 and found.shape == (2, 1, side, side)
    # The rim is round: it lies within the square one, and reaches it on every side.
    assert (found[0, 0] <= wide).all() and (found[0, 0] >= box).all()
    for axis in (0, 1):
        assert torch.equal(found[0, 0].amax(axis), wide.amax(axis))
    assert (found[1] == 1).all()
