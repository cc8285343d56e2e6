"""Draws the new subject once more, from the swapped picture and fresh noise.

The source's attention holds the pose, and with it some of the old subject's outline and texture:
what comes out is blurred. The last steps are therefore repeated, inside the mask alone: noise
is added to the swapped latents, and the target prompt removes it without any attention of the
source (SDEdit, Meng et al. 2022, arXiv:2108.01073). Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.guidance import reads_unconditional
from understudy.diffusion.sampler import advance, guided_output, starting_noise
from understudy.diffusion.text import Text
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.transfer.blend import blended
from understudy.transfer.source_target import Target
from understudy.transfer.step import FreshNoise, StochasticNoise, SwapStep

AGAIN = 2_000_003  # added to the swap's seed for the noise of this stage


def refine_count(settings: SwapSettings) -> int:
    """How many steps are repeated."""
    wanted = settings.refine_steps
    count = round(wanted * settings.steps) if isinstance(wanted, float) else wanted
    return min(count, settings.steps)


@torch.no_grad()
def refined_steps(
    model: DiffusionModel,
    swapped: SwapStep,
    targets: Sequence[Target],
    clean: Float[Tensor, "1 c h w"] | None,
    times: Sequence[float],
    settings: SwapSettings,
    *,
    noises: int = 1,
) -> Iterator[SwapStep]:
    """Repeat the last steps of a swap, a step at a time.

    Args:
        swapped: the last step of the swap, with the mask of what may change; None = everything.
        targets: of the step's k rows.
        clean: the photo's latents, kept outside the mask; None goes with no mask.
        times: the steps + 1 times of the swap, from noise to clean.
        noises: how many times each row is drawn, with other noise. The rows of one target follow
            each other, and carry its number in `SwapStep.targets`.
    """
    count = refine_count(settings)
    step = swapped.rows([row for row in range(len(targets)) for _ in range(noises)])
    rows, shape = range(len(step.target)), step.target.shape[1:]
    text = Text.cat([_text(model, target) for target in targets for _ in range(noises)])
    guides = reads_unconditional(model, settings.guidance)
    uncond = Text.cat([model.embed([""])] * len(rows)) if guides else None
    seeds = [settings.noise_seed + AGAIN + number for number in range(2 * noises)]
    first, later = (tuple(part) * len(targets) for part in (seeds[:noises], seeds[noises:]))
    noise = starting_noise(first, (shape[0], shape[1], shape[2]), like=model)
    latents = model.schedule.noised(step.target, noise, times[-count - 1])
    fresh = FreshNoise(StochasticNoise(settings.eta, settings.temperature, first[0], later))
    for index, (start, end) in enumerate(pairwise(times[-count - 1 :])):
        before, last = model.nfe, index == count - 1
        output = guided_output(model, latents, start, text, uncond, settings.guidance)
        found, _ = model.schedule.denoised(latents, output, start)
        if last:
            latents = advance(model.schedule, latents, output, start, end)
        else:
            noise, eta = fresh.next(rows, shape, model), settings.eta
            latents = advance(model.schedule, latents, output, start, end, eta=eta, fresh=noise)
        if step.mask is not None and clean is not None:
            kept = clean if last else fresh.noised(clean, end, model)
            latents = blended(kept, latents, step.mask)
        yield replace(
            step,
            index=settings.steps + index,
            total=settings.steps + count,
            time=start,
            target=latents,
            clean=found,
            nfe=model.nfe - before,
        )


def _text(model: DiffusionModel, target: Target) -> Text:
    # One prompt a call: an embedding must not depend on its neighbours, not even by rounding.
    return model.embed([target.prompt]) if target.text is None else target.text
