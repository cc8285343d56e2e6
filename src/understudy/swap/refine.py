"""Draws the new subject once more, from the swapped picture and fresh noise.

The source's self-attention holds the pose, and with it some of the old subject's outline and
texture: what comes out is blurred. The last steps are therefore repeated, inside the mask alone:
noise is added to the swapped latents, and the target prompt removes it (SDEdit, Meng et al. 2022,
arXiv:2108.01073). Drawn freely the subject may lose its pose again. Where it is of the old one's
class, the first of these steps take the cross-attention maps from the source (A of Photoswap): they
say where the subject's parts are, and nothing of their colours, which self-attention maps bring
back. The first steps also read pictures of the new subject (transfer/appearance.py), which gives
each part its colours. With them a row can begin with the photo itself, whose pose it then keeps.
Knows models through their protocol.
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
from understudy.transfer.appearance import Appearance, AppearanceRows
from understudy.transfer.blend import Blend
from understudy.transfer.loop import Replay
from understudy.transfer.schedule import SwapSchedule
from understudy.transfer.source_target import Source, Target
from understudy.transfer.step import StochasticNoise, SwapStep

AGAIN = 2_000_003  # added to the swap's seed for the noise of this stage
REDRAWN = 2  # times that a candidate is refined, with other noise


def refine_count(settings: SwapSettings) -> int:
    """How many steps are repeated."""
    return min(steps_of(settings.refine_steps, settings), settings.steps)


def held_count(settings: SwapSettings, held: float) -> int:
    """How many of them take the cross-attention maps from the source. held: their share."""
    return round(held * refine_count(settings))


def appearance_count(settings: SwapSettings) -> int:
    """How many of them, the first ones, read pictures of the new subject."""
    return min(steps_of(settings.appearance_steps, settings), refine_count(settings))


def refine_evaluations(settings: SwapSettings, rows: int, pictures: int, held: float = 0.0) -> int:
    """Network evaluations of refining. rows: pictures that are drawn. pictures: of the subject,
    that are read. held: share of the steps that take A from the source."""
    halves = 1 if settings.guidance == 1 else 2
    drawn = halves * rows * refine_count(settings)
    return drawn + pictures * appearance_count(settings) + held_count(settings, held)


def steps_of(wanted: int | float, settings: SwapSettings) -> int:
    """A number of steps, or a share of the run, in steps."""
    return round(wanted * settings.steps) if isinstance(wanted, float) else wanted


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
    appearance: Appearance | None = None,
    posed: Float[Tensor, "m c h w"] | None = None,
) -> Iterator[SwapStep]:
    """Repeat the last steps of a swap, a step at a time.

    Args:
        source: the photo, inverted; its latents are kept outside the mask.
        swapped: the last step of the swap, with the mask of what may change; None = everything.
        targets: of the step's k rows.
        held: share of these steps, the first ones, that take A from the source.
        noises: how many times each row is drawn, with other noise. The rows of one target follow
            each other, and carry its number in `SwapStep.targets`.
        appearance: pictures of the new subject, which its place reads in the first
            `appearance_count` steps.
        posed: with an appearance, latents that the first of the rows of each target begins with
            instead of the swapped ones, of all or one each: the photo's. Then the old subject's
            place alone reads.
    """
    count, inversion = refine_count(settings), source.inversion
    step = _repeated(swapped, noises)
    begin, old = settings.steps - count, source.subject
    photo = posed if old is not None and appearance is not None else None
    shown = _shown(model, appearance, None if photo is None else old, step, settings)
    # Rows that begin with the photo differ by their noise alone.
    rows, groups = (noises, len(targets)) if photo is None else (len(step.target), 1)
    step = step if photo is None else _from_photo(step, photo, noises)
    seeds = [settings.noise_seed + AGAIN + number for number in range(2 * rows)]
    first, later = tuple(seeds[:rows]) * groups, tuple(seeds[rows:]) * groups
    shape = step.target.shape[1:]
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
        blend=_around(step.mask, path, settings),
        stochastic=StochasticNoise(settings.eta, settings.temperature, first[0], later),
    )
    run.begin_at(begin, latents, path, shown)
    for index in range(begin, settings.steps):
        total, again = settings.steps + count, run.step(index)
        yield replace(
            again, index=index + count, total=total, targets=step.targets, begun=step.begun
        )


def _repeated(step: SwapStep, noises: int) -> SwapStep:
    """The step with each row repeated. Rows that do not say what they began with: the swap."""
    count = len(step.targets)
    known = replace(step, begun=step.begun or ("swap",) * count)
    return known.rows([row for row in range(count) for _ in range(noises)])


def _from_photo(step: SwapStep, clean: Float[Tensor, "m c h w"], noises: int) -> SwapStep:
    """The step, the first of each `noises` rows with the photo's latents: of all, or one each."""
    target, begun = step.target.clone(), list(step.begun)
    target[::noises] = clean.to(target)
    begun[::noises] = ["photo"] * len(begun[::noises])
    return replace(step, target=target, begun=tuple(begun))


def _shown(
    model: DiffusionModel,
    appearance: Appearance | None,
    old: Float[Tensor, "1 1 h w"] | None,
    step: SwapStep,
    settings: SwapSettings,
) -> AppearanceRows | None:
    """The pictures' rows, read in the old subject's place, or wherever a row may change."""
    where = old if old is not None or step.mask is None else step.mask.amax(0, keepdim=True)
    if appearance is None or where is None:
        return None
    begin = settings.steps - refine_count(settings)
    steps = range(begin, begin + appearance_count(settings))
    return AppearanceRows(model, appearance, where, steps, settings.noise_seed)


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


def _around(
    mask: Float[Tensor, "m 1 h w"] | None, path: Tensor | None, settings: SwapSettings
) -> Blend | None:
    if mask is None or path is None:
        return None
    if settings.keeps_keys:
        # Attention reads the source's row outside the mask, so the latents there are that row's.
        return Blend(start=0, mask=mask, keys=True)
    return Blend(start=0, mask=mask, clean=path[-1:])
