"""HiPer (Han et al. 2023, arXiv:2303.08767): one photo, n embeddings behind its prompt.

The last n of a prompt's 77 text embeddings, padding but for very long prompts, are set free and
learn what the words do not say; the words in front stand still, so that others can take their place
later. The text encoder never sees the tail, the U-Net does not train at all. In use the tail is
scaled by 0.8, as the authors' code does (`concept.embedded`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from understudy.concept.value import TAIL
from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.learn.trainable import Trainable, widest
from understudy.models.interface import DiffusionModel


@contextmanager
def tail_of(model: DiffusionModel, prompt: str, count: int) -> Generator[Trainable]:
    """The last `count` embeddings of the prompt, ready for training; it begins as they are.

    Raises InputError where the prompt's own words would be cut off.
    """
    end, room = model.max_tokens, model.max_tokens - 2 - model.tokenize(prompt).length
    if count > room:
        raise InputError(
            f"--tail {count} would cut off words of {prompt!r}, behind which are {room} places."
        )
    with torch.no_grad():
        start = model.embed([prompt]).tokens[0, end - count : end]
    tail = nn.Parameter(start.to(widest(start.dtype)).clone())

    def embed(prompts: Sequence[str]) -> Text:
        with torch.no_grad():
            text = model.embed(prompts).to(tail.dtype)
        behind = tail.expand(len(text), -1, -1)
        return replace(text, tokens=torch.cat([text.tokens[:, : end - count], behind], dim=1))

    yield Trainable({TAIL: tail}, embed, True, lambda: {TAIL: tail.detach().cpu().clone()})
