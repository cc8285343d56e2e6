"""Textual Inversion (Gal et al. 2022, arXiv:2208.01618): new words, and nothing else, are learnt.

The words are rare ones the vocabulary has already, whose rows of the token embedding are replaced:
to the text encoder a replaced row and an added one are the same, and no tokenizer has to change.
Only these rows train, so no other row needs to be put back after each step, no optimiser holds
states for 49,408 of them, and weight decay cannot reach them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.learn.trainable import Trainable, widest
from understudy.models.interface import DiffusionModel
from understudy.models.word_tables import WordTable, root_mean_square, word_tables

CLIP = "token_embedding.weight"  # how the names of CLIP's tables end; T5's is "shared.weight"


@contextmanager
def new_words(
    model: DiffusionModel,
    starts: Sequence[tuple[str, str]],
    *,
    rate: float | None = None,
    share: float | None = None,
) -> Generator[Trainable]:
    """The rows of rare words in every text encoder, ready for training.

    starts: for each subject its words, one or several, and an initialiser such as its class noun,
    whose tokens' rows they begin as; if it has fewer tokens, its last one is repeated. rate, share:
    learning rates, see `_rates`. Raises InputError for an initialiser without any, and for a model
    whose text encoder is a language model.
    """
    found = word_tables(model)
    if not found:
        raise InputError(
            f"The text encoder of {model.name!r} is a language model, whose words are not learnt. "
            "Use --method hiper or lora."
        )
    tables = {table.name: table.table for table in found.values()}
    ids, rows = dict[str, Tensor](), dict[str, nn.Parameter]()
    for own in found.values():
        pairs = [_ids(own, words, initialiser) for words, initialiser in starts]
        ids[own.name], like = (
            torch.tensor([one for ours in both for one in ours])
            for both in zip(*pairs, strict=True)
        )
        # The initialiser's embedding is a point that the encoder understands; random ones take far
        # more steps.
        # On the model's device, where the encoder is while it reads, wherever it waits.
        rows[own.name] = _start(own.table, like, model.device)
    places = {name: own.to(model.device) for name, own in ids.items()}

    def embed(prompts: Sequence[str]) -> Text:
        with ExitStack() as stack:
            for name, table in tables.items():
                stack.enter_context(_replaced(table, places[name], rows[name]))
            return model.embed(prompts)

    def tensors() -> dict[str, Tensor]:
        learnt = {f"{name}.rows": row.detach().float().cpu() for name, row in rows.items()}
        return learnt | {f"{name}.ids": ids[name].clone() for name in rows}

    named = {f"{name}.rows": row for name, row in rows.items()}
    yield Trainable(named, embed, True, tensors, rates=_rates(found, rate, share))


def _ids(table: WordTable, words: str, initialiser: str) -> tuple[list[int], list[int]]:
    """The tokens of the words in one encoder, and as many tokens that they begin as."""
    # Each encoder has a tokenizer of its own: CLIP's numbers mean other words to T5.
    new, old = table.ids(words), table.ids(initialiser)
    if not old:
        raise InputError(f"--initialiser must be a word. Got {initialiser!r}.")
    return list(new), [old[min(i, len(old) - 1)] for i in range(len(new))]


def _rates(
    tables: Mapping[str, WordTable], rate: float | None, share: float | None
) -> dict[str, float]:
    """The learning rate of each table's rows, where it is not that of the run.

    AdamW moves every number by about its rate a step, so a rate suits a table by its size: T5's
    numbers are hundreds of times CLIP's. share: the rate in units of a table's root mean square.
    rate: the run's, which is CLIP's; that of T5 beside CLIP is in proportion to it.
    """
    sizes = {own.name: root_mean_square(own.table) for own in tables.values()}
    if share is not None:
        return {f"{name}.rows": share * size for name, size in sizes.items()}
    # The published rate is for CLIP's table, which SD 3 and FLUX share with Stable Diffusion 1.
    clips = [name for name in sizes if name.endswith(CLIP)]
    if rate is None or not clips:
        return {}
    unit = rate / sizes[clips[0]]
    return {f"{name}.rows": unit * size for name, size in sizes.items() if name not in clips}


def _start(table: nn.Embedding, like: Int[Tensor, " n"], device: torch.device) -> nn.Parameter:
    chosen = table.weight.data[like.to(table.weight.device)]
    return nn.Parameter(chosen.to(device, widest(chosen.dtype)).clone())


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
