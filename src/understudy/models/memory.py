"""Activation checkpointing: layers are recomputed in the backward pass to save memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from understudy.errors import ModelError
from understudy.models.interface import DiffusionModel, denoiser_part


@contextmanager
def gradient_checkpointing(model: DiffusionModel, wanted: bool = True) -> Generator[None]:
    """The denoising network keeps no activations of its blocks for the backward pass inside the
    block.

    Results are the same. Raises ModelError where the network cannot do so.
    """
    part = denoiser_part(model)
    network = cast(Any, model.trainable_modules()[part])
    if not wanted:
        yield
        return
    if not hasattr(network, "enable_gradient_checkpointing"):
        raise ModelError(f"The {part} of {model.name!r} has no gradient checkpointing.")
    network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        network.disable_gradient_checkpointing()
