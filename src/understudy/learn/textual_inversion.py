"""Textual Inversion (Gal et al. 2022, arXiv:2208.01618): new words, and nothing else, are learnt.

The words are rare ones the vocabulary has already, whose rows of the token embedding are replaced:
to the text encoder a replaced row and an added one are the same, and no tokenizer has to change.
Only these rows train, so no other row needs to be put back after each step, no optimiser holds
states for 49,408 of them, and weight decay cannot reach them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.concept import named_parameters
from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.learn.trainable import Trainable, widest
from understudy.models.interface import DiffusionModel


@contextmanager
def new_words(model: DiffusionModel, starts: Sequence[tuple[str, str]]) -> Generator[Trainable]:
    """The rows of rare words, ready for training.

    starts: for each subject its words, one or several, and an initialiser such as its class noun,
    whose tokens' rows they begin as; if it has fewer tokens, its last one is repeated. Raises
    InputError for an initialiser without any.
    """
    pairs = [_ids(model, words, initialiser) for words, initialiser in starts]
    ids, like = (
        torch.tensor([one for ours in both for one in ours]) for both in zip(*pairs, strict=True)
    )
    tables = embedding_tables(model)
    places = {name: ids.to(table.weight.device) for name, table in tables.items()}
    # The initialiser's embedding is a point that the encoder understands; random ones take far more
    # steps.
    rows = {name: _start(table, like) for name, table in tables.items()}

    def embed(prompts: Sequence[str]) -> Text:
        with ExitStack() as stack:
            for name, table in tables.items():
                stack.enter_context(_replaced(table, places[name], rows[name]))
            return model.embed(prompts)

    def tensors() -> dict[str, Tensor]:
        learnt = {f"{name}.rows": row.detach().float().cpu() for name, row in rows.items()}
        return learnt | {f"{name}.ids": ids.clone() for name in rows}

    yield Trainable({f"{name}.rows": row for name, row in rows.items()}, embed, True, tensors)


def _ids(model: DiffusionModel, words: str, initialiser: str) -> tuple[list[int], list[int]]:
    """The tokens of the words, and as many tokens that they begin as."""
    new, old = (
        model.tokenize(text).ids[1 : 1 + model.tokenize(text).length]
        for text in (words, initialiser)
    )
    if not old:
        raise InputError(f"--initialiser must be a word. Got {initialiser!r}.")
    return list(new), [old[min(i, len(old) - 1)] for i in range(len(new))]


def embedding_tables(model: DiffusionModel) -> dict[str, nn.Embedding]:
    """The token embedding of each text encoder, by the name of its weight."""
    tables: dict[str, nn.Embedding] = {}
    names = {id(parameter): name for name, parameter in named_parameters(model).items()}
    for part, module in model.trainable_modules().items():
        if part.startswith("text_encoder"):
            table = cast(nn.Embedding, cast(Any, module).get_input_embeddings())
            tables[names[id(table.weight)]] = table
    return tables


def _start(table: nn.Embedding, like: Int[Tensor, " n"]) -> nn.Parameter:
    chosen = table.weight.data[like.to(table.weight.device)]
    return nn.Parameter(chosen.to(widest(chosen.dtype)).clone())


@contextmanager
def _replaced(
    table: nn.Embedding, ids: Int[Tensor, " n"], rows: Float[Tensor, "n width"]
) -> Generator[None]:
    """The table looks up `rows` for `ids` inside the block; gradients flow to them."""

    def look_up(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> Tensor:
        (tokens,) = given
        # Rows are mixed in by a product instead of an assignment, so that gradients reach them.
        where = (tokens[..., None] == ids).to(rows.dtype)  # ... n
        plain = F.embedding(tokens, table.weight).to(rows.dtype)
        found = where.sum(-1, keepdim=True)
        return (plain * (1 - found) + where @ rows).to(table.weight.dtype)

    hook = table.register_forward_hook(look_up)
    try:
        yield
    finally:
        hook.remove()
