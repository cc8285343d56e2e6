"""Parses the options of `edit` for single words: WORD=2.0, WORD=0.1:0.4, OLD=NEW."""

from __future__ import annotations

from understudy.edit import WordEdits
from understudy.errors import InputError
from understudy.transfer.source_target import Replacement


def said_of_words(reweight: list[str], window: list[str], preserve: list[str]) -> WordEdits:
    """The options parsed. Raises InputError, naming the option."""
    weights = {
        word: _numbers("--reweight", given)[0] for word, given in _pairs("--reweight", reweight)
    }
    windows = {
        word: (ends[0], ends[1]) if len(ends) > 1 else ends[0]
        for word, given in _pairs("--window", window)
        for ends in [_numbers("--window", given)]
    }
    return WordEdits(weights=weights, windows=windows, preserve=tuple(preserve))


def blended_words(blend: str | None) -> tuple[Replacement, ...]:
    """ "cat=red dog" or "cat": the word in the source prompt, and its counterpart in the target."""
    before, _, after = (part.strip() for part in (blend or "").partition("="))
    return (Replacement(before, after or before),) if before else ()


def _pairs(name: str, given: list[str]) -> list[tuple[str, str]]:
    """ "cat=2.0" -> the word and its value."""
    pairs = [(word.strip(), said.strip()) for word, _, said in (g.rpartition("=") for g in given)]
    for (word, said), whole in zip(pairs, given, strict=True):
        if not word or not said:
            raise InputError(f"{name} must be WORD=NUMBER, like cat=0.5. Got {whole!r}.")
    return pairs


def _numbers(name: str, given: str) -> list[float]:
    """ "0.1:0.4" -> [0.1, 0.4]; a weight is one number, a window one or two from 0 to 1."""
    try:
        found = [float(part) for part in given.split(":")]
    except ValueError:
        found = list[float]()
    fits = len(found) == 1 or (name == "--window" and len(found) == 2)
    if name == "--window":
        fits = fits and 0 <= min(found) and found == sorted(found) and max(found) <= 1
    if not fits or not all(abs(number) < 1e6 for number in found):
        wanted = "a share or FROM:TO, from 0 to 1" if name == "--window" else "a number"
        raise InputError(f"{name} needs {wanted} after the word. Got {given!r}.")
    return found
