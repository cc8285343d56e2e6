"""What is checked and noted about the words of prompts, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from understudy.concept import Concept, spelled
from understudy.diffusion.prompt_words import inflected, missing, word_spans
from understudy.edit import WordEdits
from understudy.errors import PromptError
from understudy.jobs.work import Work


def note_forms(work: Work, prompts: Iterable[str], words: Iterable[str]) -> None:
    """Say which words are found in a prompt only as a plural or a singular."""
    asked = list(dict.fromkeys(words))
    for prompt in dict.fromkeys(prompts):
        for word in asked:
            for form in inflected(prompt, word):
                work.note(f'"{word}" is taken to mean "{form}" in the prompt "{prompt}".')


def check_edited_words(
    work: Work, source: str, to: Sequence[str], words: WordEdits, concepts: Sequence[Concept]
) -> None:
    """Find every word that an edit names in its prompts, and note plurals.

    Raises PromptError for a word that is missing, or a {name} that no concept has.
    """
    targets = [spelled(target, *concepts) for target in to]
    everywhere = (source, *targets)
    for prompts, named in ((targets, (*words.weights, *words.windows)), (everywhere, words.keep)):
        for word in named:
            _check_in_any(prompts, word)
        note_forms(work, prompts, named)
    before, after = words.blend or ("", "")
    for prompt, word in ((source, before), *((target, after) for target in targets)):
        if words.blend is not None:
            _check_in_any((prompt,), word)
            note_forms(work, (prompt,), (word,))


def _check_in_any(prompts: Sequence[str], word: str) -> None:
    for prompt in prompts:
        with suppress(PromptError):
            word_spans(prompt, word)
            return
    raise missing(word, prompts)
