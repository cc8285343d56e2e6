"""Draws the new subject once more, from the swapped picture and fresh noise.

The source's self-attention holds the pose, and with it some of the old subject's outline and
texture: what comes out is blurred. The last steps are therefore repeated, inside the mask alone:
noise is added to the swapped latents, and the target prompt removes it (SDEdit, Meng et al. 2022,
arXiv:2108.01073). Drawn freely the subject may lose its pose again. Where it is of the old one's
class, the first of these steps take the cross-attention maps from the source (A of Photoswap): they
say where the subject's parts are, and nothing of their colours, which self-attention maps bring
back. Knows models through their protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.sampler import starting_noise
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.transfer.blend import Blend
from understudy.transfer.loop import Replay
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import StochasticNoise, SwapStep

AGAIN = 2_000_003  # added to the swap's seed for the noise of this stage


def refine_count(settings: SwapSettings) -> int:
    """How many steps are repeated."""
    wanted = settings.refine_steps
    count = round(wanted * settings.steps) if isinstance(wanted, float) else wanted
    return min(count, settings.steps)


def held_count(settings: SwapSettings, held: float) -> int:
    """How many of them take the cross-attention maps from the source. held: their share."""
    return round(held * refine_count(settings))


@torch.no_grad()
def refined_steps(
    model: DiffusionModel,
    source: Source,
    swapped: SwapStep,
    targets: Sequence[Target],
    settings: SwapSettings,
    *,
    held: float = 0.0,
    noises: int = 1,
) -> Iterator[SwapStep]:
    """Repeat the last steps of a swap, a step at a time.

    Args:
        source: the photo, inverted; its latents are kept outside the mask.
        swapped: the last step of the swap, with the mask of what may change; None = everything.
        targets: of the step's k rows.
        held: share of these steps, the first ones, that take A from the source.
        noises: how many times each row is drawn, with other noise. The rows of one target follow
            each other, and carry its number in `SwapStep.targets`.
    """
    count, inversion = refine_count(settings), source.inversion
    step = swapped.rows([row for row in range(len(targets)) for _ in range(noises)])
    begin, shape = settings.steps - count, step.target.shape[1:]
    seeds = [settings.noise_seed + AGAIN + number for number in range(2 * noises)]
    first, later = (tuple(part) * len(targets) for part in (seeds[:noises], seeds[noises:]))
    noise = starting_noise(first, (shape[0], shape[1], shape[2]), like=model)
    latents = model.schedule.noised(step.target, noise, inversion.times[begin])
    path = _path(model, inversion, swapped.source, noise[:1])
    held_steps = range(begin, begin + (0 if path is None else held_count(settings, held)))
    run = Replay(
        model,
        # Embeddings tuned to reproduce the photo would draw it again.
        Source(replace(inversion, null_embeddings=None)),
        [target for target in targets for _ in range(noises)],
        SwapSchedule(settings.steps, range(0), range(0), held_steps),
        guidance=settings.guidance,
        blend=_around(step.mask, path),
        stochastic=StochasticNoise(settings.eta, settings.temperature, first[0], later),
    )
    run.begin_at(begin, latents, path)
    for index in range(begin, settings.steps):
        yield replace(
            run.step(index),
            index=index + count,
            total=settings.steps + count,
            targets=step.targets,
        )


def _path(
    model: DiffusionModel,
    inversion: Inversion,
    last: Float[Tensor, "1 c h w"] | None,
    noise: Float[Tensor, "1 c h w"],
) -> Float[Tensor, "n_1 c h w"] | None:
    """The source's latents before each step and after the last, where they end on the photo's own.

    Where sampling alone could tell them, the photo's latents with noise stand for them. last:
    where the swap's source ended; None where nothing needed it.
    """
    clean = last if inversion.clean is None else inversion.clean
    if clean is None:
        return None
    if inversion.path is not None:
        return torch.cat([inversion.path[:-1], clean])
    noised = [model.schedule.noised(clean, noise, time) for time in inversion.times[:-1]]
    return torch.cat([*noised, clean])


def _around(mask: Float[Tensor, "m 1 h w"] | None, path: Tensor | None) -> Blend | None:
    if mask is None or path is None:
        return None
    return Blend(start=0, mask=mask, clean=path[-1:])
