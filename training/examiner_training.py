"""How the examiner learns: batches of families of look-alikes, a rate by the wall clock.

Loss and optimiser are the recogniser's (`training/recogniser_training.py`). Different are the
network, the pictures, the weights of the negatives (toys of equal colours and pattern count most),
the augmentation (half of the pictures stay sharp), and the schedule: the rate follows the time that
is left, so a run always ends fully annealed, however slow the machine was. Pictures are small at
first (progressive resizing: fastai's entry to DAWNBench, 2018).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from training.examiner_data import MEMBERS
from training.recogniser_examples import OTHER_SIDE, SIZE, Batch, Examples, block_reduced, shrunk
from training.recogniser_training import LIKE, Trainer
from understudy.vision.examiner import ExaminerNetwork

ALIKE = (LIKE, math.log(8.0))  # a negative of the same class counts as 4, of the same look as 8
WARM_UP = 200  # steps
SIDES = ((0.4, 64), (0.7, 96), (1.0, SIZE))  # until this share of the time: pixels a side
TOYS = 2  # of each family in a batch
VIEWS = 2  # of each toy in a batch


def trainer(seed: int = 20_000, rate: float = 3e-3, device: str = "cpu") -> Trainer:
    """A new trainer of an examiner."""
    return Trainer(seed=seed, rate=rate, build=ExaminerNetwork, alike=ALIKE, device=device)


def family_batches(
    groups: Int[Tensor, " n"], generator: torch.Generator, families: int
) -> Iterator[Int[Tensor, " b"]]:
    """One epoch: batches of `families` families, VIEWS views of TOYS toys of each.

    Rows of one group must stand together, as the renders do.
    """
    cuts = torch.nonzero(groups.diff(), as_tuple=True)[0] + 1
    units: dict[int, list[Tensor]] = {}
    for rows in torch.tensor_split(torch.arange(len(groups)), cuts):
        units.setdefault(int(groups[rows[0]]) // MEMBERS, []).append(rows)
    names = list(units)
    shuffled = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
    for start in range(0, len(shuffled) - families + 1, families):
        chosen = [
            rows[torch.randperm(len(rows), generator=generator)[:VIEWS]]
            for name in shuffled[start : start + families]
            for rows in _some(units[name], generator)
        ]
        yield torch.cat(chosen)


def _some(toys: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [toys[i] for i in torch.randperm(len(toys), generator=generator)[:TOYS].tolist()]


def side_at(progress: float) -> int:
    """Pixels a side at this share of the time: small pictures first, four times as quick."""
    return next(side for until, side in SIDES if progress < until or until == 1.0)


def augment(batch: Batch, generator: torch.Generator, side: int = SIZE) -> Batch:
    """Shrink to `side` pixels, then move, zoom, mirror, relight; soften half of the pictures as a
    decoder or a codec would. Points stay in pixels of SIZE."""
    b = len(batch.groups)
    if side != SIZE:
        batch.pictures, batch.masks = (
            F.interpolate(x, size=(side, side), mode="area") for x in (batch.pictures, batch.masks)
        )
    batch.told = batch.told | (torch.rand(b, generator=generator) < 0.2)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    zoom, shift = uniform((b,), 0.86, 1.14), uniform((b, 2), -0.14, 0.14)
    mirrored = torch.rand(b, generator=generator) < 0.5
    moved = _moved(batch, zoom, shift, mirrored)
    pictures, batch.masks = moved[:, :3], (moved[:, 3:] + 1) / 2
    pictures = pictures * uniform((b, 1, 1, 1), 0.88, 1.12) + uniform((b, 3, 1, 1), -0.06, 0.06)
    softest = int(uniform((1,), 52.0, 112.0) * side / SIZE)
    eighth = torch.randperm(b, generator=generator).chunk(8)
    for rows, soften in zip(eighth[:4], (shrunk, block_reduced, shrunk, redrawn), strict=False):
        pictures[rows] = soften(pictures[rows], softest)
    bank = torch.randn((b // 4 + 1, 3, side, side), generator=generator)
    strength = uniform((b, 1, 1, 1), 0.0, 0.06)
    noise = bank[torch.arange(b) % len(bank)]  # noise shared by four pictures teaches as much
    batch.pictures = (pictures + noise * strength).clamp(-1, 1)
    return batch


def _moved(
    batch: Batch, zoom: Float[Tensor, " b"], shift: Float[Tensor, "b 2"], mirrored: Tensor
) -> Float[Tensor, "b 4 h w"]:
    """Pictures and masks (in [-1, 1]) moved; the batch's points move along."""
    b, side = len(zoom), batch.pictures.shape[-1]
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(mirrored, -zoom, zoom), zoom
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [b, 3, side, side], align_corners=False)
    both = torch.cat([batch.pictures, batch.masks * 2 - 1], dim=1)
    moved = F.grid_sample(both, grid, padding_mode="border", align_corners=False)
    centred = batch.points[..., :2] / (SIZE / 2) - 1
    scale = theta.diagonal(dim1=1, dim2=2)[:, None]  # b 1 2
    batch.points[..., :2] = ((centred - shift[:, None]) / scale + 1) * (SIZE / 2)
    batch.points[mirrored] = batch.points[mirrored][:, OTHER_SIDE]
    return moved


def redrawn(pictures: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b 3 h w"]:
    """Coarse errors of colour and shade over a softened picture, as a sampler makes them."""
    soft = shrunk(pictures, side)
    seeded = torch.Generator().manual_seed(side)
    coarse = torch.randn(len(pictures), 3, 16, 16, generator=seeded)
    return soft + 0.06 * F.interpolate(coarse, size=pictures.shape[-2:], mode="bilinear")


@dataclass(frozen=True)
class Step:
    """One step done: its number, the share of the time that is gone, the losses."""

    index: int
    progress: float
    losses: dict[str, float]


def train_until(
    trainer: Trainer,
    read: Callable[[int], Examples],
    *,
    seconds: float,
    families: int = 16,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Step]:
    """Learn until `seconds` of training have passed, those of earlier runs of this trainer
    included. `read(epoch)` gives the pictures, and may give more each time; reading counts.

    Warm-up over WARM_UP steps, then half a cosine over the time.
    """
    before, started = trainer.seconds, clock()
    epoch = 0
    while trainer.seconds < seconds:
        examples = read(epoch)
        epoch += 1
        shuffle = torch.Generator().manual_seed(trainer.seed * 1000 + trainer.index)
        for rows in family_batches(examples.groups, shuffle, families):
            vary = torch.Generator().manual_seed(trainer.seed * 1_000_000 + trainer.index)
            trainer.seconds = before + clock() - started
            if trainer.seconds >= seconds:
                return
            progress = trainer.seconds / seconds
            rate = trainer.rate * min(1.0, (trainer.index + 1) / WARM_UP)
            rate *= 0.5 * (1 + math.cos(math.pi * progress))
            batch = augment(examples.take(rows), vary, side_at(progress))
            parts = trainer.step(batch, rate)
            yield Step(trainer.index, progress, parts)
