"""Reads tensors from an untrusted checkpoint file without running code in it.

.safetensors holds tensors only. .ckpt, .pt, .pth and .bin are pickles: they are read by PyTorch's
weights-only reader, which builds tensors and plain containers and refuses everything else. What
Lightning left in old checkpoints (settings of its callbacks) is read as an inert nothing.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from understudy.errors import ModelError

PICKLED = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLED)
HARMLESS = ("pytorch_lightning.", "lightning.", "lightning_fabric.")


class Inert:
    """Stands for an object of a class that is not wanted: keeps nothing, does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class Parameters:
    """Stands for torch's ParameterDict (old A1111 embeddings): keeps its tensors by name."""

    def __init__(self, *_: object, **__: object) -> None:
        self.tensors: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        found = state.get("_parameters") if isinstance(state, dict) else None
        self.tensors = dict(cast("dict[str, Any]", found)) if isinstance(found, dict) else {}


PARAMETERS = "torch.nn.modules.container.ParameterDict"


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a weights file holds, on the CPU, and the notes in its header (safetensors only).

    Raises ModelError, naming the file, where it is damaged, no such file, or wants to run code.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{path} is no weights file. Wanted one of: {', '.join(SUFFIXES)}.")
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is only a git-lfs pointer. Fetch the file itself: git lfs pull.")
    return _safe(path) if path.suffix.lower() == ".safetensors" else (_pickled(path), {})


def _safe(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, (  # noqa: SIM118
                opened.metadata() or {}
            )
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or no safetensors file: {error}") from error


def _pickled(path: Path) -> dict[str, Any]:
    try:
        names = _foreign_names(path)
        inert: list[Any] = [(Inert, name) for name in names if name.startswith(HARMLESS)]
        inert.append((Parameters, PARAMETERS))
        with torch.serialization.safe_globals(inert):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        known = (*HARMLESS, PARAMETERS)
        named = ", ".join(n for n in _foreign_names(path) if not n.startswith(known))
        what = f"it names {named}" if named else " ".join(str(error).split())[:150]
        raise ModelError(
            f"{path} is a pickle that holds more than weights ({what}), and is not read because "
            "that can run code hidden in it. Get the .safetensors file of this model."
        ) from error
    except Exception as error:  # what a damaged archive raises depends on where it is damaged
        reason = " ".join(str(error).split())[:150]
        raise ModelError(f"{path} is damaged or no PyTorch file: {reason}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}. Wanted named tensors.")
    found = {key: _plain(value) for key, value in cast("dict[Any, Any]", found).items()}
    inner = found.get("state_dict")
    whole = {**found, **inner} if isinstance(inner, dict) else found
    if odd := [key for key in whole if not isinstance(key, str)]:
        raise ModelError(f"{path} holds the key {str(odd[0])[:80]!r}. Wanted names as keys.")
    return whole


def _plain(value: Any) -> Any:
    return getattr(value, "tensors", {}) if isinstance(value, Parameters) else value


def _foreign_names(path: Path) -> list[str]:
    """What the pickle names beyond tensors and containers; nothing for the old file format."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the reader itself tells what is wrong
        return []
