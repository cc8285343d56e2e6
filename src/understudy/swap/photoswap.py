"""Photoswap: another subject takes the place of a photo's, in its pose and on its stage.

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

from understudy.diffusion.flow import FlowSchedule
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.invert.source import NOTHING, UNCOND, WORDS, Parts, SourceFeatures
from understudy.models.interface import DiffusionModel
from understudy.pictures.paste import paste
from understudy.settings import SwapSettings
from understudy.swap.difference import difference_mask, differences
from understudy.swap.schedule_search import ScheduleSearch, candidates
from understudy.swap.subjects import Replacement, source_places, subjects_named, target_places
from understudy.transfer.blend import Blend, latent_mask
from understudy.transfer.loop import replay_steps
from understudy.transfer.schedule import SwapSchedule, first_steps
from understudy.transfer.step import StochasticNoise, SwapStep

BLEND_START, BLEND_THRESHOLD = 0.2, 0.3  # as published: after a fifth of the steps
BLEND_SIGMA = 0.9  # flow models: from this share of noise on


def swap_steps(
    model: DiffusionModel,
    inversion: Inversion,
    source_prompt: str,
    target_prompts: str | Sequence[str],
    settings: SwapSettings | None = None,
    *,
    words: tuple[str, str] | Sequence[Replacement] = (),
    mask: Float[Tensor, "m 1 h w"] | None = None,
    features: SourceFeatures | None = None,
    search: ScheduleSearch | None = None,
) -> Iterator[SwapStep]:
    """Swap the subjects of an inverted photo, a step at a time, for one or several target prompts.

    Args:
        inversion: of the photo, made by this model as it is dressed now.
        source_prompt: the prompt of the inversion.
        words: the subject's word or phrase in the source prompt and in the target prompts; or a
            Replacement for each of several subjects.
        mask: of the picture's or the latents' size, 1 = may change; a blend of its own.
        features: what earlier swaps of this photo have kept, used and filled.
        search: chooses phi, M and A where the settings have a budget for it.

    Raises:
        InputError: the inversion is another model's or has another number of steps or guidance;
            a blend is asked for and there are neither words nor a mask.
        PromptError: another source prompt, a prompt over the limit, a word that is missing.
    """
    settings = settings or SwapSettings.filled({}, model.name)
    targets = (target_prompts,) if isinstance(target_prompts, str) else tuple(target_prompts)
    check(model, inversion, source_prompt, settings)
    for target in targets:
        model.tokenize(target)
    blend = blend_of(model, inversion, (source_prompt, *targets), settings, words, mask)
    stochastic = StochasticNoise(settings.eta, settings.temperature, settings.noise_seed)
    if search is not None and settings.budget:
        return search.steps(
            model,
            inversion,
            targets,
            settings,
            guidance=settings.guidance,
            blend=blend,
            features=features,
            stochastic=stochastic,
        )
    return replay_steps(
        model,
        inversion,
        targets,
        schedule_of(settings, sigmas_of(model, inversion)),
        guidance=settings.guidance,
        blend=blend,
        features=features,
        stochastic=stochastic,
    )


def swap(
    model: DiffusionModel,
    inversion: Inversion,
    source_prompt: str,
    target_prompts: str | Sequence[str],
    settings: SwapSettings | None = None,
    *,
    words: tuple[str, str] | Sequence[Replacement] = (),
    mask: Float[Tensor, "m 1 h w"] | None = None,
    features: SourceFeatures | None = None,
    search: ScheduleSearch | None = None,
    photo: Float[Tensor, "1 3 h w"] | None = None,
) -> Float[Tensor, "k 3 h w"]:
    """The swapped pictures, one a target prompt. See `swap_steps`.

    photo: the picture that was inverted, for `settings.paste`; else what its latents decode to.
    Raises InputError where that is asked for and there is neither a blend nor a mask.
    """
    settings = settings or SwapSettings.filled({}, model.name)
    settings.check_place(mask is not None)
    *_, last = swap_steps(
        model,
        inversion,
        source_prompt,
        target_prompts,
        settings,
        words=words,
        mask=mask,
        features=features,
        search=search,
    )
    with torch.no_grad():
        swapped = model.decode(last.target)
    return framed(model, inversion, swapped, last, settings, photo, mask)


@torch.no_grad()
def framed(
    model: DiffusionModel,
    inversion: Inversion,
    swapped: Float[Tensor, "k 3 h w"],
    last: SwapStep,
    settings: SwapSettings,
    photo: Float[Tensor, "1 3 h w"] | None = None,
    mask: Float[Tensor, "m 1 h w"] | None = None,
) -> Float[Tensor, "k 3 h w"]:
    """The swapped pictures inside the photo's own pixels where the settings ask to paste.

    photo: None stands for what the inversion's first latent decodes to. mask: see `swap_steps`.
    """
    if not settings.paste:
        return swapped
    assert last.mask is not None, "a blend leaves a mask"
    redrawn = model.decode(inversion.trajectory[:1])
    photo = redrawn if photo is None else photo
    size = (int(swapped.shape[-2]), int(swapped.shape[-1]))
    where = F.interpolate(last.mask.to(swapped), size=size)
    if mask is not None:
        where = where.minimum(F.interpolate(mask.to(swapped), size=size))
    return paste(photo.to(swapped), swapped, where, settings.feather, redrawn)


def schedule_of(settings: SwapSettings, sigmas: Sequence[float] | None = None) -> SwapSchedule:
    """The settings' schedule. sigmas: of a flow model; see `first_steps`."""
    return first_steps(
        settings.steps,
        settings.self_output_steps,
        settings.self_map_steps,
        settings.cross_map_steps,
        sigmas=sigmas,
    )


