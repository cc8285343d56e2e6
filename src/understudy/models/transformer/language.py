"""Prompts read by a language model: Qwen-Image, Z-Image, FLUX.2.

The prompt is put into the chat template that the family was trained with. Templates are written
here, not taken from a tokenizer's folder, where they are programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from understudy.diffusion.prompt_weights import refuse_weights
from understudy.diffusion.text import Text, Tokens
from understudy.errors import PromptError


@dataclass(frozen=True)
class Chat:
    """A template, and which states of the language model the network reads.

    before, after: text around the prompt. layers: hidden states that are put side by side, counted
    as transformers does (0 = embeddings, -1 = last, after the final norm). length: most tokens.
    dropped: whether the states of `before` are left out. filled: whether sequences are padded to
    `length`, and the network reads the padding. multiple: masked sequences are padded to one.
    """

    before: str
    after: str
    layers: tuple[int, ...]
    length: int
    dropped: bool = False
    filled: bool = False
    multiple: int = 1


QWEN_IMAGE = Chat(
    before="<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n",
    after="<|im_end|>\n<|im_start|>assistant\n",
    layers=(-1,),
    length=1024,
    dropped=True,
)
Z_IMAGE = Chat(
    before="<|im_start|>user\n",
    after="<|im_end|>\n<|im_start|>assistant\n",
    layers=(-2,),
    length=512,
    multiple=32,
)
KLEIN = Chat(
    before="<|im_start|>user\n",
    after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    layers=(9, 18, 27),
    length=512,
    filled=True,
)
FLUX2 = Chat(
    before="<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give "
    "structured responses focusing on object relationships, object\n"
    "attribution and actions without speculation.[/SYSTEM_PROMPT][INST]",
    after="[/INST]",
    layers=(10, 20, 30),
    length=512,
    filled=True,
)


class LanguageReader:
    """A Reader (see readers.py) over one language model and its tokenizer."""

    def __init__(self, name: str, tokenizer: Any, network: nn.Module, chat: Chat) -> None:
        self.name, self.tokenizer, self.network, self.chat = name, tokenizer, network, chat
        self.max_tokens, self.multiple = chat.length, chat.multiple
        self.padded = chat.filled
        self.vocabulary: Mapping[str, int] = dict(tokenizer.get_vocab())
        self.encoders = ()  # of a language model no words are learnt

    def tokenize(self, prompt: str) -> Tokens:
        """The tokens of the sequence; pieces and spans are those of the prompt alone."""
        ids, spans = self._read(prompt)
        start = len(self.chat.before)
        inside = [
            place
            for place, (first, last) in enumerate(spans)
            if first < last and start <= first and last <= start + len(prompt)
        ]
        kept = ids[self._dropped(spans) :]
        first = (inside[0] if inside else len(ids)) - (len(ids) - len(kept))
        pieces = self.tokenizer.convert_ids_to_tokens([ids[place] for place in inside])
        shown = tuple((spans[place][0] - start, spans[place][1] - start) for place in inside)
        return Tokens(tuple(kept), tuple(pieces), shown, first + self._shift(len(kept)))

    def readings(self, prompt: str) -> tuple[Tokens, ...]:
        """The tokens, of the one encoder there is."""
        return (self.tokenize(prompt),)

    def embed(self, prompts: Sequence[str]) -> Text:
        """See Chat."""
        if self.chat.filled:
            return Text(self._filled(prompts))
        rows = [self._states(prompt) for prompt in prompts]
        longest = max(len(row) for row in rows)
        longest = -(-longest // self.chat.multiple) * self.chat.multiple
        tokens = torch.stack([pad(row, (0, 0, 0, longest - len(row))) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
        places = torch.arange(longest, device=tokens.device)
        return Text(tokens, mask=places < lengths[:, None])

    def _states(self, prompt: str) -> Tensor:
        """States of one prompt "n width", of the places that the network reads."""
        ids, spans = self._read(prompt)
        answer = self._answer([ids], [[1] * len(ids)])
        return answer[0, self._dropped(spans) :]

    def _filled(self, prompts: Sequence[str]) -> Tensor:
        """States of prompts padded to the full length, on the tokenizer's side."""
        rows = [self._read(prompt)[0] for prompt in prompts]
        fill = self.tokenizer.pad_token_id
        left = self.tokenizer.padding_side == "left"
        padded: list[list[int]] = []
        masks: list[list[int]] = []
        for row in rows:
            behind = [fill] * (self.chat.length - len(row))
            real, unreal = [1] * len(row), [0] * len(behind)
            padded.append([*behind, *row] if left else [*row, *behind])
            masks.append([*unreal, *real] if left else [*real, *unreal])
        return self._answer(padded, masks)

    def _answer(self, ids: list[list[int]], masks: list[list[int]]) -> Tensor:
        device = next(self.network.parameters()).device
        states = self.network(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(masks, device=device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        return torch.cat([states[layer] for layer in self.chat.layers], dim=-1)

    def _read(self, prompt: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of the template with the prompt in it, and the characters of each."""
        refuse_weights(prompt, self.name)
        whole = f"{self.chat.before}{prompt}{self.chat.after}"
        told = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        read = self.tokenizer(whole, **told)
        spans = [(int(first), int(last)) for first, last in read.offset_mapping]
        room = self.chat.length + self._dropped(spans)
        if len(read.input_ids) > room:
            over = len(read.input_ids) - room
            raise PromptError(
                f"The prompt has {over} tokens more than {self.name} reads: {prompt[:200]!r}. "
                "Shorten it."
            )
        return list(read.input_ids), spans

    def _dropped(self, spans: Sequence[tuple[int, int]]) -> int:
        """How many tokens of the beginning the network does not read."""
        if not self.chat.dropped:
            return 0
        start = len(self.chat.before)
        return next((n for n, (first, _) in enumerate(spans) if first >= start), len(spans))

    def _shift(self, length: int) -> int:
        """Places of padding in front of the sequence."""
        left = self.chat.filled and self.tokenizer.padding_side == "left"
        return self.chat.length - length if left else 0
