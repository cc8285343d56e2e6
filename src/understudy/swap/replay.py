"""Source and targets denoised side by side, the targets taking features from the source.

The loop below Photoswap and prompt-to-prompt: they differ in which steps take what, in how source
words answer to target words, and in where latents are blended; all of these come in as values.
Knows models through their protocol; knows no settings, no files and no concepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention import CrossMix
from understudy.diffusion import ddim_step, guided, next_lower
from understudy.invert.inversion import Inversion, moves
from understudy.models.interface import DiffusionModel
from understudy.swap.blend import Blend, blended
from understudy.swap.rows import Layout, Needs, SwapControl, Texts, lay_out, rows_of
from understudy.swap.schedule import Swaps, SwapSchedule
from understudy.words import Alignment, align, own_padding

MAP_TOKENS = 1024  # M as published: only in layers of up to 32 x 32

MixesAt = Callable[[int], Sequence[CrossMix | None]]
"""For a step's index: how each target mixes source and own maps (A); None keeps its own."""


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
    mixes: MixesAt | None = None,
    texts: Float[Tensor, "k tokens width"] | None = None,
) -> Iterator[SwapStep]:
    """Denoise target prompts beside the source, swapping as the schedule says.

    All targets share one run of the source; no two targets see each other.

    Args:
        mixes: what A does in a step that swaps it; None = the alignment of each pair of prompts.
        texts: embeddings of the targets; None = those of their prompts.
    """
    if mixes is None:
        mixes = steady(model, [alignment(model, inversion.prompt, target) for target in targets])
    if texts is None:
        # One prompt a call: an embedding must not depend on its neighbours, not even by rounding.
        texts = torch.cat([model.embed([target]) for target in targets])
    run = _Run(model, inversion, texts, schedule, guidance, blend, map_tokens, mixes)
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
        texts: Tensor,
        schedule: SwapSchedule,
        guidance: float,
        blend: Blend | None,
        map_tokens: int,
        mixes: MixesAt,
    ) -> None:
        self.model, self.inversion, self.schedule = model, inversion, schedule
        self.guidance, self.blend, self.map_tokens = guidance, blend, map_tokens
        self.empty, self.source = model.embed([""]), model.embed([inversion.prompt])
        self.targets, self.mixes = texts, mixes
        height, width = inversion.noise.shape[-2:]
        self.size = (int(height), int(width))
        self.sums = None if blend is None else blend.sums(self.size)

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
        mixes = self.mixes(index) if swaps.cross_map else ()
        control = SwapControl(where, swaps, mixes, self.map_tokens, self.sums)
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
        found = blend.found(self.sums, self.size)[:, None]
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


def steady(model: DiffusionModel, alignments: Sequence[Alignment]) -> MixesAt:
    """The same mix in every step, by one alignment a target."""
    mixes = tuple(
        CrossMix.aligned(0, found.mapper, found.alphas, device=model.device, dtype=model.dtype)
        for found in alignments
    )
    return lambda index: mixes


def alignment(model: DiffusionModel, source: str, target: str) -> Alignment:
    """Which source token each target token takes its cross-attention from."""
    rows = [model.tokenize(prompt) for prompt in (source, target)]
    before, after = (tokens.ids[: tokens.length + 2] for tokens in rows)
    return align(before, after, model.max_tokens, own=own_padding(before, after))
