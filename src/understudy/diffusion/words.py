"""Which tokens belong to which word, and which token of one prompt answers to which of another.

Knows prompts, token ids and tokens as text; knows nothing about models, attention or steps.

A *place* is an index into the padded token row: 0 is the start token, 1 the first real token.
*Strings* are the texts of the real tokens, in order, without the start and end tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.prompt_weights import unweighted
from understudy.diffusion.prompt_words import fold, word_spans
from understudy.diffusion.text import Tokens
from understudy.errors import PromptError

Reading = Tokens | Sequence[Tokens] | Sequence[str]
"""A prompt's tokens, those in each of several encoders, or just its pieces."""


@dataclass(frozen=True)
class Alignment:
    """For each target token the source token it takes attention from, and how much of it.

    Attributes:
        mapper: source place per target place; -1 where the target token is new.
        alphas: 1 where the target token takes the source's attention, 0 where it keeps its own.
    """

    mapper: tuple[int, ...]
    alphas: tuple[float, ...]


def word_places(
    prompt: str, word: str, tokens: Reading, *, occurrence: int | None = None
) -> tuple[int, ...]:
    """The places of the tokens that make up a word, or a phrase of several words.

    Finds what `prompt_words.word_spans` finds, whatever number of tokens a word takes, and raises
    what that raises. Tokens are found by the tokenizer's character offsets; without any, pieces
    are spelled out and counted off along the prompt. With several encoders, places in all of them.
    """
    if several := _several(tokens):
        each = [word_places(prompt, word, one, occurrence=occurrence) for one in several]
        return tuple(place for places in each for place in places)
    # Character offsets are exact for every tokenizer; spelling pieces out is the fallback for slow
    # tokenizers without them.
    if isinstance(tokens, Tokens) and tokens.spans is not None:
        wanted = word_spans(prompt, word, occurrence=occurrence)
        return tuple(
            place
            for place, (start, end) in enumerate(tokens.spans, start=tokens.first)
            if any(start < last and first < end for first, last in wanted)
        )
    strings = strings_of(tokens)
    found = [
        (_squeezed(fold(prompt[:start])), _squeezed(fold(prompt[:end])))
        for start, end in word_spans(prompt, word, occurrence=occurrence)
    ]
    spans = _string_spans(prompt, strings)
    return tuple(
        place
        for place, (start, end) in enumerate(spans, start=1)
        if any(start < last and first < end for first, last in found)
    )


def strings_of(tokens: Reading) -> Sequence[str]:
    """The texts of the real tokens, in the first encoder."""
    if several := _several(tokens):
        return several[0].strings
    return tokens.strings if isinstance(tokens, Tokens) else cast(Sequence[str], tokens)


def _several(tokens: Reading) -> tuple[Tokens, ...]:
    """The tokens in each encoder; empty where there is one encoder."""
    if isinstance(tokens, Tokens):
        return ()
    return tuple(one for one in tokens if isinstance(one, Tokens))


