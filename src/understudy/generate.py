"""Prompts to pictures. Concepts are applied by the caller; prompts only name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, embedded
from understudy.diffusion.guidance import reads_unconditional
from understudy.diffusion.sampler import SampleStep, drawn, noise_streams, sample_steps
from understudy.errors import InputError
from understudy.models.interface import DiffusionModel
from understudy.settings import GenerateSettings


def generate_steps(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 50,
    guidance: float = 7.5,
    negative: str = "",
    eta: float = 0.0,
    temperature: float = 1.0,
    size: tuple[int, int] | None = None,
    concepts: Sequence[Concept] = (),
) -> Iterator[SampleStep]:
    """Denoise one latent per (prompt, seed) pair; a SampleStep each step.

    eta is the share of fresh noise a step adds (0 is DDIM, 1 ancestral sampling), which temperature
    scales. size is (height, width) in pixels, the model's native size when None. Raises InputError
    when there are not as many prompts as seeds, or the size does not divide into latents.
    concepts: those that the prompts name, as in "a photo of {rex}"; apply them before.
    """
    if not prompts or len(prompts) != len(seeds):
        raise InputError(
            f"Wanted one seed for each prompt. Got {len(prompts)} prompts, {len(seeds)} seeds."
        )
    streams = noise_streams(seeds)
    latents = drawn(streams, _latent_shape(model, size), like=model)
    with torch.no_grad():
        text = embedded(model, prompts, *concepts) if concepts else model.embed(prompts)
        wanted = reads_unconditional(model, guidance, negative)
        uncond = model.embed([negative]).expand(len(text)) if wanted else None
    return sample_steps(
        model,
        latents,
        text,
        uncond,
        steps=steps,
        guidance=guidance,
        eta=eta,
        temperature=temperature,
        streams=streams,
    )


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
        steps=settings.steps,
        guidance=settings.guidance,
        negative=settings.negative,
        eta=settings.eta,
        temperature=settings.temperature,
        size=size,
        concepts=concepts,
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
