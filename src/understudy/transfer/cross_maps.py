"""How each target's cross-attention maps are mixed from the source's and its own, step by step.

Knows prompts and their alignment; knows nothing of steps' other swaps, and no latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from understudy.attention.plan import CrossMix
from understudy.diffusion.words import Alignment, align, own_padding
from understudy.models.interface import DiffusionModel

MixesAt = Callable[[int], Sequence[CrossMix | None]]
"""For a step's index: how each target mixes source and own maps (A); None keeps its own."""


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
