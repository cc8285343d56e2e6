"""Tiny models are read from their folders once a session; every load gets copies of what was read.

Reading takes a quarter of a second, and the suite loads tiny models a thousand times. Only the
folders of `tiny_folder` and `tiny_flow_folder` are remembered, which no test writes to. All that
follows the reading (placing, quantising, installing attention) is done for every model.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny

READERS = {
    "understudy.models.unet.stable_diffusion": "load_parts",
    "understudy.models.transformer.model": "load_flow_parts",
}


def install(patch: pytest.MonkeyPatch) -> None:
    """Remember what the readers of model folders give, until the patch is undone."""
    import importlib

    for module, name in READERS.items():
        reader = getattr(importlib.import_module(module), name)
        patch.setattr(f"{module}.{name}", remembering(reader))


def remembering(reader: Callable[[Path, torch.dtype], Any]) -> Callable[[Path, torch.dtype], Any]:
    """The reader, which reads each tiny folder once in each precision."""
    known: dict[tuple[Path, torch.dtype], Any] = {}

    @functools.wraps(reader)
    def read(folder: Path, dtype: torch.dtype) -> Any:
        if tiny._session() not in (place := Path(folder).resolve()).parents:
            return reader(folder, dtype)
        if (place, dtype) not in known:
            known[place, dtype] = reader(folder, dtype)
        return copied(known[place, dtype])

    return read


def copied(parts: Any) -> Any:
    """Parts of a model with networks of their own; tokenizers are shared, they have no state."""
    if not isinstance(parts, dict):
        return replace(parts, networks=copied(dict(parts.networks)))
    return {
        name: network(part) if isinstance(part, nn.Module) else part for name, part in parts.items()
    }


def network(found: nn.Module, known: dict[int, Any] | None = None) -> Any:
    """A copy of a network: its modules, parameters and buffers are new, shared ones stay shared.

    Six times as fast as copy.deepcopy, which copies configurations and functions, too.
    """
    known = {} if known is None else known
    if id(found) in known:
        return known[id(found)]
    new = known[id(found)] = object.__new__(type(found))
    for name, value in vars(found).items():
        if name in ("_parameters", "_buffers"):
            value = {key: tensor(one, known) for key, one in value.items()}
        elif name == "_modules":
            value = {key: one and network(one, known) for key, one in value.items()}
        elif type(value) in (dict, OrderedDict, list, set):  # a configuration is a class of its own
            value = value.copy()
        vars(new)[name] = value
    return new


def tensor(found: Tensor | None, known: dict[int, Any]) -> Tensor | None:
    if found is not None and id(found) not in known:
        new = found.detach().clone()
        known[id(found)] = nn.Parameter(new, False) if isinstance(found, nn.Parameter) else new
    return None if found is None else known[id(found)]
