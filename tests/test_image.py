"""Pictures, masks and points as tensors and back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import pictures
from understudy.errors import InputError, PictureError
from understudy.pictures import tensors


def test_pixels_to_tensor_and_back_are_exact() -> None:
    levels = np.arange(256, dtype=np.uint8)
    pixels = np.stack([levels.reshape(16, 16)] * 3, axis=2)
    tensor = tensors.to_tensor(pixels)
    assert tensor.shape == (1, 3, 16, 16) and tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1
    assert np.array_equal(tensors.to_pixels(tensor), pixels)


def test_out_of_range_is_clamped() -> None:
    wild = torch.full((1, 3, 16, 16), 7.0)
    assert (tensors.to_pixels(wild) == 255).all() and (tensors.to_pixels(-wild) == 0).all()


def test_read_picture_fits_the_model(tmp_path: Path) -> None:
    path = pictures.save(tmp_path / "a.png")
    assert tensors.read_picture(path).shape == (1, 3, 48, 64)
    assert tensors.read_picture(path, (32, 32)).shape == (1, 3, 32, 32)


def test_read_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name, level in (("b.png", 200), ("a.png", 100)):
        pictures.save(tmp_path / name, np.full((20, 30, 3), level, np.uint8))
    (tmp_path / "readme.md").write_text("x")
    batch, folder = tensors.read_folder(tmp_path, (16, 16))
    assert batch.shape == (2, 3, 16, 16)
    assert batch[0].mean() < batch[1].mean()
    assert "readme.md" in folder.notes[0]


def test_write_picture_and_what_it_refuses(tmp_path: Path) -> None:
    picture = tensors.to_tensor(pictures.gradient())
    path = tensors.write_picture(tmp_path / "a.png", picture, {"k": "v"})
    assert torch.equal(tensors.read_picture(path), picture)
    with pytest.raises(InputError, match="not finite"):
        tensors.write_picture(tmp_path / "b.png", picture * math.nan)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_masks_follow_their_photo(tmp_path: Path) -> None:
    white = np.zeros((40, 80, 3), dtype=np.uint8)
    white[:, 40:] = 255
    path = pictures.save(tmp_path / "mask.png", white)
    mask = tensors.read_mask(path, (40, 80), (20, 20))
    assert mask.shape == (1, 1, 20, 20)
    assert mask[..., :9].max() < 0.1 and mask[..., 11:].min() > 0.9
    with pytest.raises(PictureError, match="80 x 40 pixels, but its photo has 64 x 64"):
        tensors.read_mask(path, (64, 64), (20, 20))
    empty = pictures.save(tmp_path / "empty.png", white * 0)
    with pytest.raises(PictureError, match="black everywhere"):
        tensors.read_mask(empty, (40, 80), (20, 20))


def test_to_mask() -> None:
    assert tensors.to_mask(np.ones((3, 4))).shape == (1, 1, 3, 4)
