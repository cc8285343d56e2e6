"""Where a learnt tail (HiPer) stands in an embedded prompt.

Padded sequences (CLIP; T5 of SD3 and FLUX.1), whose padding attention reads: the last places, as in
Han et al. 2023 (arXiv:2303.08767). Masked sequences (Qwen-Image, Z-Image, Chroma): behind the
tokens that are read, which then are that many more. Knows texts and models through their protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from understudy.diffusion.text import Text, Tokens
from understudy.errors import PromptError
from understudy.models.interface import DiffusionModel


def opened(
    model: DiffusionModel, text: Text, prompts: Sequence[str], counts: Sequence[int]
) -> tuple[Text, list[range]]:
    """A copy of embedded prompts with room for counts[row] embeddings in each row, and where it is.

    What stands there is padding; in a masked sequence it is a copy of the last token that is read.
    Raises PromptError where the prompt's own words would be cut off, and where the places of the
    picture would move: Z-Image counts them from the end of the text, rounded up to 32 tokens.
    """
    if text.mask is None:
        return text.clone(), _at_the_end(model, text, prompts, counts)
    starts = [int(count) for count in text.mask.sum(1)]
    found = [range(start, start + count) for start, count in zip(starts, counts, strict=True)]
    for prompt, places in zip(prompts, found, strict=True):
        if places:
            _check_masked(model, prompt, places)
    text = text.padded(max(text.tokens.shape[1], *(places.stop for places in found))).clone()
    assert text.mask is not None
    tokens, mask = text.tokens.clone(), text.mask
    for row, places in enumerate(found):
        tokens[row, places.start : places.stop] = tokens[row, places.start - 1]
        mask[row, places.start : places.stop] = True
    return replace(text, tokens=tokens, mask=mask), found


def _at_the_end(
    model: DiffusionModel, text: Text, prompts: Sequence[str], counts: Sequence[int]
) -> list[range]:
    length = text.tokens.shape[1]
    for prompt, count in zip(prompts, counts, strict=True):
        last = _last_reading(model, prompt)
        if count and last.first + last.length + 1 > length - count:
            raise PromptError(
                f"The prompt {prompt!r} leaves no room for {count} learnt embeddings after it. "
                "Shorten the prompt."
            )
    return [range(length - count, length) for count in counts]


def _check_masked(model: DiffusionModel, prompt: str, places: range) -> None:
    multiple = int(getattr(model, "text_multiple", 1))
    end = min(-(-places.start // multiple) * multiple, model.max_tokens)
    if multiple > 1 and places.stop > end:
        raise PromptError(
            f"{len(places)} learnt embeddings after {prompt!r} would shift the positions of the "
            f"image tokens: the prompt has {places.start} tokens, and the embeddings must end at "
            f"token {end} or before. Shorten or lengthen the prompt by a few words."
        )
    if places.stop > model.max_tokens:
        raise PromptError(
            f"The prompt {prompt!r} leaves no room for {len(places)} learnt embeddings after it. "
            "Shorten the prompt."
        )


def _last_reading(model: DiffusionModel, prompt: str) -> Tokens:
    """The prompt's tokens in the encoder whose sequence is the last."""
    several = getattr(model, "readings", None)
    return model.tokenize(prompt) if several is None else several(prompt)[-1]
