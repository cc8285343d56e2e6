"""Photoswap: another subject takes the place of a photo's, in its pose and on its stage.

Gu et al. 2023, arXiv:2305.18286, Algorithm 1. Source and target are denoised side by side from the
photo's noise; in the first steps the target takes self-attention outputs (phi), self-attention
maps (M) and cross-attention maps (A) from the source. The model wears the concept all along, in
the inversion too. Knows models through their protocol; knows no files and no concepts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention import CrossMix
from understudy.diffusion import ddim_step, guided, next_lower
from understudy.errors import InputError
from understudy.invert.inversion import Inversion, moves
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.blend import Blend, MapSums, blended, latent_mask, subject_mask
from understudy.swap.rows import Layout, Needs, SwapControl, Texts, lay_out, rows_of
from understudy.swap.schedule import Swaps, SwapSchedule, first_steps
from understudy.words import Alignment, align, own_padding, word_places

MAP_TOKENS = 1024  # M as published: only in layers of up to 32 x 32
BLEND_START, BLEND_THRESHOLD = 0.2, 0.3  # as published: after a fifth of the steps


@dataclass(frozen=True)
class SwapStep:
    """One finished step of a swap.

    index counts from 0 to total - 1; timestep is the one just denoised. target "k c h w" and
    source "1 c h w" are the latents after it (source: None once nothing reads it any more). swaps
    is what was taken from the source, mask "k 1 h w" where the target was kept, rows what it cost.
    """

    index: int
    total: int
    timestep: int
    target: Float[Tensor, "k c h w"]
    source: Float[Tensor, "1 c h w"] | None
    swaps: Swaps
    mask: Float[Tensor, "m 1 h w"] | None
    rows: int


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


@torch.no_grad()
def replay_steps(
    model: DiffusionModel,
    inversion: Inversion,
    targets: Sequence[str],
    schedule: SwapSchedule,
    *,
    guidance: float,
    blend: Blend | None = None,
    map_tokens: int = MAP_TOKENS,
    alignments: Sequence[Alignment] | None = None,
) -> Iterator[SwapStep]:
    """Denoise target prompts beside the source, swapping as the schedule says.

    All targets share one run of the source; no two targets see each other. alignments: one a
    target, where they are not to be found by `alignment`.
    """
    found = alignments or [alignment(model, inversion.prompt, target) for target in targets]
    run = _Run(model, inversion, targets, schedule, guidance, blend, map_tokens, found)
    path = inversion.path
    source: Tensor | None = inversion.noise
    target = inversion.noise.expand(len(targets), -1, -1, -1)
    for index, timestep in enumerate(inversion.timesteps):
        before = model.rows
        noise, source_noise = run.noise(index, timestep, source, target)
        end = next_lower(model.schedule, inversion.steps, timestep)
        if noise is not None:
            target = ddim_step(model.schedule, target, noise, timestep, end)
        if path is not None:
            source = path[index + 1 : index + 2]
        elif not run.walks(index):
            source = None
        elif source is not None and source_noise is not None:
            source = ddim_step(model.schedule, source, source_noise, timestep, end)
        mask = run.mask(index)
        if mask is not None and source is not None:
            target = blended(source, target, mask)
        cost = model.rows - before
        swaps = schedule.at(index)
        yield SwapStep(index, inversion.steps, timestep, target, source, swaps, mask, cost)


class _Run:
    """What stays the same over the steps of one swap, and the maps summed so far."""

    def __init__(
        self,
        model: DiffusionModel,
        inversion: Inversion,
        targets: Sequence[str],
        schedule: SwapSchedule,
        guidance: float,
        blend: Blend | None,
        map_tokens: int,
        alignments: Sequence[Alignment],
    ) -> None:
        self.model, self.inversion, self.schedule = model, inversion, schedule
        self.guidance, self.blend, self.map_tokens = guidance, blend, map_tokens
        # One prompt a call: an embedding must not depend on its neighbours, not even by rounding.
        self.empty, self.source = model.embed([""]), model.embed([inversion.prompt])
        self.targets = torch.cat([model.embed([target]) for target in targets])
        self.mixes = tuple(
            CrossMix.aligned(0, found.mapper, found.alphas, device=model.device, dtype=model.dtype)
            for found in alignments
        )
        height, width = inversion.noise.shape[-2:]
        self.size = (int(height), int(width))
        self.sums: MapSums | None = None
        if blend is not None and blend.reads_maps:
            self.sums = MapSums((blend.source_places, *blend.target_places), self.size)

    def walks(self, index: int) -> bool:
        """Whether the source must be denoised in a step, because something later reads it."""
        last = self.schedule.last if self.blend is None else self.inversion.steps
        return self.inversion.path is None and index < last

    def noise(
        self, index: int, timestep: int, source: Tensor | None, target: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Guided noise of targets and source for a step; None where it is not needed."""
        swaps = self.schedule.at(index)
        end = next_lower(self.model.schedule, self.inversion.steps, timestep)
        moving = moves(self.model.schedule, timestep, end)
        if not moving and self.sums is None:
            return None, None
        known = self.inversion.first_noise if index == 0 else None
        needs = self._needs(index, swaps, guides=moving and self.guidance != 1 and known is None)
        uncond = self.inversion.uncond(index)
        texts = Texts(
            self.empty if uncond is None else uncond.to(self.source), self.source, self.targets
        )
        where = lay_out(needs, texts, source, target, first=index == 0)
        control = SwapControl(where, swaps, self.mixes, self.map_tokens, self.sums)
        noise = self.model.predict_noise(where.latents, timestep, where.text, control)
        if self.sums is not None:
            self.sums.close_step()
        if not moving:
            return None, None
        return self._guided(noise, where, known), self._source_guided(noise, where, known)

    def mask(self, index: int) -> Float[Tensor, "m 1 h w"] | None:
        """Where the target is kept after a step; None = everywhere."""
        blend = self.blend
        if blend is None or index < blend.start:
            return None
        if self.sums is None:
            return blend.mask
        found = subject_mask(self.sums.sums, self.size, blend.threshold)[:, None]
        return found.float() if blend.mask is None else found * blend.mask.to(found.device)

    def _needs(self, index: int, swaps: Swaps, *, guides: bool) -> Needs:
        walks = self.walks(index)
        return Needs(
            source_uncond=guides and (swaps.self_output or walks),
            source_cond=swaps.any or walks or self.sums is not None,
            target_uncond=guides,
        )

    def _guided(self, noise: Tensor, where: Layout, known: Tensor | None) -> Tensor:
        cond = rows_of(noise, where.target_cond)
        if where.target_uncond:
            return guided(rows_of(noise, where.target_uncond), cond, self.guidance)
        return cond if known is None else guided(known.expand_as(cond), cond, self.guidance)

    def _source_guided(self, noise: Tensor, where: Layout, known: Tensor | None) -> Tensor | None:
        if where.source_cond is None:
            return None
        uncond = known if where.source_uncond is None else noise[where.source_uncond][None]
        cond = noise[where.source_cond][None]
        return cond if uncond is None else guided(uncond, cond, self.guidance)


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


def alignment(model: DiffusionModel, source: str, target: str) -> Alignment:
    """Which source token each target token takes its cross-attention from."""
    rows = [model.tokenize(prompt) for prompt in (source, target)]
    before, after = (tokens.ids[: tokens.length + 2] for tokens in rows)
    return align(before, after, model.max_tokens, own=own_padding(before, after))


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
