"""Reads networks of the toy world: NAME.json has their sizes, NAME.safetensors their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from understudy.errors import ModelError
from understudy.files.reading import read_json
from understudy.files.tensors import load_tensors

Network = TypeVar("Network", bound=nn.Module)


def load_network(
    folder: Path, name: str, made: Callable[[dict[str, Any]], Network], *, what: str, script: str
) -> Network:
    """The network that `made` makes of NAME.json, with the weights of NAME.safetensors.

    Float32, without gradients. what, script: of the message of the ModelError that is raised where
    a file is missing or damaged, or where the two do not fit together.
    """
    try:
        config = read_json(folder / f"{name}.json", error=ModelError)
        weights, _ = load_tensors(folder / f"{name}.safetensors")
    except (OSError, ModelError) as problem:
        raise ModelError(
            f"no {what} in {folder}: expected {name}.json and {name}.safetensors ({problem}); "
            f"reinstall understudy or run training/{script}"
        ) from problem
    try:
        network = made(config)
        network.load_state_dict({key: value.float() for key, value in weights.items()})
    except (TypeError, KeyError, RuntimeError) as problem:
        raise ModelError(
            f"{name}.json and {name}.safetensors in {folder} do not fit together: {problem}; "
            f"reinstall understudy or run training/{script}"
        ) from problem
    return network.requires_grad_(False)
