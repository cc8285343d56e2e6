"""Tensors and a few words about them in one safetensors file: the same input, the same bytes.

The same tensors and notes give the same bytes. Knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from understudy.files.atomic import replacing

LENGTH_BYTES = 8  # the header's length, little-endian, precedes the header


def save_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write one safetensors file, whole or not at all. Raises OutputError.

    tensors: of any device; those that share memory are written one by one. notes: the metadata of
    the header; JSON goes in as text.
    """
    with replacing(path) as staged:
        write_tensors(staged, tensors, notes)
    return Path(path)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """The same without the staging, for a file of a staged folder. Whatever goes wrong is an
    OSError."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in plain.items():  # safetensors refuses tensors that share memory
        if tensor.untyped_storage().data_ptr() in seen:
            plain[name] = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
    try:
        save_file(plain, path, None if notes is None else dict(notes))
    except SafetensorError as error:  # how safetensors reports a full disk
        raise _os_error(error) from error
    _order_header(path)


def load_tensors(
    path: str | os.PathLike[str], device: str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the notes of a safetensors file. Raises OSError for anything else."""
    try:
        with safe_open(path, "pt", device=device) as file:
            notes: dict[str, str] = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _os_error(error: SafetensorError) -> OSError:
    """What the system said: "I/O error: No space left on device (os error 28)" has errno 28."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def _order_header(path: Path) -> None:
    """Sort the notes in the header of a file just written.

    safetensors keeps them in a hash map whose order changes with every process.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        notes = header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda entry: (entry[1]["data_offsets"], entry[0]))
        ordered = {} if notes is None else {"__metadata__": dict(sorted(notes.items()))}
        ordered |= dict(entries)
        text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:  # never with today's safetensors, which escapes as json does
            return
        file.seek(LENGTH_BYTES)
        file.write(text.ljust(length))
