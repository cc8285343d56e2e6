"""Reads tensors from an untrusted checkpoint file without running code in it.

.safetensors holds tensors only. .ckpt, .pt, .pth and .bin are pickles: they are read by PyTorch's
weights-only reader, which builds tensors and plain containers and refuses everything else. What
Lightning left in old checkpoints (settings of its callbacks) is read as an inert nothing.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from understudy.errors import ModelError, sentence
from understudy.files.reading import first_bytes
from understudy.files.spec import MAX_TENSORS
from understudy.files.tensors import load_tensors
from understudy.untrusted.torch_zip import members
from understudy.untrusted.unpickling import Unsafe

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
        raise ModelError(f"{path} is not a weights file. Expected one of: {', '.join(SUFFIXES)}.")
    head = first_bytes(path, 64, error=ModelError)
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is only a git-lfs pointer. Fetch the file itself: git lfs pull.")
    return _safe(path) if path.suffix.lower() == ".safetensors" else (_pickled(path), {})


def _safe(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return load_tensors(path)
    except OSError as error:
        raise ModelError(
            f"{path} is damaged or not a safetensors file: {sentence(error)}"
        ) from error


def _pickled(path: Path) -> dict[str, Any]:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # strangers' files do not write on our terminal
            found = _unpickled(path)
    except pickle.UnpicklingError as error:
        known = (*HARMLESS, PARAMETERS)
        named = ", ".join(n for n in _foreign_names(path) if not n.startswith(known))
        what = f"it names {named}" if named else " ".join(str(error).split())[:150]
        raise ModelError(
            f"{path} is a pickle that holds more than weights ({what}), and is not read because "
            "that can run code hidden in it. Get the .safetensors file of this model."
        ) from error
    except Exception as error:  # what a damaged archive raises depends on where it is damaged
        reason = sentence(error, 150)
        raise ModelError(f"{path} is damaged or not a PyTorch file: {reason}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}. Expected named tensors.")
    found = {key: _plain(value) for key, value in cast("dict[Any, Any]", found).items()}
    inner = found.get("state_dict")
    whole = {**found, **inner} if isinstance(inner, dict) else found
    if odd := [key for key in whole if not isinstance(key, str)]:
        raise ModelError(f"{path} holds the key {str(odd[0])[:80]!r}. Expected names as keys.")
    _check_tensors(whole, path)
    return whole


def _unpickled(path: Path) -> Any:
    """What PyTorch's weights-only reader makes of the file."""
    names = _foreign_names(path)
    inert: list[Any] = [(Inert, name) for name in names if name.startswith(HARMLESS)]
    inert.append((Parameters, PARAMETERS))
    with torch.serialization.safe_globals(inert):
        return torch.load(path, map_location="cpu", weights_only=True)


def _plain(value: Any) -> Any:
    return getattr(value, "tensors", {}) if isinstance(value, Parameters) else value


def _check_archive(path: Path) -> None:
    """Refuse a zip archive that is not as PyTorch writes it: compressed members expand."""
    if not first_bytes(path, 4, error=ModelError).startswith(b"PK"):
        return
    try:
        with path.open("rb") as stream:
            members(stream)
    except Unsafe as problem:
        raise ModelError(f"{path} is not read: {problem}.") from None


def _check_tensors(whole: Mapping[str, Any], path: Path) -> None:
    """Refuse tensors that are larger than the file, as a view with a stride of 0 can be, and
    kinds of tensors that no checkpoint of weights holds. Raises ModelError."""
    size, count = path.stat().st_size, 0
    inside: list[Any] = [whole]
    seen = set[int]()  # a pickle can hold a list that holds itself
    while inside:
        value = inside.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            inside += list(value.values())
        elif isinstance(value, (list, tuple)):
            inside += list(value)
        elif isinstance(value, Tensor):
            count += 1
            plain = value.layout == torch.strided and value.device.type == "cpu"
            if not plain or value.is_quantized or value.is_complex():
                raise ModelError(f"{path} holds a sparse, quantized or complex tensor.")
            if value.numel() * value.element_size() > size or count > MAX_TENSORS:
                raise ModelError(f"{path} holds more numbers than its size explains.")


def _foreign_names(path: Path) -> list[str]:
    """What the pickle names beyond tensors and containers; nothing for the old file format."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the reader itself tells what is wrong
        return []
