"""What the commands check and say about the words of prompts, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from understudy.cli import show
from understudy.errors import PromptError

if TYPE_CHECKING:
    from understudy.concept import Concept
    from understudy.edit import WordEdits


def note_forms(prompts: Iterable[str], words: Iterable[str]) -> None:
    """Say which words are found in a prompt only as a plural or a singular."""
    from understudy.diffusion.prompt_words import inflected

    asked = list(dict.fromkeys(words))
    for prompt in dict.fromkeys(prompts):
        for word in asked:
            for form in inflected(prompt, word):
                show.note(f'"{word}" is taken to mean "{form}" in the prompt "{prompt}".')


def check_edited_words(
    source: str, to: Sequence[str], words: WordEdits, concepts: Sequence[Concept]
) -> None:
    """Find every word that an edit names in its prompts, and note plurals.

    Raises PromptError for a word that is missing, or a {name} that no concept has.
    """
    from understudy.concept import spelled

    targets = [spelled(target, *concepts) for target in to]
    everywhere = (source, *targets)
    for prompts, named in ((targets, (*words.weights, *words.windows)), (everywhere, words.keep)):
        for word in named:
            _check_in_any(prompts, word)
        note_forms(prompts, named)
    before, after = words.blend or ("", "")
    for prompt, word in ((source, before), *((target, after) for target in targets)):
        if words.blend is not None:
            _check_in_any((prompt,), word)
            note_forms((prompt,), (word,))


def _check_in_any(prompts: Sequence[str], word: str) -> None:
    from understudy.diffusion.prompt_words import missing, word_spans

    for prompt in prompts:
        with suppress(PromptError):
            word_spans(prompt, word)
            return
    raise missing(word, prompts)
