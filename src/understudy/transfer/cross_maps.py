"""How each target's cross-attention maps are mixed from the source's and its own, step by step.

Knows prompts and their alignment; knows nothing of steps' other swaps, and no latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from understudy.attention.plan import CrossMix
from understudy.diffusion.words import Alignment
from understudy.models.interface import DiffusionModel
from understudy.transfer.readings import alignment as alignment

MixesAt = Callable[[int], Sequence[CrossMix | None]]
"""For a step's index: how each target mixes source and own maps (A); None keeps its own."""


def steady(model: DiffusionModel, alignments: Sequence[Alignment]) -> MixesAt:
    """The same mix in every step, by one alignment a target."""
    mixes = tuple(
        CrossMix.aligned(0, found.mapper, found.alphas, device=model.device, dtype=model.dtype)
        for found in alignments
    )
    return lambda index: mixes
