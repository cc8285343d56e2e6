"""Which words of the source prompt are replaced, and by which phrases.

Knows prompts; knows no pictures, models but their tokens, and no concepts but their phrases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from understudy.diffusion.prompt_words import word_spans
from understudy.diffusion.words import word_places
from understudy.errors import InputError
from understudy.models.interface import DiffusionModel
from understudy.transfer.readings import readings


@dataclass(frozen=True)
class Replacement:
    """One subject of a photo, and who plays it.

    word: a word or phrase of the source prompt. actor: what stands there in the target prompt;
    where several target prompts name several, one for each. occurrence: which of a repeated word
    is meant, from 0; None = all of them, as of two identical subjects.
    """

    word: str
    phrase: str | tuple[str, ...]
    occurrence: int | None = None

    def phrase_in(self, target: int) -> str:
        """The phrase in target prompt number `target`."""
        return self.phrase if isinstance(self.phrase, str) else self.phrase[target]


def with_replacements(prompt: str, replacements: Sequence[Replacement], target: int = 0) -> str:
    """The prompt with every role's word replaced by its actor.

    Words are found by `prompt_words.word_spans`, as they are for attention later: what passes
    here is also found in the tokens. Raises PromptError for a word that the prompt lacks,
    InputError for two roles in one place.
    """
    found: list[tuple[int, int, str]] = []
    for replacement in replacements:
        spans = word_spans(prompt, replacement.word, occurrence=replacement.occurrence)
        found += [(start, end, replacement.phrase_in(target)) for start, end in spans]
    for (_, end, _), (start, _, phrase) in zip(sorted(found), sorted(found)[1:], strict=False):
        if start < end:
            raise InputError(f'two swaps name the same word of "{prompt}"; the second is {phrase}.')
    for start, end, phrase in sorted(found, reverse=True):
        prompt = prompt[:start] + phrase + prompt[end:]
    return prompt


def subjects_named(prompt: str, replacements: Sequence[Replacement]) -> int | None:
    """How many subjects the roles' words name in the prompt; None where that is not known.

    A word that ends in "s" may be a plural, and then says no number.
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
    """The places of all roles' words in the source prompt."""
    tokens = readings(model, prompt)
    return _together(
        word_places(prompt, replacement.word, tokens, occurrence=replacement.occurrence)
        for replacement in replacements
    )


def target_places(
    model: DiffusionModel, prompt: str, replacements: Sequence[Replacement], target: int
) -> tuple[int, ...]:
    """The places of all actors in target prompt number `target`."""
    tokens = readings(model, prompt)
    return _together(
        word_places(prompt, replacement.phrase_in(target), tokens) for replacement in replacements
    )


def _together(places: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted({place for some in places for place in some}))
