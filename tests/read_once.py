"""Tiny models are read from their folders once a session; every load gets copies of what was read.

Reading a diffusion model takes a quarter of a second, and the suite does it often. Only the folders
of `tiny_folder` and `tiny_flow_folder` are remembered, which no test writes to. All that
follows the reading (placing, quantising, installing attention) is done for every model.
"""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
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


# Networks that look at pictures


def install_networks(patch: pytest.MonkeyPatch) -> None:
    """Do not repeat what is the same for a mutant as for the good folder, which was loaded first.

    A network follows from the keys of its configuration that are used, and from the bytes of its
    weights: where both are the good folder's, the network that it gave is given again. The network
    without memory, and whether it can be called, follow from the configuration alone: those of the
    configuration before are kept. All else (opening, bounds, headers, shapes) is done for every
    mutant.
    """
    from understudy.models.weight_files import weight_files
    from understudy.vision import encoders, sam, weights

    load = weights.load_network
    build, call = weights._without_memory, weights._check_call  # pyright: ignore[reportPrivateUsage]
    loaded: dict[type, tuple[object, Any]] = {}
    built: dict[type, tuple[str, Any]] = {}
    called = set[Any]()

    def load_once(kind: Any, config: Any, used: Any, folder: Path, *rest: Any, **how: Any) -> Any:
        digests = [sha256(file.read_bytes()).digest() for file in weight_files(folder)]
        asked = (json.dumps(used, sort_keys=True), digests)
        if kind not in loaded:
            loaded[kind] = (asked, load(kind, config, used, folder, *rest, **how))
        elif loaded[kind][0] != asked:
            return load(kind, config, used, folder, *rest, **how)
        return loaded[kind][1]

    def build_once(kind: Any, config: Any, how: Any) -> Any:
        asked = config.to_json_string()
        if kind not in built or built[kind][0] != asked:
            built[kind] = (asked, build(kind, config, how))
        return built[kind][1]

    def call_once(network: Any, example: Any) -> None:
        if network not in called:
            call(network, example)
            called.add(network)

    for module in (encoders, sam):
        patch.setattr(module, "load_network", load_once)
    patch.setattr(weights, "_without_memory", build_once)
    patch.setattr(weights, "_check_call", call_once)
