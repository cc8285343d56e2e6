"""Prompts longer than a CLIP text encoder reads, in chunks, as AUTOMATIC1111's web UI does.

Each chunk is a prompt of its own for the encoder, with start and end token; the embeddings follow
each other in the sequence that cross-attention reads. Knows models by `embed` and `tokenize` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol, runtime_checkable

import torch

from understudy.diffusion.prompt_weights import Weighted, escaped, weighted
from understudy.diffusion.text import Text, Tokens
from understudy.errors import PromptError


@runtime_checkable
class Reader(Protocol):
    """The part of a model that reads prompts."""

    def tokenize(self, prompt: str) -> Tokens: ...
    def embed(self, prompts: Sequence[str]) -> Text: ...


def chunks(prompt: str, fits: Callable[[str], bool]) -> list[str]:
    """A prompt cut between words into prompts that fit, weights kept.

    A cut is made behind the last comma where one is in the second half of what fits. Raises
    PromptError where a single word does not fit.
    """
    if fits(prompt):
        return [prompt]
    said, found = weighted(prompt), list[str]()
    ends = [i for i, letter in enumerate(said.text) if letter == " "] + [len(said.text)]
    start = 0
    while start < len(said.text):
        fitting = [end for end in ends if end > start and fits(_written(said, start, end))]
        if not fitting:
            raise PromptError(f"The prompt {prompt!r} has a word that is too long. Shorten it.")
        end = fitting[-1]
        # A cut behind a comma keeps a phrase together; one in the first half would waste too much
        # room.
        comma = said.text.rfind(",", start, end)
        if end < len(said.text) and comma > (start + end) // 2:
            end = comma + 1
        found.append(_written(said, start, end).strip())
        start = end
    return found


def embedded_long(
    model: Reader, prompts: Sequence[str], negatives: Sequence[str]
) -> tuple[Text, Text]:
    """The texts of prompts and of negative prompts, equally long: short ones are followed by empty
    chunks. The pooled vector is that of the first chunk."""

    cut = [chunks(prompt, lambda text: fits(model, text)) for prompt in (*prompts, *negatives)]
    longest = max(map(len, cut))
    rows: list[Text] = []
    for parts in cut:
        # All rows of a batch need one length: empty chunks fill up.
        texts = [model.embed([part]) for part in (*parts, *[""] * (longest - len(parts)))]
        tokens = torch.cat([text.tokens for text in texts], dim=1)
        masks = [text.mask for text in texts if text.mask is not None]
        rows.append(Text(tokens, texts[0].pooled, torch.cat(masks, dim=1) if masks else None))
    return Text.cat(rows[: len(prompts)]), Text.cat(rows[len(prompts) :])


def fits(model: Reader, prompt: str) -> bool:
    """Whether a model reads a prompt in one piece."""
    weighted(prompt)  # a bracket without a partner is an error, not a long prompt
    try:
        model.tokenize(prompt)
    except PromptError:
        return False
    return True


def _written(said: Weighted, start: int, end: int) -> str:
    """A part of a text as a prompt with its weights."""
    parts: list[str] = []
    letters = zip(said.text[start:end], said.weights[start:end], strict=True)
    for weight, run in groupby(letters, key=lambda pair: pair[1]):
        text = escaped("".join(letter for letter, _ in run))
        parts.append(text if weight == 1 else f"({text}:{weight:.6g})")
    return "".join(parts)
