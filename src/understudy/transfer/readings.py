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
    """Which source token each target token takes its attention from, encoder by encoder.

    CLIP and T5: all places of the padded row, as `words.align` says. A language model, whose
    template surrounds the prompt: the prompt's own tokens; all others keep their attention.
    """
    mapper, alphas = list[int](), list[float]()
    for old, new in zip(readings(model, source), readings(model, target), strict=True):
        offset = len(mapper)
        if not _padded(old, new, offset):
            return _of_pieces(old, new, model.max_tokens)
        # Up to and with the end token: behind it the padding of both prompts is aligned as a whole.
        before, after = (one.ids[: one.first - offset + one.length + 1] for one in (old, new))
        found = align(before, after, len(new.ids), own=own_padding(before, after))
        mapper += [place + offset if place >= 0 else -1 for place in found.mapper]
        alphas += found.alphas
    # SD3 without T5 fills its place in the sequence with zeros: no words are there.
    behind = model.max_tokens - len(mapper)  # an encoder that the model lacks: zeros
    return Alignment((*mapper, *[-1] * behind), (*alphas, *[0.0] * behind))


def replacement(model: DiffusionModel, source: str, target: str) -> Float[Tensor, "length length"]:
    """`words.replace_matrix` for every encoder, each with its own block. Raises what that does."""
    whole = torch.zeros(model.max_tokens, model.max_tokens)
    offset = 0
    for old, new in zip(readings(model, source), readings(model, target), strict=True):
        before, after = ([_letters(string) for string in one.strings] for one in (old, new))
        if not _padded(old, new, offset):
            words = replace_matrix(source, target, before, after, 1 + max(old.length, new.length))
            rows = slice(old.first, old.first + old.length)
            columns = slice(new.first, new.first + new.length)
            whole[rows, columns] = words[1 : 1 + old.length, 1 : 1 + new.length]
            for place in range(new.first):
                whole[place, place] = 1.0
            for place in range(new.first + new.length, model.max_tokens):
                partner = min(place + old.length - new.length, model.max_tokens - 1)
                whole[partner, place] = 1.0
            return whole
        starts = new.first - offset  # 1 where the sequence begins with a start token
        behind, length = 1 - starts, len(new.ids)  # replace_matrix counts a start token
        block = replace_matrix(source, target, before, after, length + behind)[behind:, behind:]
        whole[offset : offset + length, offset : offset + length] = block
        offset += length
    for place in range(offset, model.max_tokens):
        whole[place, place] = 1.0
    return whole


def _padded(old: Tokens, new: Tokens, offset: int) -> bool:
    """Whether rows are padded to one length and begin with the prompt (CLIP, T5)."""
    return len(old.ids) == len(new.ids) and {old.first - offset, new.first - offset} <= {0, 1}


def _of_pieces(old: Tokens, new: Tokens, length: int) -> Alignment:
    numbers = {string: n for n, string in enumerate(dict.fromkeys((*old.strings, *new.strings)))}
    before, after = ([numbers[string] for string in one.strings] for one in (old, new))
    found = align(before, after, len(after))
    mapper = [-1] * length
    for place, partner in enumerate(found.mapper):
        if partner >= 0:
            mapper[new.first + place] = old.first + partner
    return Alignment(tuple(mapper), tuple(float(partner >= 0) for partner in mapper))


def _letters(string: str) -> str:
    """A piece without the blank in front that T5 and byte-level tokenizers write as a letter."""
    return string.replace("\u2581", " ").replace("\u0120", " ")
