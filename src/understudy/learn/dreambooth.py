"""DreamBooth (Ruiz et al. 2023, arXiv:2208.12242): all weights learn "a photo of a sks cat".

Every layer of the U-Net, and if wanted the text encoders, train on copies in float32 at least while
the originals wait aside. This module does not know how steps are taken nor on what.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from understudy.concept import replace_weights, untouched
from understudy.errors import InputError
from understudy.learn.trainable import Trainable, holding, widest
from understudy.models.interface import DiffusionModel, denoiser_part

LARGEST = 3_000_000_000  # weights of a network that is trained whole: 48 GB with AdamW in float32


@contextmanager
def whole_model(model: DiffusionModel, *, train_text: bool) -> Generator[Trainable]:
    """All weights of the denoising network, and of the text encoders if wanted, ready for training.

    When the block ends, the model is as it was. Raises InputError for a network that is too large.
    """
    network = denoiser_part(model)
    _check_size(model, network)
    parts = [part for part in model.trainable_modules() if part == network or train_text]
    # The originals are kept aside by reference; nothing is copied until a weight is trained.
    with untouched(model) as parameters:
        originals = {name: parameter.data for name, parameter in parameters.items()}
        trained = trainable(parameters, parts)
        yield Trainable(
            trained,
            model.embed,
            train_text,
            lambda: changes(trained, originals),
            lambda: holding(trained, {name: originals[name] for name in trained}),
        )


def _check_size(model: DiffusionModel, network: str) -> None:
    """Refuse networks whose weights, gradients and moments fit on no single GPU."""
    count = sum(weight.numel() for weight in model.trainable_modules()[network].parameters())
    if count > LARGEST:
        raise InputError(
            f"--method dreambooth trains all weights and is for networks of up to "
            f"{LARGEST / 1e9:g} billion; {model.name} has {count / 1e9:.1f}. Use --method lora."
        )


def trainable(
    parameters: Mapping[str, nn.Parameter], parts: Sequence[str]
) -> dict[str, nn.Parameter]:
    """Ready the parameters of `parts` ("unet", "text_encoder", ..) for training, and return them.

    They become copies, in float32 at least; all others stand still. The caller lends the parameters
    with `concept.untouched`, which puts everything back.
    """
    chosen: dict[str, nn.Parameter] = {}
    for name, parameter in parameters.items():
        parameter.grad = None
        parameter.requires_grad_(name.split(".")[0] in parts)
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
