"""Prompts as each family's network reads them: several encoders along one sequence.

Encoders are called as the family's diffusers pipeline calls them, so embeddings are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.diffusion.text import Text, Tokens
from understudy.models.transformer.encoders import Encoder, clip_states, last_state


@runtime_checkable
class Reader(Protocol):
    """A family's way from prompts to what its network reads.

    max_tokens: length of the sequence that attention reads, at most. padded: whether every prompt
    is padded to that length. vocabulary: tokens and ids
    of the tokenizer that `tokenize` uses. encoders: those whose token embeddings can be learnt.
    """

    max_tokens: int
    padded: bool
    vocabulary: Mapping[str, int]
    encoders: tuple[Encoder, ...]

    def tokenize(self, prompt: str) -> Tokens:
        """The prompt's tokens as the first encoder of the sequence reads it."""
        ...

    def readings(self, prompt: str) -> tuple[Tokens, ...]:
        """The prompt's tokens in every encoder of the sequence, in order of their places."""
        ...

    def embed(self, prompts: Sequence[str]) -> Text:
        """All that the network reads of prompts."""
        ...


class SD3Reader:
    """CLIP-L beside CLIP-G, then T5 behind them; both CLIP vectors pooled.

    t5: None where the folder has none; zeros are read in its place then, as in diffusers, where
    they are attended to as well. width: of the network's tokens.
    """

    padded = True

    def __init__(
        self, name: str, clips: Sequence[Encoder], t5: Encoder | None, *, width: int, length: int
    ) -> None:
        self.name, self.clips, self.t5 = name, tuple(clips), t5
        self.width, self.t5_length = width, length if t5 is None else t5.length
        self.max_tokens = clips[0].length + self.t5_length
        self.vocabulary: Mapping[str, int] = dict(clips[0].tokenizer.get_vocab())
        self.encoders = (*clips, *([] if t5 is None else [t5]))

    def tokenize(self, prompt: str) -> Tokens:
        """CLIP's tokens. Raises PromptError for a prompt that no encoder reads whole."""
        return self.readings(prompt)[0]

    def readings(self, prompt: str) -> tuple[Tokens, ...]:
        """CLIP's tokens, cut off at its length, and T5's."""
        self._check(prompt)
        found = [self.clips[0].read(prompt)]
        if self.t5 is not None:
            found.append(self.t5.read(prompt, first=self.clips[0].length))
        return tuple(found)

    def embed(self, prompts: Sequence[str]) -> Text:
        """See the class."""
        for prompt in prompts:
            self._check(prompt)
        states, pooled = zip(*(clip_states(clip, prompts) for clip in self.clips), strict=True)
        beside = torch.cat(states, dim=-1)
        behind = self._t5(prompts, beside)
        beside = F.pad(beside, (0, behind.shape[-1] - beside.shape[-1]))
        return Text(torch.cat([beside, behind], dim=1), torch.cat(pooled, dim=-1))

    def _check(self, prompt: str) -> None:
        """Raise PromptError where even the encoder with the most places cuts the prompt off."""
        encoders = [self.clips[0], *([] if self.t5 is None else [self.t5])]
        max(encoders, key=lambda encoder: encoder.room).check(prompt, self.name)

    def _t5(self, prompts: Sequence[str], like: Tensor) -> Tensor:
        if self.t5 is None:
            return like.new_zeros(len(prompts), self.t5_length, self.width)
        return last_state(self.t5, prompts)


class T5Reader:
    """T5 alone along the sequence: what FLUX.1 and Chroma share."""

    padded = True

    def __init__(self, name: str, t5: Encoder) -> None:
        self.name, self.t5 = name, t5
        self.max_tokens = t5.length
        self.vocabulary: Mapping[str, int] = dict(t5.tokenizer.get_vocab())
        self.encoders: tuple[Encoder, ...] = (t5,)

    def tokenize(self, prompt: str) -> Tokens:
        """T5's tokens. Raises PromptError for a prompt that it does not read whole."""
        self.t5.check(prompt, self.name)
        return self.t5.read(prompt)

    def readings(self, prompt: str) -> tuple[Tokens, ...]:
        """T5's tokens; those of a CLIP beside it reach the pooled vector only."""
        return (self.tokenize(prompt),)


class FluxReader(T5Reader):
    """Padding attended to; CLIP's pooled vector beside it (FLUX.1)."""

    def __init__(self, name: str, clip: Encoder, t5: Encoder) -> None:
        super().__init__(name, t5)
        self.clip = clip
        self.encoders = (clip, t5)

    def embed(self, prompts: Sequence[str]) -> Text:
        """See the class."""
        for prompt in prompts:
            self.t5.check(prompt, self.name)
        pooled = self.clip(prompts).pooler_output
        return Text(last_state(self.t5, prompts), pooled)


class ChromaReader(T5Reader):
    """Padding masked, but for the first padding token, which the network reads (Chroma)."""

    def embed(self, prompts: Sequence[str]) -> Text:
        """See the class."""
        counts = [self.tokenize(prompt).length + 1 for prompt in prompts]  # with the end token
        device = next(self.t5.network.parameters()).device
        places = torch.arange(self.t5.length, device=device)
        ends = torch.tensor(counts, device=device)[:, None]
        states = self.t5(prompts, attention_mask=(places < ends).long())[0]
        return Text(states, mask=places <= ends)


def clip_encoder(tokenizer: Any, network: Any) -> Encoder:
    """A CLIP encoder with the length that its tokenizer says, its positions permitting."""
    most = min(int(tokenizer.model_max_length), int(network.config.max_position_embeddings))
    return Encoder(tokenizer, network, most, starts=True)


def t5_encoder(tokenizer: Any, network: Any, length: int) -> Encoder:
    """A T5 encoder; a tokenizer that says a smaller length than the family's has its way."""
    return Encoder(tokenizer, network, min(length, int(tokenizer.model_max_length)), starts=False)
