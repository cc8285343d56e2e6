"""`Text`: everything a network reads of prompts; `Tokens`: a prompt as one encoder reads it.

Methods concatenate, repeat, select and store texts without knowing what a family reads beside the
token embeddings. Knows tensors only; knows nothing of tokenizers or encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Rows = int | slice | Sequence[int] | Tensor
ENDINGS = ("", ".pooled", ".mask", ".guidance")  # of the names of a text's tensors in a file


@dataclass(frozen=True)
class Tokens:
    """A prompt as one text encoder reads it.

    Attributes:
        ids: as many ids as the encoder takes, start and end token included, padded.
        strings: the real tokens between start and end as text, "</w>" marking the end of a word.
        spans: first and behind-last character in the prompt of each string, by the tokenizer's
            offsets; None where it gives none.
        first: place of the first string in the sequence that attention reads.
    """

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    spans: tuple[tuple[int, int], ...] | None = None
    first: int = 1

    @property
    def length(self) -> int:
        """Number of real tokens, without start, end and padding."""
        return len(self.strings)


@dataclass(frozen=True, eq=False)
class Text:
    """Embedded prompts.

    Attributes:
        tokens: token embeddings, of all encoders along the sequence.
        pooled: one vector a prompt (XL, SD3, FLUX.1); None = the family reads none.
        mask: which tokens attention may read; None = all of them.
        guidance: the guidance scale that a guidance-distilled network reads; None = 1.
    """

    tokens: Float[Tensor, "b n width"]
    pooled: Float[Tensor, "b pooled"] | None = None
    mask: Bool[Tensor, "b n"] | None = None
    guidance: Float[Tensor, " b"] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Text) and self.dtype == other.dtype and self.equals(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __getitem__(self, rows: Rows) -> Text:
        """Some rows. A single number gives a Text of one row."""
        some = slice(rows, rows + 1 if rows != -1 else None) if isinstance(rows, int) else rows
        some = list(some) if isinstance(some, Sequence) else some
        return self._each(lambda values: values[some])

    @property
    def dtype(self) -> torch.dtype:
        return self.tokens.dtype

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @property
    def trainable(self) -> list[Tensor]:
        """The tensors an optimiser may change."""
        # The mask and the guidance scale are facts about the prompt, not embeddings to optimise.
        return [self.tokens] if self.pooled is None else [self.tokens, self.pooled]

    def with_trainable(self, values: Sequence[Tensor]) -> Text:
        """The same text with other values for its `trainable` tensors, in their order."""
        pooled = None if self.pooled is None else values[1]
        return Text(values[0], pooled, self.mask, self.guidance)

    def guided(self, scale: float) -> Text:
        """The same with a guidance scale for the network to read, in every row."""
        scales = torch.full((len(self),), float(scale), device=self.device)
        return Text(self.tokens, self.pooled, self.mask, scales)

    def to(self, like: Text | torch.dtype | torch.device) -> Text:
        """The same on another's device and in its dtype, or in that dtype, or on that device."""
        if isinstance(like, Text):
            return self.to(like.device).to(like.dtype)
        mask, scale = self.mask, self.guidance
        if isinstance(like, torch.device):
            mask = None if mask is None else mask.to(like)
            scale = None if scale is None else scale.to(like)
        pooled = None if self.pooled is None else self.pooled.to(like)
        return Text(self.tokens.to(like), pooled, mask, scale)

    def expand(self, count: int) -> Text:
        """One row repeated `count` times, without a copy."""
        return self._each(lambda values: values.expand(count, *values.shape[1:]))

    def detach(self) -> Text:
        """The same values, cut off from their gradients."""
        return self._each(Tensor.detach)

    def clone(self) -> Text:
        """A copy."""
        return self._each(Tensor.clone)

    def equals(self, other: Text) -> bool:
        """Whether all values are the same, in this one's dtype and on its device."""
        mine, theirs = self.tensors("text"), other.to(self).tensors("text")
        return mine.keys() == theirs.keys() and all(
            torch.equal(values, theirs[name]) for name, values in mine.items()
        )

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """What is there, by name, for a file: `prefix`, `prefix.pooled` and so on."""
        parts = (self.tokens, self.pooled, self.mask, self.guidance)
        named = {f"{prefix}{end}": values for end, values in zip(ENDINGS, parts, strict=True)}
        return {name: values for name, values in named.items() if values is not None}

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor], prefix: str) -> Text | None:
        """What `tensors` gave, taken out of the dict; None where it is not there."""
        parts = [tensors.pop(f"{prefix}{end}", None) for end in ENDINGS]
        return None if parts[0] is None else cls(parts[0], *parts[1:])

    @classmethod
    def cat(cls, texts: Sequence[Text]) -> Text:
        """The rows of several texts of one family, in order.

        Shorter texts that have a mask are padded with masked zeros.
        """
        longest = max(text.tokens.shape[1] for text in texts)
        texts = [text if text.mask is None else text.padded(longest) for text in texts]
        more: list[Tensor | None] = []
        for name in ("pooled", "mask", "guidance"):
            found = [value for text in texts if (value := getattr(text, name)) is not None]
            # A batch in which some rows have a pooled vector and others none would shift rows
            # silently.
            if len(found) not in (0, len(texts)):
                raise ValueError(f"texts of one family have all a {name}, or none.")
            more.append(torch.cat(found) if found else None)
        return cls(torch.cat([text.tokens for text in texts]), *more)

    def padded(self, length: int) -> Text:
        """The same, masked zeros behind its tokens; itself where it has no mask."""
        behind = length - self.tokens.shape[1]
        if not behind or self.mask is None:
            return self
        tokens = torch.nn.functional.pad(self.tokens, (0, 0, 0, behind))
        mask = torch.nn.functional.pad(self.mask, (0, behind), value=False)
        return Text(tokens, self.pooled, mask, self.guidance)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Text:
        more = (self.pooled, self.mask, self.guidance)
        return Text(
            change(self.tokens), *(None if values is None else change(values) for values in more)
        )
