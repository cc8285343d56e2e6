"""The token embeddings of a model's text encoders, and which rows a word has in each.

A word is read by every encoder with a tokenizer of its own: FLUX.1's CLIP and T5 give it other
numbers. Language models (Qwen, Mistral) are left out: their embeddings are not learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from understudy.models.interface import DiffusionModel


@dataclass(frozen=True)
class WordTable:
    """The token embedding of one text encoder.

    table: the module that the encoder calls. name: of its weight, such as
    "text_encoder_2.shared.weight". ids: the rows that a text reads, without start, end and padding.
    """

    name: str
    table: nn.Embedding
    ids: Callable[[str], tuple[int, ...]]

    @property
    def replaced(self) -> bool:
        """Whether something stands in its place while words are learnt."""
        return bool(self.table._forward_hooks)  # pyright: ignore[reportPrivateUsage]


def word_tables(model: DiffusionModel) -> dict[str, WordTable]:
    """The tables of a model by the name of the text encoder; empty for language models."""
    encoders: Mapping[str, Any] = getattr(model, "word_encoders", {})
    if encoders:
        return {
            part: _table(part, encoder.network, lambda text, own=encoder: own.ids(text))
            for part, encoder in encoders.items()
        }

    def ids(text: str) -> tuple[int, ...]:
        read = model.tokenize(text)
        return tuple(read.ids[1 : 1 + read.length])

    parts = {p: m for p, m in model.trainable_modules().items() if p.startswith("text_encoder")}
    return {part: _table(part, module, ids) for part, module in parts.items()}


def _table(part: str, network: nn.Module, ids: Callable[[str], tuple[int, ...]]) -> WordTable:
    weight = cast(nn.Embedding, cast(Any, network).get_input_embeddings()).weight
    name = next(n for n, value in network.named_parameters() if value is weight)
    # T5 has two modules with one weight; its encoder calls the later one.
    *_, table = (m for m in network.modules() if isinstance(m, nn.Embedding) and m.weight is weight)
    return WordTable(f"{part}.{name}", table, ids)


def root_mean_square(table: nn.Embedding) -> float:
    """Of all numbers of a table: the unit of learning rates of its rows."""
    return float(table.weight.detach().float().square().mean().sqrt())
