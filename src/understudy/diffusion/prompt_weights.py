r"""Weights of words written into a prompt, as AUTOMATIC1111's web UI and ComfyUI read them.

::

    (word)        weight 1.1           (word:1.3)    weight 1.3, from 0 to 4
    [word]        weight 1 / 1.1       \( \) \[ \]   the characters themselves

Groups may be nested; their weights are multiplied. A group with a number must be round. Knows
characters and embeddings; knows no tokenizer and no encoder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import PromptError

STRONGER = 1.1  # the weight of (word); [word] has its inverse
LARGEST = 4.0
_MARKS = frozenset("()[]\\")
_ESCAPED = re.compile(r"\\([()\[\]\\])")
_WEIGHTED = re.compile(r"(?<!\\)\([^()]*:\s*\d*\.?\d+\s*\)")
_NUMBER = re.compile(r":\s*([^\s:()\[\]]+)\s*\)")


@dataclass(frozen=True)
class Weighted:
    """A prompt without its marks.

    Attributes:
        text: what the encoder reads.
        weights: of each character of the text.
        places: where each character of the text stands in the prompt as written.
    """

    text: str
    weights: tuple[float, ...]
    places: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether every weight is 1."""
        return all(weight == 1 for weight in self.weights)

    def written(self, start: int, end: int) -> tuple[int, int]:
        """A span of the text as a span of the prompt as written."""
        if start >= end or not self.places:
            at = self.places[start] if start < len(self.places) else 0
            return at, at
        return self.places[start], self.places[end - 1] + 1


def weighted(prompt: str) -> Weighted:
    """The text of a prompt and the weights in it.

    Raises PromptError for a bracket without its partner, and for a weight that is no number from 0
    to 4.
    """
    # Most prompts have no weights: they must not pay for the parser.
    if not _MARKS & set(prompt):
        return Weighted(prompt, (1.0,) * len(prompt), tuple(range(len(prompt))))
    text: list[str] = []
    weights: list[float] = []
    places: list[int] = []
    opened: list[tuple[str, int, int]] = []  # bracket, its place, characters of text before it
    i = 0
    while i < len(prompt):
        mark = prompt[i]
        if _ESCAPED.match(prompt, i):
            mark, i = "", i + 1
        number = _NUMBER.match(prompt, i) if mark == ":" else None
        if number and opened and opened[-1][0] == "(":
            _scale(weights, opened.pop()[2], _weight(number[1], prompt))
            i = number.end()
            continue
        if mark and mark in "([":
            opened.append((mark, i, len(text)))
        elif mark and mark in ")]":
            if not opened or opened[-1][0] != {")": "(", "]": "["}[mark]:
                raise _unpaired(prompt, mark, i)
            factor = STRONGER if mark == ")" else 1 / STRONGER
            _scale(weights, opened.pop()[2], factor)
        else:
            text.append(prompt[i])
            weights.append(1.0)
            places.append(i)
        i += 1
    if opened:
        raise _unpaired(prompt, *opened[-1][:2])
    return Weighted("".join(text), tuple(weights), tuple(places))


def unweighted(prompt: str) -> str:
    """The text of a prompt without weights and escapes."""
    return weighted(prompt).text


def refuse_weights(prompt: str, name: str) -> None:
    """Raise PromptError for (word:1.3) in a prompt of a model that reads brackets as text.

    name: of the model.
    """
    found = _WEIGHTED.search(prompt)
    if found:
        raise PromptError(
            f"{found[0]} is a word weight, which {name} does not support. Write the words without "
            "weights."
        )


def escaped(text: str) -> str:
    """A text as a prompt that reads its brackets as characters."""
    return re.sub(r"([()\[\]\\])", r"\\\1", text)


def token_weights(
    prompt: Weighted, spans: Sequence[tuple[int, int]], first: int, length: int
) -> Float[Tensor, " n"]:
    """The weight of each of `length` tokens: of a piece, the mean over its characters.

    spans: characters of the text of each piece, the first piece at place `first`. Start token, end
    token and padding have weight 1.
    """
    found = torch.ones(length)
    for place, (start, end) in enumerate(spans, start=first):
        if start < end:
            # A piece may straddle the end of a group; the mean is the fair compromise.
            found[place] = sum(prompt.weights[start:end]) / (end - start)
    return found


def weigh(
    tokens: Float[Tensor, "b n width"],
    empty: Float[Tensor, "1 n width"],
    weights: Float[Tensor, "b n"],
) -> Float[Tensor, "b n width"]:
    """Each token t moved from the empty prompt's token e at its place: e + weight * (t - e).

    This is ComfyUI's rule. Weight 1 leaves a token bit for bit, weight 0 takes it out.
    """
    # Scaled about the empty prompt, not about zero: zero is not a neutral embedding for CLIP.
    factor = weights.to(tokens)[..., None]
    return torch.where(factor == 1, tokens, empty + factor * (tokens - empty))


def _scale(weights: list[float], start: int, factor: float) -> None:
    weights[start:] = [weight * factor for weight in weights[start:]]


def factor_in(written: str, most: float) -> float | None:
    """A number from 0 to `most` as it is written in a prompt; None for anything else."""
    try:
        value = float(written)
    except ValueError:
        return None
    return value if 0 <= value <= most else None


def _weight(written: str, prompt: str) -> float:
    value = factor_in(written, LARGEST)
    if value is None:
        raise PromptError(
            f"A weight in a prompt is a number from 0 to {LARGEST:g}, like (word:1.3). Got "
            f"{written!r} in {prompt!r}. Write \\( and \\) for brackets that are not weights."
        )
    return value


def _unpaired(prompt: str, mark: str, place: int) -> PromptError:
    return PromptError(
        f"The bracket {mark} at character {place + 1} of the prompt {prompt!r} is unmatched. "
        f"Brackets set word weights, like (word:1.3); write \\{mark} for the character itself."
    )
