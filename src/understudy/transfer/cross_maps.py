"""How each target's cross-attention maps are mixed from the source's and its own in each step.

Knows prompts and their alignment; does not know latents or other swaps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from understudy.attention.plan import CrossMix
from understudy.diffusion.words import Alignment
from understudy.models.interface import DiffusionModel
from understudy.transfer.readings import alignment as alignment

CrossMapsAt = Callable[[int], Sequence[CrossMix | None]]
"""For a step's index: the mix of source and own maps of each target (A); None keeps its own."""


def steady(model: DiffusionModel, alignments: Sequence[Alignment]) -> CrossMapsAt:
    """The same maps in every step, by one alignment per target."""
    # Built once per run and put on the device: the alignment does not depend on the step.
    maps = tuple(
        CrossMix.aligned(0, found.mapper, found.alphas, device=model.device, dtype=model.dtype)
        for found in alignments
    )
    return lambda index: maps