def split_places(prompt: str, strings: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The places of each word of `prompt.split(" ")`, counted off by letters.

    This is the published rule (Prompt-to-Prompt, Hertz et al. 2022, and Photoswap, Gu et al.
    2023): a comma belongs to the word it touches, and a word ends when its letters are used up.
    """
    words = unweighted(prompt).split(" ")
    places: list[list[int]] = [[] for _ in words]
    word = letters = 0
    for place, string in enumerate(strings, start=1):
        if word == len(words):
            break
        places[word].append(place)
        # The published rule counts letters and takes no notice of what they are.
        letters += len(string.removesuffix("</w>").strip("# "))
        if letters >= len(words[word]):
            word, letters = word + 1, 0
    return tuple(map(tuple, places))


def exact_places(prompt: str, word: str, tokens: Reading) -> tuple[int, ...]:
    """The places of a word by the published rule: `word` equals a blank-separated word exactly.

    Empty where there is none: "woman" is not "woman," and no phrase of two words is ever found.
    """
    spans = split_places(prompt, strings_of(tokens))
    words = unweighted(prompt).split(" ")
    return tuple(place for i, span in enumerate(spans) if words[i] == word for place in span)


def align(
    source: Sequence[int], target: Sequence[int], length: int, *, own: Collection[int] = ()
) -> Alignment:
    """Align two token rows by their longest common subsequence.

    A new or replaced target token is aligned with nothing and keeps its own attention. Padding
    is aligned by place, as published: a target shorter than the source meets source words there.
    Of a repeated token the first is taken. (Refinement of Prompt-to-Prompt; Photoswap's A.)

    Args:
        source, target: token ids with start and end token, without padding.
        length: places in the padded row.
        own: places of the target that keep their own attention whatever they match, such as a
            learnt tail behind the prompt.
    """
    # Needleman-Wunsch with gap 0, match 1, mismatch -1 gives the same alignment as the authors'
    # code.
    common = _common_lengths(source, target)
    mapper = list(range(length))
    mapper[: len(target)] = [-1] * len(target)
    i, j = len(source), len(target)
    while i and j:
        # Walked from the end, so that of a repeated token the first is matched.
        if common[i][j] == common[i][j - 1]:
            j -= 1
        elif common[i][j] == common[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            mapper[j] = i
    alphas = (float(place >= 0 and j not in own) for j, place in enumerate(mapper))
    return Alignment(tuple(mapper), tuple(alphas))


def own_padding(source: Sequence[int], target: Sequence[int]) -> range:
    """Target padding that would meet real source words when aligned by place.

    For `align(..., own=...)` where the target is the shorter prompt; empty otherwise.
    """
    return range(len(target), len(source))


def replace_matrix(
    source: str,
    target: str,
    source_pieces: Sequence[str],
    target_pieces: Sequence[str],
    length: int,
    *,
    drift: bool = False,
) -> Float[Tensor, "length length"]:
    """How target attention is mixed from source attention when words replace words in place.

    Row i, column j: the share of source token i's attention that target token j receives. A
    word of n target tokens gives each 1/n of the source word's attention; equally long words
    pass it on token by token. (Replacement of Prompt-to-Prompt, Hertz et al. 2022.)

    Args:
        drift: repeat the published slip: behind the last replaced word token j takes from
            source token j, even where the words before it differ in length.

    Raises:
        PromptError: the prompts differ in their number of words.
    """
    before, after = unweighted(source).split(" "), unweighted(target).split(" ")
    if len(before) != len(after):
        raise PromptError(
            f'replacing word by word needs equally many words: "{source}" has {len(before)}, '
            f'"{target}" has {len(after)}. Use refinement for added or removed words.'
        )
    source_spans = split_places(source, source_pieces)
    target_spans = split_places(target, target_pieces)
    matrix = torch.zeros(length, length)
    i = j = 0
    for n, (old, new) in enumerate(zip(before, after, strict=True)):
        old_span, new_span = source_spans[n], target_spans[n]
        # Unchanged words need no block of their own: the diagonal up to the next changed word
        # covers them.
        if old == new or not old_span or not new_span:
            continue
        same = old_span[0] - i
        _set_diagonal(matrix, i, j, same)
        if len(old_span) == len(new_span):
            _set_diagonal(matrix, old_span[0], new_span[0], len(old_span))
        else:
            # Words of unequal length: each new token sees the mean of the old word's tokens.
            rows = slice(old_span[0], old_span[-1] + 1)
            matrix[rows, new_span[0] : new_span[-1] + 1] = 1 / len(new_span)
        i, j = old_span[-1] + 1, new_span[-1] + 1
    rest = length - max(i, j)
    _set_diagonal(matrix, j if drift else i, j, rest)
    return matrix


def _set_diagonal(matrix: Float[Tensor, "length length"], i: int, j: int, count: int) -> None:
    steps = torch.arange(max(count, 0))
    matrix[i + steps, j + steps] = 1.0


def _common_lengths(source: Sequence[int], target: Sequence[int]) -> list[list[int]]:
    """Length of the longest common subsequence of every pair of beginnings."""
    lengths = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, old in enumerate(source, start=1):
        for j, new in enumerate(target, start=1):
            longest = max(lengths[i - 1][j], lengths[i][j - 1])
            lengths[i][j] = max(longest, lengths[i - 1][j - 1] + 1) if old == new else longest
    return lengths


def _string_spans(prompt: str, strings: Sequence[str]) -> list[tuple[int, int]]:
    """Where each string lies, in bytes, in the prompt with its blanks taken out."""
    words = fold(prompt).split()
    # CLIP's pieces are text, those of byte-level BPE are bytes in disguise.
    for read in (_as_text, _as_bytes):
        parts = [read(string.removesuffix("</w>")) for string in strings]
        if b"".join(parts) == "".join(words).encode():
            ends = [0, *accumulate(map(len, parts))]
            return list(pairwise(ends))
    # Strings that do not spell the prompt: count letters off, word by word.
    ends = [0, *accumulate(map(_squeezed, words))]
    places = split_places(" ".join(words), strings)
    spans = {
        place: span for span, word in zip(pairwise(ends), places, strict=True) for place in word
    }
    return [spans.get(place, (0, 0)) for place in range(1, len(strings) + 1)]


def _squeezed(text: str) -> int:
    return len("".join(text.split()).encode())


def _as_text(string: str) -> bytes:
    return fold(string.strip()).encode()


def _as_bytes(string: str) -> bytes:
    """The bytes behind a string of byte-level BPE, which writes each byte as one letter."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in shown}
    letters |= {chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in shown)}
    return b"".join(
        bytes([letters[letter]]) if letter in letters else letter.encode() for letter in string
    )
