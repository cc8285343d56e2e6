"""Columns of a target's cross-attention map: which come from the source, and how.

The three edits of prompt-to-prompt (Hertz et al. 2022, arXiv:2208.01626, section 3.2): replacement,
refinement, reweighting. Knows prompts and tokens; knows nothing of steps, latents or layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.words import Alignment
from understudy.models.interface import DiffusionModel
from understudy.transfer.readings import replacement


@dataclass(frozen=True)
class Columns:
    """What a target's map is made of where it takes the source's: A_source @ shared + A_own * own.

    Before any window of steps. Float64, on the CPU.
    """

    shared: Float[Tensor, "length length"]
    own: Float[Tensor, " length"]

    def weighed(self, weights: Mapping[int, float]) -> Columns:
        """The columns of some places multiplied (reweighting: section 3.2 of the paper)."""
        factor = torch.ones_like(self.own)
        for place, weight in weights.items():
            factor[place] = weight
        return Columns(self.shared * factor, self.own * factor)

    def without(self, places: Sequence[int]) -> Columns:
        """These places keep their own map, whatever else is said of them."""
        shared, own = self.shared.clone(), self.own.clone()
        shared[:, list(places)], own[list(places)] = 0.0, 1.0
        return Columns(shared, own)


def refined(alignment: Alignment) -> Columns:
    """Refinement: words of both prompts take the source's map, new ones keep their own."""
    length = len(alignment.mapper)
    shared, own = torch.zeros(length, length).double(), torch.ones(length).double()
    pairs = zip(alignment.mapper, alignment.alphas, strict=True)
    for token, (partner, alpha) in enumerate(pairs):
        if partner >= 0:
            shared[partner, token], own[token] = alpha, 1 - alpha
    return Columns(shared, own)


def replaced(matrix: Float[Tensor, "length length"]) -> Columns:
    """Replacement: every token takes the source's map, by a `words.replace_matrix`."""
    return Columns(matrix.double(), torch.zeros(len(matrix)).double())


def columns_of(
    model: DiffusionModel,
    source: str,
    target: str,
    alignment: Alignment,
    *,
    how: str,
    weights: Mapping[int, float],
    own: Sequence[int] = (),
) -> Columns:
    """The columns of one target prompt.

    Args:
        how: "replace", "refine", or "auto": replace where there are as many words, else refine.
        weights: factor on the attention to target places.
        own: places that keep their own map, such as a learnt tail's.
    """
    same = len(source.split(" ")) == len(target.split(" "))
    if how == "replace" or (how == "auto" and same):
        found = replaced(replacement(model, source, target))
    else:
        found = refined(alignment)
    return found.weighed(weights).without(own)
