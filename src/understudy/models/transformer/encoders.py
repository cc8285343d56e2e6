"""Text encoders of flow transformers: each with its tokenizer and the length of its sequence.

Knows tokenizers and networks by their calls only; load.py loads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.diffusion.prompt_weights import refuse_weights
from understudy.diffusion.text import Tokens
from understudy.errors import PromptError


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and its text encoder.

    tokenizer: a fast tokenizer of transformers. length: places of the padded sequence. starts:
    whether the sequence begins with a start token (CLIP) or with the first word (T5).
    """

    tokenizer: Any
    network: nn.Module
    length: int
    starts: bool

    @property
    def room(self) -> int:
        """How many tokens of a prompt fit."""
        return self.length - 1 - self.starts

    def read(self, prompt: str, *, first: int = 0) -> Tokens:
        """The prompt's tokens, cut off where they are too many.

        first: place of this encoder's sequence in the one that attention reads.
        """
        told = {"add_special_tokens": False, "verbose": False, "return_offsets_mapping": True}
        read = self.tokenizer(prompt, **told)
        ids: list[int] = list(read.input_ids)[: self.room]
        start = [self.tokenizer.bos_token_id] if self.starts else []
        padding = [self.tokenizer.pad_token_id] * (self.room - len(ids))
        return Tokens(
            (*start, *ids, self.tokenizer.eos_token_id, *padding),
            tuple(self.tokenizer.convert_ids_to_tokens(ids)),
            tuple((int(a), int(b)) for a, b in read.offset_mapping[: self.room]),
            first + self.starts,
        )

    def ids(self, text: str) -> tuple[int, ...]:
        """The numbers of a text's own tokens."""
        told = {"add_special_tokens": False, "verbose": False}
        return tuple(self.tokenizer(text, **told).input_ids)

    def check(self, prompt: str, name: str) -> None:
        """Raise PromptError when the prompt has more tokens than fit, or weights in it.

        name: of the model.
        """
        refuse_weights(prompt, name)
        count = len(self.ids(prompt))
        if count > self.room:
            raise PromptError(
                f"The prompt has {count} tokens, {name} reads at most {self.room}: {prompt!r}. "
                "Shorten it."
            )

    def __call__(self, prompts: Sequence[str], **told: Any) -> Any:
        """What the network answers for prompts. told: further arguments of its call."""
        rows = [self.read(prompt).ids for prompt in prompts]
        device = next(self.network.parameters()).device
        return self.network(torch.tensor(rows, device=device), **told)


def clip_states(encoder: Encoder, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """CLIP's states before the last layer "b n width", and its projected vector "b pooled"."""
    answer = encoder(prompts, output_hidden_states=True)
    return answer.hidden_states[-2], answer.text_embeds


def last_state(encoder: Encoder, prompts: Sequence[str]) -> Tensor:
    """T5's last state "b n width"."""
    return encoder(prompts)[0]
