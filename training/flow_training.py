"""What toybox-flow learns from and how: examples, loss, optimiser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.flow_networks import T5_LONG, T5_SHORT, WORDS, text_states
from training.toybox_pictures import chunks
from training.toybox_text import random_caption
from understudy import toybox

PARTS = tuple(dict.fromkeys(p.removeprefix("left ").removeprefix("right ") for p in toybox.POINTS))
"""Key points, left and right as one: a mirror image has the same parts."""
CELL = 16  # pixels along a side of an image token at patch 2
DROPPED = 0.1  # of captions, for guidance without a classifier
DETAIL = 12.0  # pixels; standard deviation of a part's spot


def load_parts(folder: Path, most: int) -> torch.Tensor:
    """Where the first subject's parts are, as spots on the image tokens: (n, parts, 8, 8) half."""
    files = chunks(folder, most)
    points = torch.from_numpy(np.concatenate([np.load(path)["points"] for path in files]))[:most]
    centres = (torch.arange(128 // CELL) + 0.5) * CELL
    spots = torch.zeros(len(points), len(PARTS), len(centres), len(centres))
    for number, name in enumerate(toybox.POINTS):
        x, y, visible = points[:, number].unbind(-1)
        far = (centres - y[:, None])[:, :, None] ** 2 + (centres - x[:, None])[:, None] ** 2
        spot = torch.exp(-far / (2 * DETAIL**2)) * (visible > 0.5)[:, None, None]
        part = PARTS.index(name.removeprefix("left ").removeprefix("right "))
        spots[:, part] = torch.maximum(spots[:, part], spot.nan_to_num())
    return spots.half()


@dataclass(frozen=True)
class Batch:
    """clean: latents. masks: share of a cell that shows the subject. parts: see `load_parts`."""

    clean: torch.Tensor  # (b, c, 16, 16)
    masks: torch.Tensor  # (b, 1, 16, 16)
    parts: torch.Tensor  # (b, parts, 8, 8)
    ids: torch.Tensor  # (b, WORDS)


@dataclass(frozen=True)
class Examples:
    """Latents of the pictures and of their mirror images, masks, parts and scenes."""

    latents: torch.Tensor  # (2, n, c, 16, 16)
    masks: torch.Tensor  # (n, 1, 16, 16)
    parts: torch.Tensor  # (n, parts, 8, 8)
    scenes: list[toybox.Scene]
    tokenizer: Any

    def draw(self, count: int, rng: np.random.Generator) -> Batch:
        """Random examples, each with one of its many captions."""
        index, side = rng.integers(len(self.scenes), size=count), rng.integers(2, size=count)
        scenes = [self.scenes[i] for i in index]
        texts = ["" if rng.random() < DROPPED else random_caption(one, rng) for one in scenes]
        ids = self.tokenizer(texts, padding="max_length", max_length=WORDS, truncation=True,
                             return_tensors="pt").input_ids  # fmt: skip
        picked, turned = torch.from_numpy(index), torch.from_numpy(side).bool()[:, None, None, None]
        masks, parts = self.masks[picked].float(), self.parts[picked].float()
        return Batch(
            self.latents[torch.from_numpy(side), picked].float(),
            torch.where(turned, masks.flip(3), masks),
            torch.where(turned, parts.flip(3), parts),
            ids,
        )


def draw_sigmas(count: int) -> torch.Tensor:
    """80 % logit-normal around 0.6, where outlines are decided; 20 % uniform."""
    drawn = torch.sigmoid(torch.randn(count) + 0.4)
    return torch.where(torch.rand(count) < 0.8, drawn, torch.rand(count))


def flow_loss(
    model: torch.nn.ModuleDict,
    clip: torch.nn.Module,
    batch: Batch,
    channels: torch.Tensor,
    sigma: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of each example (b,): of the velocity noise - clean (Esser et al. 2024, eq. 12), and
    of the parts.

    Channels and subjects count as in `unet_training.velocity_loss`. The parts of the
    subject are read off the middle block by a linear layer that only training has: a network that
    must know where they are learns to draw them sooner, as with features of another network in
    REPA (Yu et al. 2024, arXiv:2410.06940).
    """
    clean = batch.clean
    noise = torch.randn(clean.shape).to(clean.device)
    share = sigma[:, None, None, None]
    states, pooled = text_states(clip, model["text_encoder_2"], batch.ids)
    seen: list[torch.Tensor] = []
    blocks = model["transformer"].transformer_blocks
    hook = blocks[len(blocks) // 2 - 1].register_forward_hook(lambda _m, _i, o: seen.append(o[1]))
    try:
        guess = model["transformer"](
            hidden_states=(1 - share) * clean + share * noise, timestep=sigma * 1000,
            encoder_hidden_states=states, pooled_projections=pooled, return_dict=False,
        )[0]  # fmt: skip
    finally:
        hook.remove()
    where = 1 + 4 * batch.masks
    error = (guess.float() - (noise - clean)).square() * (where / where.mean())
    velocity = (error.mean((2, 3)) * channels).mean(1)
    parts = (model["parts"](seen[0].float()).transpose(1, 2) - batch.parts.flatten(2)).square()
    return velocity, parts.mean((1, 2))


def set_copies(processor: Any, rng: np.random.Generator) -> None:
    """The number of T5's rows of a step: mostly ours, sometimes the stock pipeline's default."""
    processor.copies = T5_SHORT if rng.random() < 0.8 else T5_LONG


class MuonAndAdamW:
    """Muon for the matrices of the blocks, AdamW for the rest, behind one interface.

    Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982) with updates of AdamW's size.
    """

    def __init__(self, named: Iterable[tuple[str, torch.nn.Parameter]], rate: float) -> None:
        matrices, others = list[torch.nn.Parameter](), list[torch.nn.Parameter]()
        for name, value in named:
            if value.requires_grad:
                inner = "transformer_blocks" in name and value.ndim == 2 and ".norm1" not in name
                (matrices if inner else others).append(value)
        self.parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.01,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.01),
        )  # fmt: skip

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, part in enumerate(self.parts):
            part.load_state_dict(state[str(number)])
