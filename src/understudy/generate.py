"""Prompts to pictures. Concepts are applied by the caller; prompts only name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, embedded, spelled
from understudy.diffusion.ddpm import DDPMSchedule
from understudy.diffusion.guidance import Scales, reads_unconditional
from understudy.diffusion.long_prompts import embedded_long, fits
from understudy.diffusion.sampler import (
    AncestralNoise,
    SampleStep,
    drawn,
    noise_streams,
    sample_steps,
    times_of,
)
from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.models.interface import DiffusionModel, scales_for
from understudy.models.samplers import solver_steps
from understudy.settings import GenerateSettings


def generate_steps(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: GenerateSettings | None = None,
    *,
    size: tuple[int, int] | None = None,
    concepts: Sequence[Concept] = (),
    init: Float[Tensor, "1 3 h w"] | None = None,
    variation: tuple[int, float] | None = None,
) -> Iterator[SampleStep]:
    """Denoise one latent per (prompt, seed) pair, a step at a time.

    Prompts that are longer than a CLIP encoder's limit are encoded in chunks.

    Args:
        size: (height, width) in pixels; None = the model's native size, or that of `init`.
        concepts: those that the prompts name, as in "a photo of {rex}"; apply them before.
        init: a picture to start from, with noise added; the last `settings.strength` of the steps
            are done (SDEdit, Meng et al. 2022, arXiv:2108.01073).
        variation: a seed, and the distance of the other seeds' noise from its noise, from 0 to 1.

    Raises:
        InputError: not as many prompts as seeds; a size that does not divide into latents; eta
            with another sampler than ddim; blocks of `pag_layers` that the model does not have.
    """
    settings = settings or GenerateSettings.filled({}, model.name)
    if not prompts or len(prompts) != len(seeds):
        raise InputError(
            f"Expected one seed for each prompt. Got {len(prompts)} prompts, {len(seeds)} seeds."
        )
    steps, sampler, guidance = settings.steps, settings.sampler, settings.guidance
    if settings.eta and sampler != "ddim":
        raise InputError(f"--eta needs --sampler ddim. Got {sampler} and {settings.eta}.")
    scales = drawing_scales(model, settings)
    shape = _latent_shape(model, (init.shape[-2], init.shape[-1]) if init is not None else size)
    latents, streams = _noise(model, seeds, shape, variation)
    with torch.no_grad():
        text, uncond = _texts(model, prompts, settings.negative, guidance, concepts)
        clean = model.encode(init.to(model.device)).expand_as(latents) if init is not None else None
    # At least one step is done, or a low strength would return the photo unchanged.
    first = 0 if clean is None else steps - max(1, round(settings.strength * steps))
    how: dict[str, Any] = {"steps": steps, "guidance": scales, "first": first}
    if sampler != "ddim":
        return solver_steps(model, latents, text, uncond, name=sampler, begin=clean, **how)
    if clean is not None:
        latents = model.schedule.noised(clean, latents, times_of(model, steps, latents)[first])
    noise = AncestralNoise(settings.eta, streams, settings.temperature)
    return sample_steps(model, latents, text, uncond, noise=noise, **how)


def drawing_scales(model: DiffusionModel, settings: GenerateSettings) -> Scales:
    """How the settings guide this model. Raises InputError: see `scales_for`."""
    return scales_for(
        model,
        settings.guidance,
        pag=settings.pag_scale,
        layers=settings.pag_layers,
        rescale=settings.guidance_rescale,
    )


def _noise(
    model: DiffusionModel,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    variation: tuple[int, float] | None,
) -> tuple[Float[Tensor, "b c h w"], list[torch.Generator]]:
    """The first noise of each seed, and the streams of the noise of later steps.

    With a variation the first noise is on the arc from that of its seed to that of each other, and
    later noise is that of its seed.
    """
    streams = noise_streams(seeds)
    latents = drawn(streams, shape, like=model)
    if variation is None:
        return latents, streams
    seed, share = variation
    streams = noise_streams([seed] * len(seeds))
    base = drawn(streams, shape, like=model)
    mixed = arc(base, latents, share)
    same = torch.tensor([one == seed for one in seeds], device=base.device)[:, None, None, None]
    return torch.where(same, base, mixed), streams


def arc(
    start: Float[Tensor, "b c h w"], end: Float[Tensor, "b c h w"], share: float
) -> Float[Tensor, "b c h w"]:
    """Spherical interpolation (Shoemake 1985), so that a mixture of noises is as strong as each."""
    one, other = start.flatten(1), end.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=1).clamp(-0.9999, 0.9999)
    angle = cosine.acos()[:, None]
    mixed = ((1 - share) * angle).sin() * one + (share * angle).sin() * other
    return (mixed / angle.sin()).view_as(start)


def _texts(
    model: DiffusionModel,
    prompts: Sequence[str],
    negative: str,
    guidance: float,
    concepts: Sequence[Concept],
) -> tuple[Text, Text | None]:
    """The embedded prompts, and the negative prompt for each where guidance needs it."""
    wanted = reads_unconditional(model, guidance, negative)
    said = [spelled(prompt, *concepts) for prompt in prompts] if concepts else list(prompts)
    tails = any(concept.tail is not None for concept in concepts)
    long = not all(fits(model, one) for one in (*said, negative))
    if long and not tails and isinstance(model.schedule, DDPMSchedule):
        text, uncond = embedded_long(model, said, [negative])
        return text, uncond.expand(len(text)) if wanted else None
    text = embedded(model, prompts, *concepts) if concepts else model.embed(prompts)
    return text, model.embed([negative]).expand(len(text)) if wanted else None


@torch.no_grad()
def generate(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: GenerateSettings | None = None,
    *,
    size: tuple[int, int] | None = None,
    concepts: Sequence[Concept] = (),
) -> Float[Tensor, "b 3 h w"]:
    """The pictures of prompts, one seed each: float32 RGB in [-1, 1] on the model's device.

    concepts: those that the prompts name, as in "a photo of {rex}"; apply them before.
    """
    settings = settings or GenerateSettings.filled({}, model.name)
    *_, last = generate_steps(
        model,
        prompts,
        seeds,
        settings,
        size=size,
        concepts=concepts,
        variation=(seeds[0], settings.variations) if settings.variations else None,
    )
    return model.decode(last.latents)


def _latent_shape(model: DiffusionModel, size: tuple[int, int] | None) -> tuple[int, int, int]:
    height, width = size or model.picture_size
    if height < 1 or width < 1 or height % model.downscale or width % model.downscale:
        raise InputError(
            f"A picture's height and width must be multiples of {model.downscale} "
            f"for {model.name}. Got {height} x {width}."
        )
    return model.latent_channels, height // model.downscale, width // model.downscale
