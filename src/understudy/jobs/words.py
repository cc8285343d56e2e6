"""What is checked and noted about the words of prompts, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from understudy.concept import Concept, spelled
from understudy.concept.value import names_in
from understudy.diffusion.prompt_words import inflected, missing, word_spans
from understudy.edit import WordEdits
from understudy.errors import PromptError
from understudy.jobs.work import Work
from understudy.settings import InvertSettings
from understudy.settings.invert import check_negative
from understudy.transfer.source_target import Target


def note_forms(work: Work, prompts: Iterable[str], words: Iterable[str]) -> None:
    """Say which words are found in a prompt only as a plural or a singular."""
    asked = list(dict.fromkeys(words))
    for prompt in dict.fromkeys(prompts):
        for word in asked:
            for form in inflected(prompt, word):
                work.note(f'"{word}" is read as "{form}" in the prompt "{prompt}".')


def check_plain(option: str, prompt: str) -> None:
    """Raise PromptError for a prompt that names a concept where none can be named."""
    if "{" in prompt or "}" in prompt:
        raise PromptError(
            f"{option} cannot name a concept. Write it without braces. Got {prompt!r}."
        )


def check_negative_prompt(negative: str, asked: InvertSettings) -> None:
    """Raise PromptError for a negative prompt that names a concept, InputError for one that the
    inversion leaves no place for."""
    check_plain("--negative", negative)
    check_negative(negative, asked)


def check_concepts(work: Work, prompts: Sequence[str], concepts: Sequence[Concept]) -> None:
    """Say which concepts no prompt names.

    A concept that changes weights still acts, so that is a note. One that acts only through its
    own words (Textual Inversion, HiPer) does nothing: PromptError.
    """
    named = {name for prompt in prompts for name in names_in(prompt)}
    for concept in concepts:
        if concept.phrases.keys() & named or any(_says(prompt, concept) for prompt in prompts):
            continue
        how = f"write {{{concept.name}}} into the prompt, as in a photo of {{{concept.name}}}"
        if concept.acts_by_words:
            raise PromptError(
                f"--concept {concept.name} has no effect: the prompt does not name it. "
                f"Either {how}, or leave the option out."
            )
        work.note(f"the prompt does not name the concept {concept.name}. To use it, {how}.")


def _says(prompt: str, concept: Concept) -> bool:
    """Whether a prompt has the words a concept was learnt by; those of HiPer are everybody's."""
    with suppress(PromptError):
        return bool(concept.identifier and word_spans(prompt, concept.identifier))
    return False


def check_edited_words(
    work: Work,
    source: str,
    targets: Sequence[Target],
    words: WordEdits,
    concepts: Sequence[Concept],
) -> None:
    """Find every word that an edit names in its prompts, and note plurals.

    Raises PromptError for a word that is missing, a {name} that no concept has, and a concept that
    would change nothing.
    """
    check_plain("--prompt", source)
    check_concepts(work, [target.prompt for target in targets], concepts)
    spelt = [spelled(target.prompt, *concepts) for target in targets]
    everywhere = (source, *spelt)
    for prompts, named in (
        (spelt, (*words.weights, *words.windows)),
        (everywhere, words.preserve),
    ):
        for word in named:
            _check_in_any(prompts, word)
        note_forms(work, prompts, named)
    for target, prompt in zip(targets, spelt, strict=True):
        for replaced in target.words:
            for where, word in ((source, replaced.word), (prompt, replaced.phrase)):
                _check_in_any((where,), word)
                note_forms(work, (where,), (word,))


def _check_in_any(prompts: Sequence[str], word: str) -> None:
    for prompt in prompts:
        with suppress(PromptError):
            word_spans(prompt, word)
            return
    raise missing(word, prompts)
