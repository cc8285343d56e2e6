"""Trains the autoencoder of toybox-diffusion, encoder and decoder, and encodes all pictures.

It starts from a linear autoencoder in closed form (`linear_start.py`). The variance of the latents
is a constant.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from training.diffusion_networks import CHANNELS, POSTERIOR_STD, new_autoencoder
from training.learner import Learner, cosine, fit, generator_of
from training.linear_start import linear_start
from training.toybox_pictures import CELL, chunks
from understudy.files.atomic import replacing
from understudy.models.precision import half_precision

RATE, WARM, FLOOR = 1e-3, 100, 0.02
SUBJECT = 2.0  # how much more a pixel of the subject counts than one of the background
NOISE = 0.25  # largest noise in the latents that the decoder sees, as a share of their size
STARTED_ON = 128  # pictures that the linear start is computed from
SEED = 1


@dataclass(frozen=True)
class Pictures:
    """pictures: (n, 3, 128, 128) uint8. masks: (n, 1, 16, 16), share of a cell that is subject."""

    pictures: Tensor
    masks: Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` random pictures in [-1, 1], half of them mirrored, and their masks."""
        device = self.pictures.device
        index = torch.randint(len(self.pictures), (count,), device=device, generator=generator)
        flip = torch.rand(count, device=device, generator=generator) < 0.5
        batch, masks = self.pictures[index].float() / 127.5 - 1, self.masks[index].float()
        flip = flip[:, None, None, None]
        batch = torch.where(flip, batch.flip(3), batch).contiguous(
            memory_format=torch.channels_last
        )
        return batch, torch.where(flip, masks.flip(3), masks)


