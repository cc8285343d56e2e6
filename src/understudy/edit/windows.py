"""The steps in which each word takes the source's cross-attention.

Knows prompts, tokens as text and numbers of steps; knows nothing of attention or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.prompt_words import missing
from understudy.diffusion.words import Reading, exact_places, word_places
from understudy.errors import PromptError

Window = float | tuple[float, float]
EVERY = "default_"  # the published name for all words that are not named


def word_windows(
    targets: Sequence[str],
    tokens: Sequence[Reading],
    steps: int,
    windows: Window | Mapping[str, Window],
    length: int,
    *,
    exact: bool = False,
) -> Float[Tensor, "steps_1 targets length"]:
    """1 where a target's token takes the source's cross-attention at a step, 0 elsewhere.

    A window is (start, end) as fractions of the run, or just its end; a mapping gives words
    windows of their own and all other tokens that of "default_" (all steps where it is absent).
    As published there is one row more than steps, and bounds are fractions of that number.

    Args:
        exact: find words by the published rule, punctuation included; see `words.exact_places`.

    Raises:
        PromptError: no target has one of the words.
    """
    table = dict(windows) if isinstance(windows, Mapping) else {EVERY: windows}
    every = table.pop(EVERY, (0.0, 1.0))
    find = exact_places if exact else places_if_any
    rows = torch.zeros(steps + 1, len(targets), length)
    _set(rows, every, range(length))
    for word, window in table.items():
        spans = [find(t, word, p) for t, p in zip(targets, tokens, strict=True)]
        if not any(spans):
            raise missing(word, targets)
        for n, span in enumerate(spans):
            _set(rows[:, n : n + 1], window, span)
    return rows


def places_if_any(prompt: str, word: str, tokens: Reading) -> tuple[int, ...]:
    """The places of a word; none where the prompt lacks it."""
    try:
        return word_places(prompt, word, tokens)
    except PromptError:
        return ()


def places_in(
    prompts: Sequence[str], word: str, tokens: Sequence[Reading]
) -> tuple[tuple[int, ...], ...]:
    """The places of a word in each prompt. Raises PromptError where no prompt has it."""
    found = tuple(places_if_any(p, word, own) for p, own in zip(prompts, tokens, strict=True))
    if not any(found):
        raise missing(word, prompts)
    return found


def _set(rows: Float[Tensor, "n targets length"], window: Window, places: Sequence[int]) -> None:
    start, end = window if isinstance(window, tuple) else (0.0, window)
    columns = list(places)
    rows[:, :, columns] = 0.0
    rows[int(start * len(rows)) : int(end * len(rows)), :, columns] = 1.0
