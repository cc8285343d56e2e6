"""Where a swap may change the photo, and what keeps the rest: settings and words to a Blend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from understudy.diffusion.flow import FlowSchedule
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.difference import difference_mask, differences
from understudy.swap.limits import Limits, limits_of
from understudy.swap.subjects import source_places, subjects_named, target_places
from understudy.swap.where import may_change, old_subject
from understudy.transfer.blend import Blend, latent_mask
from understudy.transfer.source_target import Source, Target, mask_of

BLEND_START, BLEND_THRESHOLD = 0.2, 0.3  # as published: after a fifth of the steps
BLEND_SIGMA = 0.9  # flow models: from this share of noise on


def check_background(model: DiffusionModel, settings: SwapSettings) -> None:
    """Raise InputError where keys and values are to be kept by a model that is no flow model.

    A U-Net's layers see the picture at several sizes, and its convolutions carry the background of
    the target into each of them: keys and values alone would not keep it.
    """
    if settings.keeps_keys and not isinstance(model.schedule, FlowSchedule):
        raise InputError(
            "--background kv-edit is for flow models (Stable Diffusion 3, FLUX and others); "
            f"{model.name} is a diffusion model. Use --background latents."
        )


def sigmas_of(model: DiffusionModel, inversion: Inversion) -> tuple[float, ...] | None:
    """The inversion's times where they are sigmas: of a flow model; else None."""
    return inversion.times if isinstance(model.schedule, FlowSchedule) else None


def blend_of(
    model: DiffusionModel, source: Source, targets: Sequence[Target], settings: SwapSettings
) -> Blend | None:
    """The blend that settings, words and masks ask for; words are looked up in any case.

    Raises InputError where latents are to be blended, or keys and values kept, and nothing says
    where.
    """
    found = _located(model, source, targets, settings)
    if found is None and settings.keeps_keys:
        settings.check_place(False)
    if found is None or not settings.keeps_keys:
        return found
    # A mask that is known beforehand keeps the background from the first step, as in KV-Edit.
    return replace(found, keys=True, start=found.start if found.by_words else 0)


def _located(
    model: DiffusionModel, source: Source, targets: Sequence[Target], settings: SwapSettings
) -> Blend | None:
    words = tuple(dict.fromkeys(word for target in targets for word in target.words))
    named = source_places(model, source.prompt, words)
    places = tuple(target_places(model, target.prompt, target.words) for target in targets)
    mask = mask_of(targets)
    if not settings.blend and mask is None:
        return None
    inversion = source.inversion
    height, width = inversion.noise.shape[-2:]
    start = int(BLEND_START * settings.steps)
    if (sigmas := sigmas_of(model, inversion)) is not None:
        # Steps of flow models are uneven: the moment is a level of noise, not a share of steps.
        start = sum(sigma > BLEND_SIGMA for sigma in sigmas[:-1])
    where = None if mask is None else latent_mask(mask, (height, width)).to(model.device)
    if settings.blend and settings.where != "attention" and inversion.clean is not None:
        clean, prompts = inversion.clean, [target.prompt for target in targets]
        found = differences(model, clean, source.prompt, prompts)
        found = difference_mask(found, parts=subjects_named(source.prompt, words))
        if settings.where == "difference":
            return Blend(start=start, mask=found if where is None else found * where)
        old = source.subject
        if old is None:
            with torch.no_grad():
                old = old_subject(model, model.decode(clean), source.prompt, words)
        found = (
            found
            if old is None
            else may_change(old.to(found), found, limits_for(targets, settings))
        )
        around = None if sigmas is not None else clean
        return Blend(start=0, mask=found if where is None else found * where, clean=around)
    if settings.blend and not words and mask is None:
        raise InputError(
            "--blend needs to know where the subject is. Name its words, or give a mask."
        )
    return Blend(
        start=start,
        source_places=named if settings.blend else (),
        target_places=places if settings.blend and words else (),
        threshold=BLEND_THRESHOLD,
        mask=where,
    )


def limits_for(targets: Sequence[Target], settings: SwapSettings) -> Limits:
    """How far a swap of these targets may go from the old subject."""
    words = [word for target in targets for word in target.words]
    return limits_of(settings.outline, words, masked=mask_of(targets) is not None)
