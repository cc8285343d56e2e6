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

from understudy.errors import InputError, UnderstudyError
from understudy.files import spec
from understudy.files.atomic import replacing
from understudy.files.reading import check_regular, parse_json

LENGTH_BYTES = 8  # the header's length, little-endian, precedes the header
MAX_HEADER = 32 * 2**20  # bytes; a header of kohya's trainers has up to a few MB of notes
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


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
    """The tensors and the notes of a safetensors file. Raises OSError for anything else: no
    regular file, a damaged header, too many tensors, a type that torch does not have."""
    told, notes = headers(path)
    try:
        with safe_open(path, "pt", device=device) as file:
            return {name: file.get_tensor(name) for name in told}, notes
    except (SafetensorError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise OSError(" ".join(str(error).split())) from error


def headers(path: str | os.PathLike[str]) -> tuple[dict[str, spec.Told], dict[str, str]]:
    """What the header of a safetensors file tells of its tensors, and its notes. Raises OSError.

    No tensor is read. The header and the number of tensors are bounded.
    """
    try:
        check_regular(path)
    except InputError as error:
        raise OSError(str(error)) from None
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER:
        raise OSError(f"its header claims {length:,} bytes; at most {MAX_HEADER:,} are read")
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if len(names) > spec.MAX_TENSORS:
                raise OSError(f"it holds {len(names):,} tensors; at most {spec.MAX_TENSORS:,}")
            slices = {name: file.get_slice(name) for name in names}
            notes: dict[str, str] = file.metadata() or {}
            kinds = {name: str(one.get_dtype()) for name, one in slices.items()}
            told = {
                name: (DTYPES.get(kinds[name], kinds[name]), tuple(one.get_shape()))
                for name, one in slices.items()
            }
            return told, notes
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise OSError(" ".join(str(error).split())) from error


def read_declared(
    path: str | os.PathLike[str],
    declared: spec.TensorFile,
    *,
    device: str = "cpu",
    error: type[UnderstudyError] = InputError,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON object and the tensors of a file of ours that fits its declaration.

    The header is checked before a tensor is read. Raises `error`, naming the file, for another
    kind of file, for names, types, shapes or fields that are not declared, and for numbers that
    are not finite.
    """
    check_regular(path, error=error)
    try:
        told, notes = headers(path)
        if notes.get("format") != declared.format:
            raise error(f"{path} is not a valid {declared.what}. Make one with: {declared.made_by}")
        fields = parse_json(notes.get(declared.key, ""), str(path), error=error)
        declared.fields.check(fields, "its header")
        spec.check_headers(told, declared.tensors)
        tensors, _ = load_tensors(path, device)
        spec.check_finite(tensors)
        return fields, tensors
    except spec.Unfit as problem:
        raise error(f"{path} is not a valid {declared.what}: {problem}.") from None
    except OSError as problem:
        raise error(f"{path} cannot be read as a {declared.what}: {problem}.") from None


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
