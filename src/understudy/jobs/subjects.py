"""Parses `WORD=CONCEPT`, loads the concepts, and makes the target prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept
from understudy.concept.value import STRONGEST
from understudy.errors import InputError
from understudy.jobs.results import check_place
from understudy.jobs.selecting import Selected
from understudy.jobs.source import check_source
from understudy.jobs.words import check_plain, note_forms
from understudy.jobs.work import Work
from understudy.settings.inputs import ExplainInputs, SwapInputs
from understudy.swap.subjects import with_replacements
from understudy.transfer.source_target import Replacement, Target

_SWAP = re.compile(r"\s*([^=#]+?)\s*(?:#\s*([1-9]\d*))?\s*=\s*(.+?)\s*(?::([0-9.]+))?\s*")


@dataclass(frozen=True)
class SwapSubjects:
    """Replaced words, the concepts in their place, and the target prompt they make."""

    replacements: tuple[Replacement, ...] = ()
    concepts: tuple[Concept, ...] = ()
    target: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the prompt that are replaced, each once."""
        return tuple(dict.fromkeys(one.word for one in self.replacements))

    def wanted(self, mask: Float[Tensor, "1 1 h w"] | None = None) -> Target:
        """The target of the swap. mask: where the photo may change."""
        return Target(self.target, self.replacements, mask)


def checked_swap(work: Work, given: SwapInputs | ExplainInputs) -> tuple[SwapSubjects, Selected]:
    """What swap, sweep and explain check before a model is loaded: output, source, words, concepts.

    Returns the subjects, and where the photo may change. Raises what the checks raise.
    """
    check_place(given.out, work)
    selected = check_source(given)
    check_swaps(work, given.swap, given.prompt)
    if given.photo is not None:
        work.photo(given.photo)
    return subjects_of(work, given.swap, given.prompt), selected


def check_swaps(work: Work, swaps: Sequence[str], prompt: str) -> None:
    """Find every word in the prompt, before anything is read. Raises InputError, PromptError."""
    check_plain("--prompt", prompt)
    parts = [split(text) for text in swaps]
    with_replacements(prompt, [Replacement(one.word, one.word, one.occurrence) for one in parts])
    note_forms(work, [prompt], [one.word for one in parts])


def subjects_of(work: Work, swaps: Sequence[str], prompt: str) -> SwapSubjects:
    """`--swap` options with their concepts loaded."""
    parts = [split(text) for text in swaps]
    names = list(dict.fromkeys(one.concept for one in parts))
    strengths = {name: {one.strength for one in parts if one.concept == name} for name in names}
    for name, asked in strengths.items():
        if len(asked) > 1:
            raise InputError(
                f"--swap gives {name} two strengths. A picture has one strength per concept."
            )
    concepts = tuple(
        replace(concept, strength=min(strengths[name]))
        for name, concept in zip(names, work.concepts(names), strict=True)
    )
    for concept in concepts:
        if concept.tail is not None:
            raise InputError(
                f"--swap: {concept.name} was learnt with --method hiper and cannot replace a word. "
                "Use it with understudy edit, or learn it with another --method."
            )
    phrases = {name: concept.phrase for name, concept in zip(names, concepts, strict=True)}
    for one in names:
        twin = [other for other in names if phrases[other] == phrases[one] and other != one]
        if twin:
            raise InputError(
                f'{one} and {twin[0]} are both "{phrases[one]}" in prompts, so the model cannot '
                "tell them apart. Learn one of them again with another --identifier."
            )
    replacements = tuple(
        Replacement(one.word, phrases[one.concept], one.occurrence) for one in parts
    )
    return SwapSubjects(replacements, concepts, with_replacements(prompt, replacements))


@dataclass(frozen=True)
class Swap:
    """One `--swap`: the word, which of its occurrences (from 0), the concept, its strength."""

    word: str
    occurrence: int | None
    concept: str
    strength: float = 1.0


def split(swap: str) -> Swap:
    """ "cat=rex", "cat#2=rex", "cat=rex:0.7"; raises InputError for anything else."""
    match = _SWAP.fullmatch(swap)
    try:
        strength = float(match[4] or 1) if match else -1.0
    except ValueError:
        strength = -1.0
    if not match or not 0 <= strength <= STRONGEST:
        raise InputError(
            f"--swap must be WORD=CONCEPT, like cat=rex or cat#2=rex, or with a strength from 0 to "
            f"{STRONGEST:g}, like cat=rex:0.7. Got {swap!r}."
        )
    place = int(match[2]) - 1 if match[2] else None
    return Swap(match[1], place, match[3], strength)
