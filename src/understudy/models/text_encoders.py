"""CLIP text encoders: one encoder, or the two of Stable Diffusion XL.

Knows tokenizers and text encoders by their calls only; parts.py loads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from understudy.device_copies import sent
from understudy.diffusion.prompt_weights import (
    token_weights,
    unweighted,
    weigh,
    weighted,
)
from understudy.diffusion.text import Text, Tokens
from understudy.errors import PromptError


class TextReader:
    """One or two tokenizers of one vocabulary, and the text encoder of each.

    name: of the model, for messages. empty_is_zero: whether the empty prompt is all zeros, as XL
    was trained and as its model_index.json says.
    """

    def __init__(
        self,
        name: str,
        tokenizers: Sequence[Any],
        encoders: Sequence[nn.Module],
        *,
        empty_is_zero: bool = False,
    ) -> None:
        self.name, self.tokenizers, self.encoders = name, tuple(tokenizers), tuple(encoders)
        self.empty_is_zero = empty_is_zero
        self.vocabulary: Mapping[str, int] = dict(tokenizers[0].get_vocab())
        pairs = zip(self.tokenizers, self.encoders, strict=True)
        self.max_tokens = min(_limit(*pair) for pair in pairs)

    def tokenize(self, prompt: str, number: int = 0) -> Tokens:
        """The prompt's tokens, padded for encoder `number`; PromptError when they are too many.

        Weights in the prompt are no part of its tokens; spans are those of the prompt as written.
        """
        tokenizer, said = self.tokenizers[number], weighted(prompt)
        offsets = bool(getattr(tokenizer, "is_fast", False))
        told = {"add_special_tokens": False, "verbose": False, "return_offsets_mapping": offsets}
        read = tokenizer(said.text, **told)
        ids: list[int] = read.input_ids
        limit = self.max_tokens - 2
        if len(ids) > limit:
            raise PromptError(
                f"The prompt has {len(ids)} tokens, {self.name} reads at most {limit}: {prompt!r}. "
                "Shorten it."
            )
        padding = [tokenizer.pad_token_id] * (limit - len(ids))
        strings: list[str] = tokenizer.convert_ids_to_tokens(ids)
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        spans = None
        if offsets:
            spans = tuple(said.written(int(a), int(b)) for a, b in read.offset_mapping)
        return Tokens((start, *ids, end, *padding), tuple(strings), spans)

    def embed(self, prompts: Sequence[str]) -> Text:
        """One encoder: its last hidden state, after the final layer norm. Two: the states before
        the last layer, side by side, and the second encoder's pooled embedding. Weighted words are
        moved away from the empty prompt's tokens (`prompt_weights.weigh`); the pooled embedding is
        that of the prompt without weights."""
        text = self._embedded(prompts)
        said = [weighted(prompt) for prompt in prompts]
        if all(one.plain for one in said):
            return text
        empty, rows = self._embedded([""]).tokens, list[Tensor]()
        for one in said:
            offsets = self._offsets(one.text)
            rows.append(token_weights(one, offsets, 1, text.tokens.shape[1]))
        return Text(weigh(text.tokens, empty, torch.stack(rows)), text.pooled, text.mask)

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters of each token of a text without marks, by the first tokenizer."""
        tokenizer = self.tokenizers[0]
        if not getattr(tokenizer, "is_fast", False):
            raise PromptError(
                f"The tokenizer of {self.name} gives no offsets, so words cannot be weighted. "
                "Write the prompt without weights."
            )
        read = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        return [(int(a), int(b)) for a, b in read.offset_mapping]

    def _embedded(self, prompts: Sequence[str]) -> Text:
        if len(self.encoders) == 1:
            return Text(self.encoders[0](self._ids(prompts, 0)).last_hidden_state)
        answers = [
            encoder(self._ids(prompts, number), output_hidden_states=True)
            for number, encoder in enumerate(self.encoders)
        ]
        tokens = torch.cat([answer.hidden_states[-2] for answer in answers], dim=-1)
        pooled = answers[-1].text_embeds
        if self.empty_is_zero:
            said = tokens.new_tensor([float(unweighted(prompt) != "") for prompt in prompts])
            tokens, pooled = tokens * said[:, None, None], pooled * said[:, None]
        return Text(tokens, pooled)

    def _ids(self, prompts: Sequence[str], number: int) -> Tensor:
        device = next(self.encoders[number].parameters()).device
        rows = [self.tokenize(prompt, number).ids for prompt in prompts]
        return sent(torch.tensor(rows), device)


def _limit(tokenizer: Any, encoder: Any) -> int:
    # A tokenizer saved without a limit has a huge one; the encoder's positions always bound it.
    return min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