def mean_latents(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """The means of the latents, without their constant variance."""
    weight, bias = vae.quant_conv.weight[:CHANNELS], vae.quant_conv.bias[:CHANNELS]
    return F.conv2d(vae.encoder(pictures), weight, bias)


def autoencoder_loss(
    vae: Any, batch: Tensor, masks: Tensor, mean_weight: float, generator: torch.Generator
) -> Tensor:
    """Squared and absolute error of the reconstruction, and a pull of the latents to size 1.

    mean_weight: the mean over all pictures of 1 + SUBJECT * mask. Half of the latents get noise of
    up to NOISE of their size beside the posterior's own: a decoder that has seen only perfect
    latents draws each small mistake of the U-Net as a block.
    """
    kind = batch.device.type
    half = half_precision(batch.device) is not None
    with torch.autocast(kind, torch.bfloat16, enabled=half):
        latents = mean_latents(vae, batch)
    latents = latents.float()
    size = latents.square().mean().sqrt()
    chance = torch.rand(len(batch), 1, 1, 1, device=batch.device, generator=generator)
    strength = POSTERIOR_STD + (chance - 0.5).clamp(min=0) * 2 * NOISE
    noise = torch.randn(latents.shape, device=batch.device, generator=generator)
    noisy = latents + strength * size.detach() * noise
    with torch.autocast(kind, torch.bfloat16, enabled=half):
        drawn = vae.decode(noisy.contiguous(memory_format=torch.channels_last)).sample
    error = drawn.float() - batch
    weight = (1 + SUBJECT * F.interpolate(masks, scale_factor=CELL)) / mean_weight
    squared, absolute = (error.square() * weight).mean(), (error.abs() * weight).mean()
    return 2 * squared + 0.25 * absolute + 0.02 * (size - 1).square()


def new_autoencoder_learner(pictures: Tensor | None, device: str) -> Learner:
    """A linear autoencoder of some of the pictures (n, 3, 128, 128) uint8. All of it learns but
    the variance. Without pictures the weights are random: for those of a checkpoint.
    """
    torch.manual_seed(SEED)
    vae = new_autoencoder()
    if pictures is not None:
        some = pictures[:: max(1, len(pictures) // STARTED_ON)][:STARTED_ON].cpu()
        linear_start(vae, some.float() / 127.5 - 1, CHANNELS)
    with torch.no_grad():
        vae.quant_conv.weight[CHANNELS:] = 0
        vae.quant_conv.bias[CHANNELS:] = 2 * math.log(POSTERIOR_STD)
    vae.to(device, memory_format=torch.channels_last)
    vae.quant_conv.requires_grad_(False)
    learning = [value for value in vae.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=RATE, betas=(0.9, 0.98), weight_decay=0, fused=True)
    return Learner(vae, optimizer, memory=0.998, clip=0.5)


def train_autoencoder(
    learner: Learner,
    data: Pictures,
    shares: Iterator[float],
    path: Path,
    *,
    batch: int,
    part: int,
) -> None:
    """Train on steps of `batch` pictures, computed in parts of `part`."""
    device = str(data.pictures.device)
    mean_weight = 1 + SUBJECT * float(data.masks.float().mean())

    def losses() -> Iterator[Tensor]:
        generator = generator_of(learner.step, device, SEED)
        whole = data.draw(batch, generator)
        for pictures, masks in zip(*(value.split(part) for value in whole), strict=True):
            loss = autoencoder_loss(learner.model, pictures, masks, mean_weight, generator)
            yield loss * (len(pictures) / batch)

    def rate(share: float) -> float:
        return RATE * cosine(share, learner.step, warm=WARM, floor=FLOOR)

    fit(learner, losses, rate, shares, path, batch=batch)


def averaged_autoencoder(state: dict[str, Tensor]) -> AutoencoderKL:
    vae = new_autoencoder()
    vae.load_state_dict(state)
    return vae.eval().requires_grad_(False)


def psnr(a: Tensor, b: Tensor, weight: Tensor | None = None) -> float:
    """dB, mean over pictures in [-1, 1]; of pixels weighted by (n, 1, h, w), if given."""
    error = (a - b).square().mean(1, keepdim=True)
    weight = torch.ones_like(error) if weight is None else weight
    mean = (error * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-6)
    return float((10 * torch.log10(4 / mean.clamp(min=1e-9))).mean())


@torch.no_grad()
def quality(vae: AutoencoderKL, pictures: Tensor, masks: Tensor) -> dict[str, float]:
    """PSNR in dB of reconstructions: whole picture, and the subject alone."""
    device = next(vae.parameters()).device
    drawn = torch.cat([
        vae.decode(mean_latents(vae, some.to(device))).sample.clamp(-1, 1).cpu()
        for some in pictures.split(32)
    ])  # fmt: skip
    return {"psnr": psnr(drawn, pictures), "psnr_subject": psnr(drawn, pictures, masks)}


@torch.no_grad()
def encode_all(
    data: Path, out: Path, most: int, vae: AutoencoderKL, say: Callable[[int], None] | None = None
) -> Tensor:
    """Latents of all pictures and of their mirror images, (2, n, c, 16, 16), in float16.

    Cached by file in a folder of `out` that is named after the encoder's weights. `say` is called
    with the number of pictures done.
    """
    device = next(vae.parameters()).device
    folder = out / f"latents-{digest(vae)}"
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Tensor] = []
    done = 0
    for path in chunks(data, most):
        cached = folder / f"{path.stem}.pt"
        if not cached.exists():
            pictures = torch.from_numpy(np.load(path)["pictures"]).permute(0, 3, 1, 2)
            batch = pictures.float() / 127.5 - 1
            both = [
                torch.cat([mean_latents(vae, some.to(device)) for some in side.split(50)])
                for side in (batch, batch.flip(3))
            ]
            with replacing(cached) as staged:
                torch.save(torch.stack(both).half().cpu(), staged)
        parts.append(torch.load(cached))
        done += parts[-1].shape[1]
        if say:
            say(done)
    return torch.cat(parts, dim=1)[:, :most]


def digest(vae: AutoencoderKL) -> str:
    """A name for the weights of the encoder."""
    hashed = hashlib.sha256()
    for name, value in sorted(vae.encoder.state_dict().items()):
        hashed.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:12]
