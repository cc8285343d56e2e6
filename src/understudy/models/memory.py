"""Activation checkpointing: layers are recomputed in the backward pass to save memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from understudy.errors import ModelError
from understudy.models.interface import DiffusionModel


@contextmanager
def gradient_checkpointing(model: DiffusionModel, wanted: bool = True) -> Generator[None]:
    """The U-Net keeps no activations of its blocks for the backward pass inside the block.

    Results are the same. Raises ModelError where its U-Net cannot do so.
    """
    unet = cast(Any, model.trainable_modules()["unet"])
    if not wanted:
        yield
        return
    if not hasattr(unet, "enable_gradient_checkpointing"):
        raise ModelError(f"The U-Net of {model.name!r} knows no gradient checkpointing.")
    unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        unet.disable_gradient_checkpointing()
