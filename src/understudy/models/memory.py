"""Activation checkpointing: layers are recomputed in the backward pass to save memory."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import signature
from typing import Any, cast

from torch import nn
from torch.utils.checkpoint import checkpoint

from understudy.errors import ModelError
from understudy.models.interface import DiffusionModel, denoiser_part

MASK = "attention_mask"


@contextmanager
def gradient_checkpointing(model: DiffusionModel, wanted: bool = True) -> Generator[None]:
    """Denoising network and text encoders keep no activations of their blocks for the backward pass
    inside the block.

    Results are the same. Raises ModelError where the network cannot do so.
    """
    part = denoiser_part(model)
    network = cast(Any, model.trainable_modules()[part])
    if not wanted:
        yield
        return
    if not hasattr(network, "enable_gradient_checkpointing"):
        raise ModelError(f"The {part} of {model.name!r} has no gradient checkpointing.")
    with ExitStack() as stack:
        for encoder in _text_encoders(model):
            stack.enter_context(_checkpointed(encoder))
        network.enable_gradient_checkpointing(_block_function(network))
        stack.callback(network.disable_gradient_checkpointing)
        yield


def _block_function(network: nn.Module) -> Callable[..., Any] | None:
    """What checkpoints a block of a denoising network; None = as diffusers does.

    diffusers 0.42 gives Chroma's single blocks no mask while it checkpoints, so that they would
    read the padding of the text. They get that of the double blocks before them.
    """
    if type(network).__name__ != "ChromaTransformer2DModel":
        return None
    seen: dict[str, Any] = {}

    def checkpointed(block: nn.Module, *given: Any) -> Any:
        told = signature(block.forward).bind(*given)
        seen.update({MASK: told.arguments[MASK]} if MASK in told.arguments else {})
        told.arguments.setdefault(MASK, seen.get(MASK))
        return checkpoint(block, use_reentrant=False, **told.arguments)

    return checkpointed


def _text_encoders(model: DiffusionModel) -> list[nn.Module]:
    """The encoders that gradients may pass through: those that train, and those of learnt words,
    of which T5 (4.7 billion weights in SD3 and FLUX) is the largest."""
    found = [m for part, m in model.trainable_modules().items() if part.startswith("text_encoder")]
    found += [encoder.network for encoder in getattr(model, "word_encoders", {}).values()]
    return list({id(network): network for network in found}.values())


@contextmanager
def _checkpointed(encoder: nn.Module) -> Generator[None]:
    """The layers of an encoder of transformers are checkpointed inside the block."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in encoder.modules() if isinstance(layer, GradientCheckpointingLayer)]
    before = [layer.training for layer in layers]
    for layer in layers:
        each = cast(Any, layer)
        each.gradient_checkpointing = True
        each._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        # A layer checkpoints only in training mode. Its submodules stay in eval mode: no dropout.
        layer.training = True
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.training = training
            del layer.gradient_checkpointing, layer._gradient_checkpointing_func
