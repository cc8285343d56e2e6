"""Who takes whose place: `WORD=CONCEPT` read, concepts loaded, the target prompt made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from understudy.concept import Concept
from understudy.errors import InputError
from understudy.jobs.words import check_plain, note_forms
from understudy.jobs.work import Work
from understudy.swap.subjects import Role, cast

_SWAP = re.compile(r"\s*([^=#]+?)\s*(?:#\s*([1-9]\d*))?\s*=\s*(.+?)\s*")


@dataclass(frozen=True)
class Cast:
    """Roles, the concepts that play them, and the prompt they make."""

    roles: tuple[Role, ...] = ()
    concepts: tuple[Concept, ...] = ()
    target: str = ""


def check_swaps(work: Work, swaps: Sequence[str], prompt: str) -> None:
    """Find every word in the prompt, before anything is read. Raises InputError, PromptError."""
    check_plain("--prompt", prompt)
    parts = [split(text) for text in swaps]
    cast(prompt, [Role(word, word, place) for word, place, _ in parts])
    note_forms(work, [prompt], [word for word, _, _ in parts])


def cast_of(work: Work, swaps: Sequence[str], prompt: str) -> Cast:
    """`--swap` options with their concepts loaded."""
    parts = [split(text) for text in swaps]
    names = list(dict.fromkeys(name for _, _, name in parts))
    concepts = work.concepts(names)
    for concept in concepts:
        if concept.tail is not None:
            raise InputError(
                f"--swap: {concept.name} is a learnt tail behind a prompt (hiper), which no word's "
                "place can take. Use it with understudy edit, or learn it by another --method."
            )
    phrases = {name: concept.phrase for name, concept in zip(names, concepts, strict=True)}
    for one in names:
        twin = [other for other in names if phrases[other] == phrases[one] and other != one]
        if twin:
            raise InputError(
                f'{one} and {twin[0]} are both "{phrases[one]}" in prompts, so the model cannot '
                "tell them apart. Learn one of them anew with another --identifier."
            )
    roles = tuple(Role(word, phrases[name], place) for word, place, name in parts)
    return Cast(roles, concepts, cast(prompt, roles))


def split(swap: str) -> tuple[str, int | None, str]:
    """ "cat=rex" or "cat#2=rex" -> the word, which of its occurrences (from 0), the concept."""
    match = _SWAP.fullmatch(swap)
    if not match:
        raise InputError(f"--swap must be WORD=CONCEPT, like cat=rex, or cat#2=rex. Got {swap!r}.")
    return match[1], int(match[2]) - 1 if match[2] else None, match[3]
