"""Loads a model for commands that are not jobs, and prints its notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from understudy.cli.show import note
from understudy.settings import RunSettings

if TYPE_CHECKING:
    from understudy.models.interface import DiffusionModel


def load_model(run: RunSettings) -> DiffusionModel:
    """The model of `--model` on `--device` in `--dtype`."""
    from understudy.models.registry import load, told

    model = load(run.model, device=run.device, dtype=run.dtype)
    note(*told(run.model))
    return model
