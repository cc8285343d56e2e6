"""DreamBooth (Ruiz et al. 2023, arXiv:2208.12242): all weights learn "a photo of a sks cat".

Every layer of the U-Net, and the text encoder, train on the photos under the subject's prompt and,
in the same forward pass, on the frozen model's own samples of the class under the class prompt.
Photos pass the autoencoder once: their latents' mean and spread are kept, and drawn from anew at
every step. This module does not know how steps are taken nor where class samples come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.concept import replace_weights
from understudy.learn.training import Rows
from understudy.models.interface import DiffusionModel

ENCODE_BATCH = 8


@dataclass(frozen=True)
class LatentBank:
    """Encoded pictures, to draw from as often as wanted without encoding again.

    mean, std: of each picture's latents, times the scaling factor. std None: no spread.
    """

    mean: Float[Tensor, "n c h w"]
    std: Float[Tensor, "n c h w"] | None = None

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "count c h w"]:
        """Latents of `count` pictures chosen at random, with replacement."""
        which = torch.randint(len(self.mean), (count,), generator=generator).to(self.mean.device)
        if self.std is None:
            return self.mean[which]
        spread = torch.randn(count, *self.mean.shape[1:], generator=generator)
        return self.mean[which] + self.std[which] * spread.to(self.mean)


@dataclass(frozen=True)
class Prior:
    """The class: its prompt, its latents, and the weight of its part of the loss (lambda)."""

    prompt: str
    latents: LatentBank
    weight: float = 1.0


@dataclass(frozen=True)
class DreamBooth:
    """Draws the rows of each step: `batch_size` of the photos, then as many of the class.

    train_text: whether gradients flow into the text encoder.
    """

    model: DiffusionModel
    photos: LatentBank
    prompt: str
    prior: Prior | None
    batch_size: int
    train_text: bool
    generator: torch.Generator

    def draw(self) -> Rows:
        """The rows of one step. The order of random draws is part of what a seed means."""
        count, generator = self.batch_size, self.generator
        latents = [self.photos.draw(count, generator)]
        parts = [(count, 1.0)]
        if self.prior is not None:
            latents.append(self.prior.latents.draw(count, generator))
            parts.append((count, self.prior.weight))
        clean = torch.cat(latents)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        length = self.model.schedule.length
        times = torch.randint(length, (len(clean),), generator=generator)
        return Rows(clean, noise, times.to(clean.device), self._text(), tuple(parts))

    def _text(self) -> Float[Tensor, "r tokens width"]:
        """The text of every row: each prompt passes the text encoder once a step."""
        prompts = [self.prompt] if self.prior is None else [self.prompt, self.prior.prompt]
        with torch.set_grad_enabled(self.train_text):
            text = self.model.embed(prompts)
        return text.repeat_interleave(self.batch_size, dim=0)


@torch.no_grad()
def encode_photos(
    model: DiffusionModel, photos: Float[Tensor, "n 3 h w"], *, flip: bool = False
) -> LatentBank:
    """The photos' latents, and with `flip` those of their mirror images, as n or 2n pictures."""
    pictures = torch.cat([photos, photos.flip(-1)]) if flip else photos
    batches = [model.posterior(batch.to(model.device)) for batch in pictures.split(ENCODE_BATCH)]
    wide = torch.promote_types(model.dtype, torch.float32)
    mean, std = (torch.cat(parts).to(wide) for parts in zip(*batches, strict=True))
    return LatentBank(mean, std)


def trainable(
    parameters: Mapping[str, nn.Parameter], parts: Sequence[str]
) -> dict[str, nn.Parameter]:
    """Ready the parameters of `parts` ("unet", "text_encoder") for training, and return them.

    They become copies, in float32 at least; all others stand still. The caller lends the parameters
    with `concept.untouched`, which puts everything back.
    """
    chosen: dict[str, nn.Parameter] = {}
    for name, parameter in parameters.items():
        parameter.grad = None
        parameter.requires_grad_(name.split(".")[0] in parts)
        if parameter.requires_grad:
            wide = torch.promote_types(parameter.dtype, torch.float32)
            replace_weights(parameter, parameter.data.to(wide))
            chosen[name] = parameter
    return chosen


def changes(
    trained: Mapping[str, nn.Parameter], originals: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What training added to each weight, float16 on the CPU; without weights it left alone."""
    added: dict[str, Tensor] = {}
    for name, parameter in trained.items():
        change = (parameter.data - originals[name].to(parameter.dtype)).to("cpu", torch.float16)
        if change.any():
            added[name] = change
    return added
