"""Trains the U-Net and the text encoder of toybox-diffusion together, from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from training.diffusion_networks import UNET, new_scheduler, new_text_encoder, new_unet
from training.learner import Learner, cosine, fit, generator_of
from training.toybox_text import new_tokenizer
from understudy.models.precision import half_precision

RATE, WARM, FLOOR = 1e-3, 400, 0.01
SUBJECT = 3.0  # how much more a cell of the subject counts than one of the background
DROPPED = 0.1  # of captions, for guidance without a classifier
EDGES, ODDS = (0.0, 0.25, 0.8, 1.0), (0.15, 0.55, 0.30)  # of the times drawn, and how often
SEED = 2


@dataclass(frozen=True)
class Examples:
    """What is learnt from, all of it on the device that trains.

    latents: (2, n, c, 16, 16) of the pictures and of their mirror images. masks: (n, 1, 16, 16).
    ids: (n, captions, tokens). empty: (tokens,), the ids of no caption.
    """

    latents: Tensor
    masks: Tensor
    ids: Tensor
    empty: Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, the subjects' masks and token ids of `count` random examples."""
        device = self.latents.device

        def whole(below: int) -> Tensor:
            return torch.randint(below, (count,), device=device, generator=generator)

        index, side, which = whole(len(self.masks)), whole(2), whole(self.ids.shape[1])
        dropped = torch.rand(count, device=device, generator=generator) < DROPPED
        masks = self.masks[index].float()
        masks = torch.where(side.bool()[:, None, None, None], masks.flip(3), masks)
        ids = torch.where(dropped[:, None], self.empty.long(), self.ids[index, which].long())
        return self.latents[side, index].float(), masks, ids


@dataclass(frozen=True)
class Weights:
    """Of the loss. channels: (c,), mean 1. mean: of 1 + SUBJECT * mask over all pictures."""

    channels: Tensor
    mean: float


def weights_of(examples: Examples) -> Weights:
    """A channel counts by the square root of its spread, so that the many faint ones, which noise
    hides at most times, do not drown the few that give colour.
    """
    spread = examples.latents[0, ::10].float().std((0, 2, 3))
    channels = (spread / spread.mean()).sqrt()
    mean = 1 + SUBJECT * float(examples.masks.float().mean())
    return Weights(channels / channels.mean(), mean)


@dataclass(frozen=True)
class Draw:
    """What a step, or a part of it, learns from: see `Examples`; noise as `clean`; times (b,)."""

    clean: Tensor
    masks: Tensor
    ids: Tensor
    noise: Tensor
    times: Tensor

    def split(self, part: int) -> Iterator[Draw]:
        """In parts of at most `part` examples."""
        values = (self.clean, self.masks, self.ids, self.noise, self.times)
        for some in zip(*(value.split(part) for value in values), strict=True):
            yield Draw(*some)


def draw(
    examples: Examples, count: int, size: float, steps: int, generator: torch.Generator
) -> Draw:
    """A batch: latents divided by `size`, and times in [0, steps).

    The noisiest times, where outlines are decided, come up more often than the clean ones, where
    only grain is left to remove.
    """
    clean, masks, ids = examples.draw(count, generator)
    device = clean.device
    noise = torch.randn(clean.shape, device=device, generator=generator)
    edges, odds = (torch.tensor(values, device=device) for values in (EDGES, ODDS))
    edges = edges * steps
    place = torch.multinomial(odds, count, replacement=True, generator=generator)
    within = torch.rand(count, device=device, generator=generator)
    times = (edges[place] + within * (edges[place + 1] - edges[place])).long()
    return Draw(clean / size, masks, ids, noise, times)


def velocity_loss(model: Any, batch: Draw, alphas: Tensor, weights: Weights) -> Tensor:
    """Mean squared error of the predicted velocity (Salimans and Ho, 2022).

    A subject counts four times its background, which is soon learnt.
    """
    clean, noise, times = batch.clean, batch.noise, batch.times
    a, s = (values[times].sqrt()[:, None, None, None] for values in (alphas, 1 - alphas))
    noisy = (a * clean + s * noise).contiguous(memory_format=torch.channels_last)
    half = half_precision(clean.device) is not None
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=half):
        states = model["text_encoder"](batch.ids).last_hidden_state
        guess = model["unet"](noisy, times, states).sample
    error = (guess.float() - (a * noise - s * clean)).square() * (1 + SUBJECT * batch.masks)
    return (error.mean((0, 2, 3)) * weights.channels).mean() / weights.mean


def new_unet_learner(size: float, device: str, sizes: Mapping[str, Any] = UNET) -> Learner:
    """U-Net and text encoder before their first step. size: root mean square of the latents."""
    torch.manual_seed(SEED)
    text_encoder, unet = new_text_encoder(new_tokenizer()), new_unet(sizes)
    torch.nn.init.zeros_(unet.conv_out.weight)
    model = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).to(device)
    unet.to(memory_format=torch.channels_last)
    if device == "cpu":  # materialised maps of 256 tokens are a third quicker than fused
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    return Learner(model, optimizer, size, memory=0.9995)


def train_unet(
    learner: Learner,
    examples: Examples,
    shares: Iterator[float],
    path: Path,
    *,
    batch: int,
    part: int,
) -> None:
    """Train on steps of `batch` examples, computed in parts of `part`, which changes nothing."""
    device, weights = str(examples.latents.device), weights_of(examples)
    alphas = new_scheduler().alphas_cumprod.to(device)

    def losses() -> Iterator[Tensor]:
        generator = generator_of(learner.step, device, SEED)
        whole = draw(examples, batch, learner.size, len(alphas), generator)
        for some in whole.split(part):
            loss = velocity_loss(learner.model, some, alphas, weights)
            yield loss * (len(some.clean) / batch)

    def rate(share: float) -> float:
        return RATE * cosine(share, learner.step, warm=WARM, floor=FLOOR)

    fit(learner, losses, rate, shares, path, batch=batch)