def sigmas_of(model: DiffusionModel, inversion: Inversion) -> tuple[float, ...] | None:
    """The inversion's times where they are sigmas: of a flow model; else None."""
    return inversion.times if isinstance(model.schedule, FlowSchedule) else None


def parts_read(settings: SwapSettings, index: int) -> Parts:
    """What a swap with these settings reads of the source in a step: for an inversion to keep."""
    found = candidates(settings) if settings.budget else []
    plans = [one.plan for one in found] or [schedule_of(settings)]
    parts = NOTHING.union(*(plan.at(index).parts for plan in plans))
    if "output" in parts and settings.guidance != 1:
        parts |= UNCOND
    return parts | WORDS if settings.blend and settings.where == "attention" else parts


def check(
    model: DiffusionModel, inversion: Inversion, source_prompt: str, settings: SwapSettings
) -> None:
    """Refuse an inversion that does not belong to this swap; see `swap_steps`."""
    inversion.check(model, source_prompt)
    if settings.steps != inversion.steps:
        raise InputError(
            f"the photo was inverted in {inversion.steps} steps, the swap asks for "
            f"--steps {settings.steps}. Use the same number, or invert again."
        )
    if inversion.method in ("null-text", "seed") and settings.guidance != inversion.guidance:
        raise InputError(
            f"the photo was inverted for guidance {inversion.guidance}, the swap asks for "
            f"--guidance {settings.guidance}. Use the same, or invert again."
        )


def blend_of(
    model: DiffusionModel,
    inversion: Inversion,
    prompts: Sequence[str],
    settings: SwapSettings,
    words: tuple[str, str] | Sequence[Replacement],
    mask: Tensor | None,
) -> Blend | None:
    """The blend that settings, words and mask ask for; words are looked up in any case."""
    replacements = replacements_of(words)
    source = source_places(model, prompts[0], replacements)
    targets = tuple(
        target_places(model, prompt, replacements, n) for n, prompt in enumerate(prompts[1:])
    )
    if not settings.blend and mask is None:
        return None
    height, width = inversion.noise.shape[-2:]
    start, photo = int(BLEND_START * settings.steps), inversion.clean
    if (sigmas := sigmas_of(model, inversion)) is not None:
        start = sum(sigma > BLEND_SIGMA for sigma in sigmas[:-1])
    where = None if mask is None else latent_mask(mask, (height, width)).to(model.device)
    if settings.blend and settings.where == "difference" and photo is not None:
        found = differences(model, photo, prompts[0], prompts[1:])
        found = difference_mask(found, parts=subjects_named(prompts[0], replacements))
        return Blend(start=start, mask=found if where is None else found * where)
    if settings.blend and not replacements and mask is None:
        raise InputError(
            "--blend needs to know where the subject is. Name its words, or give a mask."
        )
    return Blend(
        start=start,
        source_places=source if settings.blend else (),
        target_places=targets if settings.blend and replacements else (),
        threshold=BLEND_THRESHOLD,
        mask=where,
    )


def replacements_of(words: tuple[str, str] | Sequence[Replacement]) -> tuple[Replacement, ...]:
    """A pair of words as one role; roles as they are."""
    replacements = [word for word in words if isinstance(word, Replacement)]
    texts = [word for word in words if isinstance(word, str)]
    return (Replacement(texts[0], texts[1]),) if texts else tuple(replacements)
