"""Reads what `build_toybox_data.py` rendered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from training.toybox_text import TOKENS, new_tokenizer
from understudy import toybox

CELL = 8  # pixels along a side of a latent cell


def chunks(folder: Path, most: int) -> list[Path]:
    """The files of the first `most` pictures, in order. Raises SystemExit where there are none."""
    found = [path for path in sorted(folder.glob("*.npz")) if int(path.stem) < most]
    if not found:
        raise SystemExit(f"{folder} holds no rendered pictures: run training.build_toybox_data.")
    return found


def count_pictures(folder: Path, most: int) -> int:
    """The pictures from number 0 up to the first that is missing, at most `most`."""
    done = 0
    for path in chunks(folder, most):
        if int(path.stem) != done:
            break
        done += len(np.load(path)["scenes"])
    return min(done, most)


def load_pictures(folder: Path, most: int) -> torch.Tensor:
    """(n, 3, 128, 128) uint8, n at most `most`."""
    parts = [np.load(path)["pictures"] for path in chunks(folder, most)]
    return torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2)[:most]


def load_masks(folder: Path, most: int) -> torch.Tensor:
    """Share of each latent cell that shows the first subject, (n, 1, 16, 16)."""
    parts = [torch.from_numpy(np.load(path)["masks"])[:, None] for path in chunks(folder, most)]
    return torch.cat([F.avg_pool2d(part.float() / 255, CELL).half() for part in parts])[:most]


def load_captions(folder: Path, most: int) -> torch.Tensor:
    """Token ids of the captions of each picture, (n, captions, TOKENS) int16."""
    parts: list[torch.Tensor] = []
    tokenizer = new_tokenizer()
    for path in chunks(folder, most):
        texts = np.load(path)["captions"]
        ids = tokenizer(
            [str(text) for text in texts.flat], padding="max_length", max_length=TOKENS,
            truncation=True, return_tensors="pt",
        ).input_ids  # fmt: skip
        parts.append(ids.to(torch.int16).unflatten(0, texts.shape))
    return torch.cat(parts)[:most]


def held_out(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (n, 3, 128, 128) in [-1, 1] of reserved toys, which no training picture shows, and
    masks (n, 1, 128, 128) of the first subject.
    """
    scenes = [toybox.sample_scene(10_000_000 + n, held_out=True) for n in range(count)]
    drawn = [toybox.render(scene) for scene in scenes]
    pictures = torch.from_numpy(np.stack([one.picture for one in drawn])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([one.masks[0] for one in drawn]))[:, None]
    return pictures.float() / 127.5 - 1, masks
