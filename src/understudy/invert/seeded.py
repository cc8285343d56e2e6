"""The generated picture of a seed and a prompt as the source of edits.

Nothing is inverted. The picture is sampled once, by DDIM with guidance (Song et al. 2020,
arXiv:2010.02502), and its latents are kept, so that an edit starts from the same noise and runs
beside the same path (as Photoswap and prompt-to-prompt do with synthetic pictures).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from understudy.diffusion.sampler import sample_steps, starting_noise, times_of
from understudy.invert.inversion import Inversion, InvertStep, digest
from understudy.invert.keeping import keeping, nothing
from understudy.invert.source import Parts, SourceFeatures
from understudy.models.interface import DiffusionModel


@torch.no_grad()
def seeded_steps(
    model: DiffusionModel,
    prompt: str,
    seed: int,
    *,
    steps: int = 50,
    guidance: float = 7.5,
    size: tuple[int, int] | None = None,
    features: SourceFeatures | None = None,
    parts: Callable[[int], Parts] = nothing,
) -> Iterator[InvertStep]:
    """Sample the source of a seed, one step at a time; the last step carries it as an `Inversion`.

    Args:
        size: height and width in pixels; None = the model's own.
        features, parts: where to keep what edits will read in each step, and what that is.
    """
    height, width = size or model.picture_size
    shape = (model.latent_channels, height // model.downscale, width // model.downscale)
    noise = starting_noise([seed], shape, like=model)
    if features is not None:
        features.forget()

    def control_at(index: int):
        # Rows of the sampler's call: unconditional first, then conditional; guidance 1 has the
        # conditional row alone.
        rows = {"cond": 0} if guidance == 1 else {"cond": 1, "uncond": 0}
        return keeping(features, index, parts(index), **rows)

    walked = [noise]
    sampled = sample_steps(
        model,
        noise,
        model.embed([prompt]),
        model.embed([""]),
        steps=steps,
        guidance=guidance,
        control_at=control_at,
    )
    for step in sampled:
        walked.append(step.latents)
        if features is not None:
            features.close_step(step.index, parts(step.index))
        made = None
        if step.index == steps - 1:
            made = Inversion(
                method="seed",
                prompt=prompt,
                model=model.name,
                fingerprint=model.fingerprint,
                guidance=guidance,
                times=times_of(model, steps, noise),
                picture=digest(noise),
                # The two ends only: the latents in between are in `replay`.
                trajectory=torch.cat([step.latents, noise]),
                replay=torch.cat(walked),
            )
            if features is not None:
                features.adopt(made)
        yield InvertStep(step.index, steps, step.time, step.latents, inversion=made)
