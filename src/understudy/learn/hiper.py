"""HiPer (Han et al. 2023, arXiv:2303.08767): one photo, n embeddings behind its prompt.

The last n of a prompt's 77 text embeddings, padding but for very long prompts, are set free and
learn what the words do not say; the words in front stand still, so that others can take their place
later. The text encoder never sees the tail, the U-Net does not train at all. In use the tail is
scaled by 0.8, as the authors' code does (`concept.embedded`). Where other families have it is said
in `concept/tail.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from understudy.concept.tail import opened
from understudy.concept.value import TAIL
from understudy.diffusion.text import Text
from understudy.errors import InputError, PromptError
from understudy.learn.trainable import Trainable, widest
from understudy.models.interface import DiffusionModel


@contextmanager
def tail_of(model: DiffusionModel, prompt: str, count: int) -> Generator[Trainable]:
    """The last `count` embeddings of the prompt, ready for training; it begins as they are.

    Raises InputError where the prompt's own words would be cut off.
    """
    with torch.no_grad():
        text = model.embed([prompt])
        try:
            text, (places,) = opened(model, text, [prompt], [count])
        except PromptError as error:
            raise InputError(f"--tail {count} does not fit: {error}") from error
        start = text.tokens[0, places.start : places.stop]
    tail = nn.Parameter(start.to(widest(start.dtype)).clone())

    def embed(prompts: Sequence[str]) -> Text:
        with torch.no_grad():
            # The words stay fixed, so no gradient goes through the text encoder.
            text = model.embed(prompts).to(tail.dtype)
            text, places = opened(model, text, prompts, [count] * len(prompts))
        tokens = text.tokens.clone()
        for row, those in enumerate(places):
            tokens[row, those.start : those.stop] = tail
        return replace(text, tokens=tokens)

    yield Trainable({TAIL: tail}, embed, True, lambda: {TAIL: tail.detach().cpu().clone()})
