"""Photoswap: replaces the subject of a photo by another one in the same pose and scene.

Gu et al. 2023, arXiv:2305.18286, Algorithm 1. Source and target are denoised side by side from the
photo's noise; in the first steps the target takes self-attention outputs (phi), self-attention
maps (M) and cross-attention maps (A) from the source. The concept is applied all along, in
the inversion too. Knows models through their protocol; knows no files and no concepts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.invert.inversion import Inversion
from understudy.invert.source import NOTHING, UNCOND, WORDS, Parts
from understudy.models.interface import DiffusionModel
from understudy.pictures.paste import paste
from understudy.settings import SwapSettings
from understudy.swap.blending import blend_of, check_background, limits_for, sigmas_of
from understudy.swap.finish import finished_steps
from understudy.swap.schedule_search import ScheduleSearch, candidates
from understudy.swap.where import BothSubjects, old_subject
from understudy.transfer.appearance import Appearance
from understudy.transfer.loop import replay_steps
from understudy.transfer.schedule import SwapSchedule, first_steps
from understudy.transfer.source_target import (
    Source,
    Sources,
    Target,
    Targets,
    mask_of,
    source_of,
    targets_of,
    with_negative,
)
from understudy.transfer.step import StochasticNoise, SwapStep


def swap_steps(
    model: DiffusionModel,
    source: Sources,
    targets: Targets,
    settings: SwapSettings | None = None,
    *,
    search: ScheduleSearch | None = None,
    appearance: Appearance | None = None,
) -> Iterator[SwapStep]:
    """Swap the subjects of an inverted photo, a step at a time, for one or several targets.

    Args:
        source: the photo, inverted by this model with the concepts applied.
        targets: prompts, with the subjects' words where `settings.blend` needs them.
        settings: by default those that suit the model, with steps and guidance of the inversion.
        search: chooses phi, M and A if the settings have a budget for it.
        appearance: pictures of the new subject, for `settings.appearance_steps`.

    Raises:
        InputError: the inversion is another model's or has another number of steps or guidance; a
            blend is asked for without words or a mask.
        PromptError: a prompt that is too long, a word that is missing.
    """
    source = source_of(source)
    settings = settings or _usual(model, source)
    targets = with_negative(targets, settings.negative)
    check(model, source.inversion, settings)
    for target in targets:
        model.tokenize(target.prompt)
    blend = blend_of(model, source, targets, settings)
    stochastic = StochasticNoise(settings.eta, settings.temperature, settings.noise_seed)
    search = search if settings.budget else None
    if search is not None:
        steps = search.steps(model, source, targets, settings, blend=blend, stochastic=stochastic)
    else:
        steps = replay_steps(
            model,
            source,
            targets,
            schedule_of(settings, sigmas_of(model, source.inversion)),
            guidance=settings.guidance,
            blend=blend,
            stochastic=stochastic,
        )
    return finished_steps(model, source, targets, settings, steps, search, appearance, blend)


def _usual(model: DiffusionModel, source: Source) -> SwapSettings:
    """What suits the model; a swap has to have its inversion's steps and guidance."""
    run = {"steps": source.inversion.steps, "guidance": source.inversion.guidance}
    return SwapSettings.filled(run, model.name)


def swap(
    model: DiffusionModel,
    source: Sources,
    targets: Targets,
    settings: SwapSettings | None = None,
    *,
    search: ScheduleSearch | None = None,
    appearance: Appearance | None = None,
) -> Float[Tensor, "k 3 h w"]:
    """The swapped pictures, one a target. See `swap_steps`.

    Raises InputError where `settings.paste` is on and there is neither a blend nor a mask.
    """
    source, targets = source_of(source), targets_of(targets)
    settings = settings or _usual(model, source)
    settings.check_place(mask_of(targets) is not None)
    *_, last = swap_steps(model, source, targets, settings, search=search, appearance=appearance)
    with torch.no_grad():
        swapped = model.decode(last.target)
    return framed(model, source, swapped, last, settings, mask_of(targets), targets)


@torch.no_grad()
def framed(
    model: DiffusionModel,
    source: Source,
    swapped: Float[Tensor, "k 3 h w"],
    last: SwapStep,
    settings: SwapSettings,
    mask: Float[Tensor, "m 1 h w"] | None = None,
    targets: Sequence[Target] = (),
    *,
    agree: bool = False,
) -> Float[Tensor, "k 3 h w"]:
    """The swapped pictures inside the photo's own pixels where the settings ask to paste.

    last: the last step of the swap. mask: of the targets; see `mask_of`. targets: of the pictures,
    to find the old and the new subject by their words. agree: see `paste`; for pictures that are
    enlarged, where a step at the seam shows.
    """
    if not settings.paste:
        return swapped
    assert last.mask is not None, "a blend leaves a mask"
    # The feathered seam compares with the autoencoder's version of the photo, so that only changes
    # by the swap count, not the autoencoder's own errors.
    redrawn = model.decode(source.inversion.trajectory[:1])
    photo = redrawn if source.photo is None else source.photo
    size = (int(swapped.shape[-2]), int(swapped.shape[-1]))
    where = F.interpolate(last.mask.to(swapped), size=size)
    if mask is not None:
        where = where.minimum(F.interpolate(mask.to(swapped), size=size))
    if settings.where == "subject" and targets:
        old = source.subject
        if old is None:
            old = old_subject(model, photo, source.prompt, targets[0].words)
        if old is not None:
            both = BothSubjects.found(model, old.to(swapped), swapped, targets)
            swapped = both.toned(photo.to(swapped), swapped, redrawn)
            limits = limits_for(targets, settings)
            where = where.minimum(both.reached(swapped, redrawn, limits).to(swapped))
    return paste(photo.to(swapped), swapped, where, settings.feather, redrawn, agree=agree)


def schedule_of(settings: SwapSettings, sigmas: Sequence[float] | None = None) -> SwapSchedule:
    """The settings' schedule. sigmas: of a flow model; see `first_steps`."""
    return first_steps(
        settings.steps,
        settings.self_output_steps,
        settings.self_map_steps,
        settings.cross_map_steps,
        sigmas=sigmas,
    )


def parts_read(settings: SwapSettings, index: int) -> Parts:
    """What a swap with these settings reads of the source in a step: for an inversion to keep."""
    found = candidates(settings) if settings.budget else []
    plans = [one.plan for one in found] or [schedule_of(settings)]
    parts = NOTHING.union(*(plan.at(index).parts for plan in plans))
    if "output" in parts and settings.guidance != 1:
        parts |= UNCOND
    return parts | WORDS if settings.blend and settings.where == "attention" else parts


def check(model: DiffusionModel, inversion: Inversion, settings: SwapSettings) -> None:
    """Refuse an inversion that does not belong to this swap; see `swap_steps`."""
    check_background(model, settings)
    inversion.check(model)
    inversion.check_run(settings.steps, settings.guidance, "swap", ("null-text", "seed"))
