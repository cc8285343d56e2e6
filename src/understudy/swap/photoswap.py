"""Photoswap: another subject takes the place of a photo's, in its pose and on its stage.

Gu et al. 2023, arXiv:2305.18286, Algorithm 1. Source and target are denoised side by side from the
photo's noise; in the first steps the target takes self-attention outputs (phi), self-attention
maps (M) and cross-attention maps (A) from the source. The model wears the concept all along, in
the inversion too. Knows models through their protocol; knows no files and no concepts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.blend import Blend, latent_mask
from understudy.swap.replay import SwapStep, replay_steps
from understudy.swap.schedule import first_steps
from understudy.words import word_places

BLEND_START, BLEND_THRESHOLD = 0.2, 0.3  # as published: after a fifth of the steps


def swap_steps(
    model: DiffusionModel,
    inversion: Inversion,
    source_prompt: str,
    target_prompts: str | Sequence[str],
    settings: SwapSettings | None = None,
    *,
    words: tuple[str, str] | None = None,
    mask: Float[Tensor, "m 1 h w"] | None = None,
) -> Iterator[SwapStep]:
    """Swap the subject of an inverted photo, a step at a time, for one or several target prompts.

    Args:
        inversion: of the photo, made by this model as it is dressed now.
        source_prompt: the prompt of the inversion.
        words: the subject's word or phrase in the source prompt, and in the target prompts.
        mask: of the picture's or the latents' size, 1 = may change; a blend of its own.

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
    blend = _blend(model, inversion, (source_prompt, *targets), settings, words, mask)
    schedule = first_steps(
        settings.steps,
        settings.self_output_steps,
        settings.self_map_steps,
        settings.cross_map_steps,
    )
    return replay_steps(
        model, inversion, targets, schedule, guidance=settings.guidance, blend=blend
    )


def swap(
    model: DiffusionModel,
    inversion: Inversion,
    source_prompt: str,
    target_prompts: str | Sequence[str],
    settings: SwapSettings | None = None,
    *,
    words: tuple[str, str] | None = None,
    mask: Float[Tensor, "m 1 h w"] | None = None,
) -> Float[Tensor, "k 3 h w"]:
    """The swapped pictures, one a target prompt. See `swap_steps`."""
    *_, last = swap_steps(
        model, inversion, source_prompt, target_prompts, settings, words=words, mask=mask
    )
    with torch.no_grad():
        return model.decode(last.target)


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
    if inversion.method == "null-text" and settings.guidance != inversion.guidance:
        raise InputError(
            f"the photo was inverted for guidance {inversion.guidance}, the swap asks for "
            f"--guidance {settings.guidance}. Use the same, or invert again."
        )


def _blend(
    model: DiffusionModel,
    inversion: Inversion,
    prompts: Sequence[str],
    settings: SwapSettings,
    words: tuple[str, str] | None,
    mask: Tensor | None,
) -> Blend | None:
    """The blend that settings, words and mask ask for; words are looked up in any case."""
    wanted = [words[0], *[words[1]] * (len(prompts) - 1)] if words else []
    places = [
        word_places(prompt, word, model.tokenize(prompt).pieces)
        for prompt, word in zip(prompts, wanted, strict=False)
    ]
    if not settings.blend and mask is None:
        return None
    if settings.blend and not places and mask is None:
        raise InputError(
            "--blend needs to know where the subject is. Name its words, or give a mask."
        )
    height, width = inversion.noise.shape[-2:]
    return Blend(
        start=int(BLEND_START * settings.steps),
        source_places=places[0] if settings.blend and places else (),
        target_places=tuple(places[1:]) if settings.blend else (),
        threshold=BLEND_THRESHOLD,
        mask=None if mask is None else latent_mask(mask, (height, width)).to(model.device),
    )
