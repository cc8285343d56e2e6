"""DreamBooth (Ruiz et al. 2023, arXiv:2208.12242): weights learn "a photo of a sks cat".

Every layer of the network or its cross-attention alone, and if wanted the text encoders, train on
copies in float32 at least while the originals wait aside. The other layers do not read the prompt,
so what they learn of the subject shows in pictures of its class as well; Custom Diffusion (Kumari
et al. 2023, arXiv:2212.04488, section 3.1) trains K and V of cross-attention and the identifier's
embedding for that reason. This module does not know how steps are taken nor on what.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from understudy.concept import replace_weights, untouched
from understudy.errors import InputError
from understudy.learn.trainable import Trainable, holding, widest
from understudy.models.interface import DiffusionModel, denoiser_part
from understudy.models.word_tables import WordTable, root_mean_square, word_tables

LARGEST = 3_000_000_000  # weights of a network that is trained whole: 48 GB with AdamW in float32


@contextmanager
def whole_model(
    model: DiffusionModel,
    *,
    train_text: bool,
    layers: str = "all",
    identifiers: Sequence[str] = (),
    share: float = 0.0,
) -> Generator[Trainable]:
    """The weights of the denoising network, and of the text encoders if wanted, ready for training.

    layers: "all", or "cross-attention" for q, k, v and out of these layers alone. share: learning
    rate of the identifiers' embeddings in units of the root mean square of their table, of which no
    other row trains then; 0: as all other weights. When the block ends, the model is as it was.

    Raises InputError for a network that is too large, for one without cross-attention where that
    alone is to train, and where `share` is given for a text encoder that is a language model.
    """
    network = denoiser_part(model)
    _check_size(model, network)
    parts = [part for part in model.trainable_modules() if part == network or train_text]
    own = _tables(model) if share else {}
    # The originals are kept aside by reference; nothing is copied until a weight is trained.
    with untouched(model) as parameters, ExitStack() as hooks:
        originals = {name: parameter.data for name, parameter in parameters.items()}
        chosen = {name for name in parameters if name.split(".")[0] in parts}
        if layers == "cross-attention":
            chosen -= _outside_cross_attention(model, network, chosen)
        trained = trainable(parameters, chosen | set(own))
        for name, table in own.items():
            rows = [one for words in identifiers for one in table.ids(words)]
            hooks.callback(_only_rows(trained[name], rows).remove)
        yield Trainable(
            trained,
            model.embed,
            train_text or bool(own),
            lambda: changes(trained, originals),
            lambda: holding(trained, {name: originals[name] for name in trained}),
            {name: share * root_mean_square(table.table) for name, table in own.items()},
        )


def _tables(model: DiffusionModel) -> dict[str, WordTable]:
    """The token embeddings by the name of their weight."""
    found = {table.name: table for table in word_tables(model).values()}
    if not found:
        raise InputError(
            f"The text encoder of {model.name!r} is a language model, whose words are not learnt. "
            "Use --embedding-rate 0."
        )
    return found


def _outside_cross_attention(model: DiffusionModel, network: str, names: set[str]) -> set[str]:
    """Those of the names that are weights of the network, but not of its cross-attention."""
    modules = model.trainable_modules()[network].named_modules()
    attention = [name for name, one in modules if getattr(one, "is_cross_attention", False)]
    if not attention:
        raise InputError(
            f"--trained-layers cross-attention needs a network with cross-attention; "
            f"{model.name} has none. Use --trained-layers all."
        )
    kept = tuple(f"{network}.{name}." for name in attention)
    return {name for name in names if name.startswith(f"{network}.") and not name.startswith(kept)}


def _only_rows(table: nn.Parameter, rows: Sequence[int]) -> RemovableHandle:
    """Let the gradient reach these rows of the table only. AdamW then leaves all others alone."""
    mask = torch.zeros(len(table), 1, dtype=table.dtype, device=table.device)
    mask[list(rows)] = 1

    def masked(gradient: Tensor) -> Tensor:
        return gradient * mask

    return cast(RemovableHandle, table.register_hook(masked))


def _check_size(model: DiffusionModel, network: str) -> None:
    """Refuse networks whose weights, gradients and moments fit on no single GPU."""
    count = sum(weight.numel() for weight in model.trainable_modules()[network].parameters())
    if count > LARGEST:
        raise InputError(
            f"--method dreambooth trains all weights and is for networks of up to "
            f"{LARGEST / 1e9:g} billion; {model.name} has {count / 1e9:.1f}. Use --method lora."
        )


def trainable(
    parameters: Mapping[str, nn.Parameter], names: Collection[str]
) -> dict[str, nn.Parameter]:
    """Ready the named parameters for training, and return them.

    They become copies, in float32 at least; all others stand still. The caller lends the parameters
    with `concept.untouched`, which puts everything back.
    """
    chosen: dict[str, nn.Parameter] = {}
    for name, parameter in parameters.items():
        parameter.grad = None
        parameter.requires_grad_(name in names)
        if parameter.requires_grad:
            # Half-precision weights would lose most updates to rounding.
            replace_weights(parameter, parameter.data.to(widest(parameter.dtype)))
            chosen[name] = parameter
    return chosen


def changes(
    trained: Mapping[str, nn.Parameter], originals: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What training added to each weight, float16 on the CPU; without weights it left alone."""
    added: dict[str, Tensor] = {}
    for name, parameter in trained.items():
        change = parameter.data - originals[name].to(parameter.dtype)
        if change.any():
            added[name] = change.half().cpu()
    return added
