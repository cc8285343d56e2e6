"""Which words of the source prompt are replaced, and by which phrases.

Knows prompts; knows no pictures, models but their tokens, and no concepts but their phrases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from understudy.diffusion.prompt_words import word_spans
from understudy.diffusion.words import word_places
from understudy.errors import InputError
from understudy.models.interface import DiffusionModel
from understudy.transfer.readings import readings
from understudy.transfer.source_target import Replacement


def with_replacements(prompt: str, replacements: Sequence[Replacement]) -> str:
    """The prompt with every word replaced by its phrase.

    Words are found by `prompt_words.word_spans`, which attention uses, too: a word found here is
    also found in the tokens. Raises PromptError for a word that the prompt lacks,
    InputError for two replacements in one place.
    """
    found: list[tuple[int, int, str]] = []
    for replacement in replacements:
        spans = word_spans(prompt, replacement.word, occurrence=replacement.occurrence)
        found += [(start, end, replacement.phrase) for start, end in spans]
    for (_, end, _), (start, _, phrase) in zip(sorted(found), sorted(found)[1:], strict=False):
        if start < end:
            raise InputError(f'two swaps name the same word of "{prompt}": {phrase}. Remove one.')
    for start, end, phrase in sorted(found, reverse=True):
        prompt = prompt[:start] + phrase + prompt[end:]
    return prompt


def subjects_named(prompt: str, replacements: Sequence[Replacement]) -> int | None:
    """The number of subjects that the words name in the prompt; None if it is not known.

    A word that ends in "s" may be a plural of any number.
    """
    spans = [
        span
        for replacement in replacements
        for span in word_spans(prompt, replacement.word, occurrence=replacement.occurrence)
    ]
    if not spans or any(prompt[start:end].lower().endswith("s") for start, end in spans):
        return None
    return len(spans)


def source_places(
    model: DiffusionModel, prompt: str, replacements: Sequence[Replacement]
) -> tuple[int, ...]:
    """The token places of all replaced words in the source prompt."""
    tokens = readings(model, prompt)
    return _together(
        word_places(prompt, replacement.word, tokens, occurrence=replacement.occurrence)
        for replacement in replacements
    )


def target_places(
    model: DiffusionModel, prompt: str, replacements: Sequence[Replacement]
) -> tuple[int, ...]:
    """The token places of all phrases in a target prompt."""
    tokens = readings(model, prompt)
    return _together(
        word_places(prompt, replacement.phrase, tokens) for replacement in replacements
    )


def _together(places: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted({place for some in places for place in some}))
