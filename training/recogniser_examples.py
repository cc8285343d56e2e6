"""What the recogniser learns from: rendered scenes with their labels, and how they are varied.

A file of renders, as `training/build_toybox_data.py` writes them, is an .npz of pictures
(n, 128, 128, 3) uint8, masks (n, 128, 128) uint8 of the main subject's visible part, points
(n, k, 3) float32 with (x, y) in pixels and 1 where visible, NaN where the class lacks the point,
and scenes, a line of JSON {"group": int, "scene": {...}} each. Scenes of one group show one toy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from understudy.toybox import vocabulary as words
from understudy.toybox.render import render
from understudy.toybox.scene import Scene
from understudy.vision.recogniser import HEADS, SIZE, Vocabulary, hint

OTHER_SIDE = [  # where each point's name goes in a mirror
    words.POINTS.index(name.replace("left", "*").replace("right", "left").replace("*", "right"))
    for name in words.POINTS
]
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
    """Renders and their labels in memory: 82 kB a scene."""

    pictures: np.ndarray  # n 128 128 3, uint8
    masks: np.ndarray  # n 128 128, uint8, 255 = the main subject
    points: Float[Tensor, "n k 3"]
    labels: Int[Tensor, "n heads"]
    traits: Float[Tensor, "n traits"]
    groups: Int[Tensor, " n"]
    alone: Bool[Tensor, " n"]  # one subject only; else the picture does not say which is meant

    def __len__(self) -> int:
        return len(self.groups)

    @classmethod
    def read(cls, files: Sequence[Path]) -> Examples:
        """The scenes of some files of renders, in order."""
        parts = [np.load(file) for file in files]
        lines = [json.loads(str(line)) for part in parts for line in part["scenes"]]
        scenes = [Scene.from_json(json.dumps(line["scene"])) for line in lines]
        arrays = [
            np.concatenate([part[n] for part in parts]) for n in ("pictures", "masks", "points")
        ]
        return cls.of(scenes, [int(line["group"]) for line in lines], *arrays)

    @classmethod
    def draw(cls, scenes: Sequence[tuple[Scene, int]]) -> Examples:
        """Scenes with the groups they belong to, rendered now."""
        drawn = [render(scene, SIZE) for scene, _ in scenes]
        points = np.full((len(drawn), len(words.POINTS), 3), np.nan, np.float32)
        for row, rendering in zip(points, drawn, strict=True):
            for name, point in rendering.keypoints[0].items():
                row[words.POINTS.index(name)] = point.x, point.y, point.visible
        masks = np.stack([np.round(255 * one.masks[0]).astype(np.uint8) for one in drawn])
        pictures = np.stack([one.picture for one in drawn])
        return cls.of([s for s, _ in scenes], [g for _, g in scenes], pictures, masks, points)

    @classmethod
    def of(
        cls,
        scenes: Sequence[Scene],
        groups: Sequence[int],
        pictures: np.ndarray,
        masks: np.ndarray,
        points: np.ndarray,
    ) -> Examples:
        spoken = vocabulary()
        return cls(
            pictures=pictures,
            masks=masks,
            points=torch.from_numpy(points),
            labels=torch.tensor([labels(scene, spoken) for scene in scenes]),
            traits=torch.tensor([traits(scene) for scene in scenes]),
            groups=torch.tensor(list(groups)),
            alone=torch.tensor([len(scene.subjects) == 1 for scene in scenes]),
        )

    def with_more(self, other: Examples) -> Examples:
        """These examples, then those of `other`."""
        joined: dict[str, Any] = {}
        for field in fields(self):
            both = getattr(self, field.name), getattr(other, field.name)
            arrays = isinstance(both[0], np.ndarray)
            joined[field.name] = np.concatenate(both) if arrays else torch.cat(both)
        return Examples(**joined)

    def take(self, rows: Int[Tensor, " b"]) -> Batch:
        """The scenes of these rows as tensors, pictures in [-1, 1], masks in [0, 1]."""
        index = np.sort(rows.numpy())
        pictures = torch.from_numpy(self.pictures[index]).permute(0, 3, 1, 2)
        masks = torch.from_numpy(self.masks[index])[:, None]
        rows = torch.from_numpy(index)
        return Batch(
            pictures=pictures.float() / 127.5 - 1,
            masks=masks.float() / 255,
            points=self.points[rows].clone(),
            labels=self.labels[rows],
            traits=self.traits[rows],
            groups=self.groups[rows],
            told=~self.alone[rows],
        )


@dataclass
class Batch:
    pictures: Float[Tensor, "b 3 128 128"]
    masks: Float[Tensor, "b 1 128 128"]
    points: Float[Tensor, "b k 3"]
    labels: Int[Tensor, "b heads"]
    traits: Float[Tensor, "b traits"]
    groups: Int[Tensor, " b"]
    told: Bool[Tensor, " b"]  # whether the network is told where the subject is

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def hints(self) -> Float[Tensor, "b 1 s s"]:
        """Where the subject is, for those that are told; a cell for 8 x 8 pixels."""
        cells = self.pictures.shape[-1] // 8
        hints = F.interpolate(hint(self.masks), size=(cells, cells), mode="area")
        return hints * self.told[:, None, None, None]


def augment(batch: Batch, generator: torch.Generator) -> Batch:
    """Move, zoom, mirror, relight and soften, as a generated picture may and still be right."""
    b = len(batch.groups)
    batch.told = batch.told | (torch.rand(b, generator=generator) < 0.2)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    # Zoom by up to 12 %, shift by up to 8 pixels, mirror half of them; the points move along.
    zoom, shift = uniform((b,), low=0.88, high=1.12), uniform((b, 2), low=-0.125, high=0.125)
    mirrored = torch.rand(b, generator=generator) < 0.5
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(mirrored, -zoom, zoom), zoom
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [b, 3, SIZE, SIZE], align_corners=False)
    both = torch.cat([batch.pictures, batch.masks * 2 - 1], dim=1)
    moved = F.grid_sample(both, grid, padding_mode="border", align_corners=False)
    centred = batch.points[..., :2] / (SIZE / 2) - 1
    scale = theta.diagonal(dim1=1, dim2=2)[:, None]  # b 1 2
    batch.points[..., :2] = ((centred - shift[:, None]) / scale + 1) * (SIZE / 2)
    batch.points[mirrored] = batch.points[mirrored][:, OTHER_SIDE]
    # Light, then one of four degradations for each quarter of the batch, then a little noise.
    pictures, batch.masks = moved[:, :3], (moved[:, 3:] + 1) / 2
    pictures = pictures * uniform((b, 1, 1, 1), low=0.88, high=1.12)
    pictures = pictures + uniform((b, 3, 1, 1), low=-0.06, high=0.06)
    for quarter, soften in enumerate((sharp, shrunk, block_reduced, shrunk)):
        side = int(uniform((1,), low=52.0, high=112.0))
        pictures[quarter::4] = soften(pictures[quarter::4], side)
    noise = torch.randn(pictures.shape, generator=generator)
    batch.pictures = (pictures + noise * uniform((b, 1, 1, 1), low=0.0, high=0.06)).clamp(-1, 1)
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
