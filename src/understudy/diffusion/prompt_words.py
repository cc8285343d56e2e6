"""The words of a prompt: what counts as one, and where a named word or phrase stands.

This is the only definition of "a word of the prompt" in the package. Everything that looks for a
word a user named goes through `word_spans`, before any model is needed. Knows characters only;
which tokens a span covers is computed in `words`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from understudy.errors import PromptError

Span = tuple[int, int]

_JOINERS = "'’-"
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)
_SHORTEST_SINGULAR = 3  # "his" is not the plural of "hi", nor "as" of "a"
_IRREGULAR = {
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "tooth": "teeth",
}


def words_of(prompt: str) -> tuple[str, ...]:
    """The words of a prompt in order, without punctuation.

    A word is a run of letters, digits and underscores; apostrophes and hyphens inside it belong to
    it: "a toy-cat's bed, red" has the words a, toy-cat's, bed, red.
    """
    return tuple(prompt[start:end] for start, end in _spans(prompt))


def word_spans(prompt: str, word: str, *, occurrence: int | None = None) -> tuple[Span, ...]:
    """Where a word or a phrase of several words stands in a prompt, as character spans.

    Case and the punctuation between words do not matter. A possessive ending is no part of the
    word: "cat" is found in "the cat's bed", and the span ends before the apostrophe. Part of a
    word is not found: a "toy-cat" is no "cat". Where the word itself is absent, its plural or
    singular is found (of a phrase, that of its last word); `prompt[start:end]` tells.

    Args:
        occurrence: 0-based number of the one occurrence that is meant; None means all of them.

    Raises:
        PromptError: the prompt lacks the word, or that occurrence of it; lists the words it has.
    """
    wanted = tuple(map(fold, words_of(word)))
    found = _matches(prompt, wanted, _is_same) or _matches(prompt, wanted, _is_other_number)
    if not found:
        raise missing(word, (prompt,))
    if occurrence is None:
        return tuple(found)
    if not 0 <= occurrence < len(found):
        raise PromptError(
            f'the prompt "{prompt}" has the word "{word}" {len(found)} time(s), '
            f"so it has no occurrence {occurrence + 1}."
        )
    return (found[occurrence],)


def inflected(prompt: str, word: str) -> tuple[str, ...]:
    """The other forms in which a prompt has a word: ("cats",) for "cat" in "two cats".

    Empty where the prompt has the word as it was named, or lacks it.
    """
    try:
        spans = word_spans(prompt, word)
    except PromptError:
        return ()
    wanted = tuple(map(fold, words_of(word)))
    texts = dict.fromkeys(prompt[start:end] for start, end in spans)
    return tuple(text for text in texts if tuple(map(fold, words_of(text))) != wanted)


def missing(word: str, prompts: Sequence[str]) -> PromptError:
    """The error for a word that none of the prompts has; lists the words they have."""
    there = ", ".join(dict.fromkeys(w for prompt in prompts for w in words_of(prompt))) or "none"
    quoted = "; ".join(f'"{prompt}"' for prompt in prompts)
    if len(prompts) == 1:
        fault = f'the word "{word}" is not in the prompt {quoted}; its words are: {there}. '
    else:
        fault = f'the word "{word}" is in none of the prompts {quoted}; their words are: {there}. '
    return PromptError(fault + "Name one of these, or write the word into the prompt.")


def fold(text: str) -> str:
    """The text in composed, lower-case letters, for comparisons."""
    return unicodedata.normalize("NFC", text).lower()


def _spans(prompt: str) -> list[Span]:
    """The character span of every word."""
    spans: list[Span] = []
    start = None
    for i in range(len(prompt) + 1):
        if i < len(prompt) and (_is_letter(prompt[i]) or (start is not None and _joins(prompt, i))):
            start = i if start is None else start
        elif start is not None:
            spans.append((start, i))
            start = None
    return spans


def _is_letter(character: str) -> bool:
    """A letter, digit, underscore, or a mark such as the accent of a decomposed letter."""
    return (
        character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
    )


def _joins(prompt: str, i: int) -> bool:
    """Whether character i joins the letters on both sides of it into one word."""
    return prompt[i] in _JOINERS and _is_letter(prompt[i - 1]) and _is_letter(prompt[i + 1 : i + 2])


def _matches(prompt: str, wanted: tuple[str, ...], same: Callable[[str, str], bool]) -> list[Span]:
    """Spans of runs of words: all but the last equal the wanted ones, the last by `same`."""
    spans, found = _spans(prompt), list[Span]()
    for first in range(len(spans) - len(wanted) + 1 if wanted else 0):
        run = spans[first : first + len(wanted)]
        texts = [fold(prompt[start:end]) for start, end in run]
        if texts[:-1] != list(wanted[:-1]) or (found and run[0][0] < found[-1][1]):
            continue
        # "the cat's tail" has the word cat: attention is then read at the tokens of "cat" alone.
        bare = _POSSESSIVE.sub("", prompt[slice(*run[-1])])
        if same(texts[-1], wanted[-1]):
            found.append((run[0][0], run[-1][1]))
        elif same(fold(bare), wanted[-1]):
            found.append((run[0][0], run[-1][0] + len(bare)))
    return found


def _is_same(a: str, b: str) -> bool:
    return a == b


def _is_other_number(a: str, b: str) -> bool:
    """Whether one is a plural of the other, by the rules of English spelling."""
    return a in _plurals(b) or b in _plurals(a)


def _plurals(word: str) -> set[str]:
    """The spellings that the plural of a folded word may have."""
    irregular = {
        word.removesuffix(one) + many for one, many in _IRREGULAR.items() if word.endswith(one)
    }
    if word.endswith("man"):
        irregular.add(word.removesuffix("man") + "men")
    if len(word) < _SHORTEST_SINGULAR or not word[-1].isalpha():
        return irregular
    # Rules of spelling are enough here: a wrong plural that nobody writes is never found in a
    # prompt.
    plurals = {word + "s"}
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        plurals.add(word + "es")
    if word.endswith("y") and word[-2] not in "aeiou":
        plurals.add(word[:-1] + "ies")
    if word.endswith("f"):
        plurals.add(word[:-1] + "ves")
    if word.endswith("fe"):
        plurals.add(word[:-2] + "ves")
    return plurals | irregular
