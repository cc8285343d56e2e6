"""What the recogniser learns from: rendered scenes with their labels, and how they are varied.

A data set is a folder of renders: pictures.npy (n, 128, 128, 3) uint8, masks.npy (n, 128, 128)
uint8 of the main subject's visible part, keypoints.npy (n, k, 3) float32 with (x, y) in pixels and
1 where visible, NaN where the class lacks the point, and scenes.jsonl with one
{"group": int, "scene": {...}} a line. Scenes of one group show the same main subject.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.evaluate.recogniser import HEADS, SIZE, Vocabulary
from understudy.toybox import vocabulary as words
from understudy.toybox.scene import Scene

TRAITS = len(words.PROPORTIONS) + 6 + 1  # proportions, tint, pattern scale


def vocabulary() -> Vocabulary:
    """The toy world's words, in the order that the labels below use."""
    colours = tuple(words.COLOURS)
    lists = (words.CLASSES, colours, colours, words.PATTERNS, words.ACCESSORIES)
    lists = (*lists, tuple(words.BACKGROUNDS), words.ALL_STANCES)
    return Vocabulary(words=dict(zip(HEADS, lists, strict=True)), points=words.POINTS)


def labels(scene: Scene, spoken: Vocabulary) -> list[int]:
    """The index of the right word for each of HEADS; the main subject is the first."""
    toy, pose = scene.subjects[0].identity, scene.subjects[0].pose
    said = (toy.class_name, toy.primary, toy.secondary, toy.pattern, toy.accessory)
    said = (*said, scene.background.kind, pose.stance)
    return [spoken.words[head].index(word) for head, word in zip(HEADS, said, strict=True)]


def traits(scene: Scene) -> list[float]:
    """The numbers that make the main subject this toy, each scaled to about [-1, 1]."""
    toy = scene.subjects[0].identity
    tint = [10.0 * value for value in toy.tint]
    return [*(2 * p - 1 for p in toy.proportions), *tint, 2 * toy.pattern_scale - 1]


@dataclass(frozen=True)
class Examples:
    """A data set folder in memory, or mapped from disk."""

    pictures: np.ndarray  # n 128 128 3, uint8
    masks: np.ndarray  # n 128 128, uint8
    points: Float[Tensor, "n k 3"]
    labels: Int[Tensor, "n heads"]
    traits: Float[Tensor, "n traits"]
    groups: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.groups)

    @classmethod
    def read(cls, folder: Path, part: slice = slice(None)) -> Examples:
        """The scenes of a folder, or the part of them that a slice names."""
        lines = (folder / "scenes.jsonl").read_text().splitlines()[part]
        records = [json.loads(line) for line in lines]
        scenes = [Scene.from_json(json.dumps(record["scene"])) for record in records]
        spoken = vocabulary()
        return cls(
            pictures=np.load(folder / "pictures.npy", mmap_mode="r")[part],
            masks=np.load(folder / "masks.npy", mmap_mode="r")[part],
            points=torch.from_numpy(np.load(folder / "keypoints.npy")[part].copy()),
            labels=torch.tensor([labels(scene, spoken) for scene in scenes]),
            traits=torch.tensor([traits(scene) for scene in scenes]),
            groups=torch.tensor([int(record["group"]) for record in records]),
        )

    def take(self, rows: Int[Tensor, " b"]) -> Batch:
        """The scenes of these rows as tensors, pictures in [-1, 1], masks 0 or 1."""
        index = np.sort(rows.numpy())
        pictures = torch.from_numpy(self.pictures[index]).permute(0, 3, 1, 2)
        masks = torch.from_numpy(self.masks[index])[:, None]
        rows = torch.from_numpy(index)
        return Batch(
            pictures=pictures.float() / 127.5 - 1,
            masks=(masks > 127).float() if masks.max() > 1 else masks.float(),
            points=self.points[rows].clone(),
            labels=self.labels[rows],
            traits=self.traits[rows],
            groups=self.groups[rows],
        )


@dataclass
class Batch:
    pictures: Float[Tensor, "b 3 128 128"]
    masks: Float[Tensor, "b 1 128 128"]
    points: Float[Tensor, "b k 3"]
    labels: Int[Tensor, "b heads"]
    traits: Float[Tensor, "b traits"]
    groups: Int[Tensor, " b"]


def augment(batch: Batch, generator: torch.Generator) -> Batch:
    """Move, zoom, relight and soften: what a generated picture may do and still be right."""
    b = len(batch.groups)

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    # Zoom by up to 12 % and shift by up to 8 pixels; the points move along.
    zoom, shift = uniform(b, low=0.88, high=1.12), uniform(b, 2, low=-0.125, high=0.125)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [b, 3, SIZE, SIZE], align_corners=False)
    both = torch.cat([batch.pictures, batch.masks * 2 - 1], dim=1)
    moved = F.grid_sample(both, grid, padding_mode="border", align_corners=False)
    centred = batch.points[..., :2] / (SIZE / 2) - 1
    batch.points[..., :2] = ((centred - shift[:, None]) / zoom[:, None, None] + 1) * (SIZE / 2)
    # Light, then one of four degradations for each quarter of the batch, then a little noise.
    pictures, batch.masks = moved[:, :3], (moved[:, 3:] + 1) / 2
    pictures = pictures * uniform(b, 1, 1, 1, low=0.88, high=1.12)
    pictures = pictures + uniform(b, 3, 1, 1, low=-0.06, high=0.06)
    for quarter, soften in enumerate((sharp, shrunk, block_reduced, shrunk)):
        side = int(uniform(1, low=52, high=112))
        pictures[quarter::4] = soften(pictures[quarter::4], side)
    noise = torch.randn(pictures.shape, generator=generator)
    batch.pictures = (pictures + noise * uniform(b, 1, 1, 1, low=0, high=0.06)).clamp(-1, 1)
    return batch


def sharp(pictures: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b 3 h w"]:
    return pictures


def shrunk(pictures: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b 3 h w"]:
    """Through a smaller picture and back: the blur of a small decoder."""
    small = F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True)
    return F.interpolate(small, size=pictures.shape[-2:], mode="bilinear")


def block_reduced(pictures: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b 3 h w"]:
    """Keep the slow half of each 8x8 block's cosines: the blocks of a coarse latent."""
    n = torch.arange(8)
    basis = torch.cos(math.pi / 8 * (n[None] + 0.5) * n[:, None]) / 2
    basis[0] /= math.sqrt(2)
    keep = ((n[:, None] + n[None]) < 3 + side // 26).float()
    blocks = pictures.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))  # b 3 h 8 w 8
    slow = torch.einsum("iy,bchywx,jx->bchiwj", basis, blocks, basis) * keep[:, None]
    return torch.einsum("iy,bchiwj,jx->bchywx", basis, slow, basis).reshape(pictures.shape)


def order(
    groups: Int[Tensor, " n"], generator: torch.Generator, batch: int
) -> Iterator[Int[Tensor, " b"]]:
    """One epoch of batches that keep the views of a group together."""
    cuts = torch.nonzero(groups.diff(), as_tuple=True)[0] + 1
    units = torch.tensor_split(torch.arange(len(groups)), cuts)
    shuffled = [units[i] for i in torch.randperm(len(units), generator=generator).tolist()]
    yield from (rows for rows in torch.cat(shuffled).split(batch) if len(rows) == batch)
