"""A prompt in every text encoder whose tokens stand in the sequence that attention reads.

One encoder for Stable Diffusion 1.x, 2.x and XL; CLIP, then T5, for Stable Diffusion 3. Places are
those of the whole sequence. Knows models through their protocol.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.text import Tokens
from understudy.diffusion.words import Alignment, align, own_padding, replace_matrix
from understudy.models.interface import DiffusionModel


@runtime_checkable
class ReadsWithSeveral(Protocol):
    """A model with several text encoders along one sequence."""

    def readings(self, prompt: str) -> tuple[Tokens, ...]:
        """The prompt's tokens in every encoder, in order of their places."""
        ...


def readings(model: DiffusionModel, prompt: str) -> tuple[Tokens, ...]:
    """The prompt's tokens in every encoder. Raises PromptError where they are too many."""
    if isinstance(model, ReadsWithSeveral):
        return model.readings(prompt)
    return (model.tokenize(prompt),)


def alignment(model: DiffusionModel, source: str, target: str) -> Alignment:
    """Which source token each target token takes its attention from, encoder by encoder."""
    mapper, alphas = list[int](), list[float]()
    for old, new in zip(readings(model, source), readings(model, target), strict=True):
        offset = len(mapper)
        before, after = (one.ids[: one.first - offset + one.length + 1] for one in (old, new))
        found = align(before, after, len(new.ids), own=own_padding(before, after))
        mapper += [place + offset if place >= 0 else -1 for place in found.mapper]
        alphas += found.alphas
    behind = model.max_tokens - len(mapper)  # an encoder that the model lacks: zeros
    return Alignment((*mapper, *[-1] * behind), (*alphas, *[0.0] * behind))


def replacement(model: DiffusionModel, source: str, target: str) -> Float[Tensor, "length length"]:
    """`words.replace_matrix` for every encoder, each with its own block. Raises what that does."""
    blocks = list[Tensor]()
    offset = 0
    for old, new in zip(readings(model, source), readings(model, target), strict=True):
        starts = new.first - offset  # 1 where the sequence begins with a start token
        before, after = (
            [piece.replace("\u2581", " ") for piece in one.pieces] for one in (old, new)
        )
        behind = 1 - starts  # replace_matrix counts a start token
        whole = replace_matrix(source, target, before, after, len(new.ids) + behind)
        blocks.append(whole[behind:, behind:])
        offset += len(new.ids)
    rest = torch.eye(model.max_tokens - offset)
    return torch.block_diag(*blocks, rest) if len(rest) else torch.block_diag(*blocks)
