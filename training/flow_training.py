"""What toybox-flow learns from and how: examples and loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.flow_networks import read_by_blocks, text_states
from training.toybox_pictures import chunks
from understudy import toybox

PARTS = tuple(dict.fromkeys(p.removeprefix("left ").removeprefix("right ") for p in toybox.POINTS))
"""Key points, left and right as one: a mirror image has the same parts."""
DROPPED = 0.1  # of captions, for guidance without a classifier
DETAIL = 12.0  # pixels; standard deviation of a part's spot
PART_WEIGHT = 3.0


def load_parts(folder: Path, most: int, cells: int) -> Tensor:
    """Where the first subject's parts are, as spots on the image tokens, `cells` a side:
    (n, parts, cells, cells) half."""
    files = chunks(folder, most)
    points = torch.from_numpy(np.concatenate([np.load(path)["points"] for path in files]))[:most]
    centres = (torch.arange(cells) + 0.5) * (128 / cells)
    spots = torch.zeros(len(points), len(PARTS), cells, cells, dtype=torch.float16)
    for number, name in enumerate(toybox.POINTS):
        x, y, visible = points[:, number].unbind(-1)
        far = (centres - y[:, None])[:, :, None] ** 2 + (centres - x[:, None])[:, None] ** 2
        spot = torch.exp(-far / (2 * DETAIL**2)) * (visible > 0.5)[:, None, None]
        part = PARTS.index(name.removeprefix("left ").removeprefix("right "))
        spots[:, part] = torch.maximum(spots[:, part], spot.nan_to_num().half())
    return spots


@dataclass(frozen=True)
class Batch:
    """clean: latents of unit size. masks: share of a cell that shows the subject. parts: see
    `load_parts`. noise, sigma: of the flow."""

    clean: Tensor  # (b, c, 16, 16)
    masks: Tensor  # (b, 1, 16, 16)
    parts: Tensor  # (b, parts, cells, cells)
    ids: Tensor  # (b, WORDS)
    noise: Tensor  # (b, c, 16, 16)
    sigma: Tensor  # (b,)


@dataclass(frozen=True)
class Examples:
    """What is learnt from, all of it on the device that trains.

    latents: (2, n, c, 16, 16) of the pictures and of their mirror images. masks: (n, 1, 16, 16).
    parts: (n, parts, cells, cells). ids: (n, captions, tokens). empty: (tokens,), of no caption.
    """

    latents: Tensor
    masks: Tensor
    parts: Tensor
    ids: Tensor
    empty: Tensor

    def draw(self, count: int, size: float, generator: torch.Generator) -> Batch:
        """Random examples, their latents divided by `size`, each with one of its captions."""
        device = self.latents.device

        def whole(below: int) -> Tensor:
            return torch.randint(below, (count,), device=device, generator=generator)

        index, side, which = whole(len(self.masks)), whole(2), whole(self.ids.shape[1])
        dropped = torch.rand(count, device=device, generator=generator) < DROPPED
        turned = side.bool()[:, None, None, None]
        masks, parts = self.masks[index].float(), self.parts[index].float()
        clean = self.latents[side, index].float() / size
        return Batch(
            clean,
            torch.where(turned, masks.flip(3), masks),
            torch.where(turned, parts.flip(3), parts),
            torch.where(dropped[:, None], self.empty.long(), self.ids[index, which].long()),
            torch.randn(clean.shape, device=device, generator=generator),
            draw_sigmas(count, generator),
        )


def draw_sigmas(count: int, generator: torch.Generator) -> Tensor:
    """80 % logit-normal around 0.6, where outlines are decided; 20 % uniform."""
    device = generator.device
    drawn = torch.sigmoid(torch.randn(count, device=device, generator=generator) + 0.4)
    even, chance = torch.rand(2, count, device=device, generator=generator)
    return torch.where(chance < 0.8, drawn, even)


def flow_loss(
    model: torch.nn.ModuleDict, clip: torch.nn.Module, batch: Batch, channels: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses of each example (b,): of the velocity noise - clean (Esser et al. 2024, eq. 12), and
    of the parts.

    Channels and subjects count as in `unet_training.velocity_loss`. The parts of the
    subject are read off the middle block by a linear layer that only training has: a network that
    must know where they are learns to draw them sooner, as with features of another network in
    REPA (Yu et al. 2024, arXiv:2410.06940).
    """
    clean, noise, share = batch.clean, batch.noise, batch.sigma[:, None, None, None]
    states, pooled = text_states(clip, model["text_encoder_2"], batch.ids)
    noisy = (1 - share) * clean + share * noise
    guess, middle = read_by_blocks(model["transformer"], noisy, batch.sigma, states, pooled)
    where = 1 + 4 * batch.masks
    error = (guess.float() - (noise - clean)).square() * (where / where.mean())
    velocity = (error.mean((2, 3)) * channels).mean(1)
    parts = (model["parts"](middle.float()).transpose(1, 2) - batch.parts.flatten(2)).square()
    return velocity, parts.mean((1, 2))
