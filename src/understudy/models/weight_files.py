"""Which files hold the weights of one part of a model folder, and what their headers say.

Only safetensors files in the part's own folder count. Nothing is loaded: names, types, shapes and
the length of every file are read from its header, so that a damaged or a hostile folder is refused
before any network is built.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from understudy.errors import ModelError
from understudy.files.reading import check_regular, parse_json, read_json

HEADER = 32 * 2**20  # bytes of a safetensors header; its specification allows 100 MB
TENSORS = 100_000  # in one part; XL's U-Net has 1,680
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
# An adapter beside the weights would change them in some programs and not in others.
ADAPTERS = re.compile(r"(adapter_config\.json|(adapter_model|pytorch_lora_weights)\..*)")
LFS = b"version https://git-lfs"
_PLAIN = re.compile(r"[\w.-]+\.safetensors")
_STEMS: dict[str, str] = dict.fromkeys(("unet", "transformer", "vae"), "diffusion_pytorch_model")


@dataclass(frozen=True)
class Entry:
    """One tensor in a file: where it is, its safetensors type ("F16") and its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def weight_files(part: Path) -> list[Path]:
    """The safetensors files to load for a part: one, or the shards that its index names.

    The full precision is preferred to fp16. Raises ModelError where files are missing, unfinished,
    ambiguous, or outside of the part's folder.
    """
    _refuse_odd_entries(part)
    stem = _STEMS.get(part.name, "model")
    for whole, *indexes in (
        (f"{stem}.safetensors", f"{stem}.safetensors.index.json"),
        (f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.fp16.json",
         f"{stem}.fp16.safetensors.index.json"),
    ):  # fmt: skip
        found = [part / name for name in (whole, *indexes) if _exists(part / name)]
        if len(found) > 1:
            raise ModelError(
                f"{part} has both {found[0].name} and {found[1].name}; programs differ in which "
                "they read. Remove one of them."
            )
        if found:
            files = [part / whole] if found[0].name == whole else _shards(found[0])
            for file in files:
                _check_place(part, file)
            return files
    raise ModelError(_none(part, stem))


def entries(part: Path) -> dict[str, Entry]:
    """Every tensor of a part by its name in the files. Raises ModelError, naming the file."""
    found: dict[str, Entry] = {}
    for file in weight_files(part):
        for name, entry in header(file).items():
            if name in found:
                raise ModelError(
                    f"{part} holds {name[:100]!r} in {found[name].file.name} and in {file.name}. "
                    "Copy or download it again."
                )
            found[name] = entry
        if len(found) > TENSORS:
            raise ModelError(f"{part} has more than {TENSORS:,} tensors; no supported model does.")
    if not found:
        raise ModelError(f"{part} holds no tensors in its weights. Copy or download it again.")
    return found


def header(file: Path) -> dict[str, Entry]:
    """The tensors that a safetensors file's header announces, checked against its length."""
    check_regular(file, error=ModelError)
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if (head + stream.read(len(LFS) - 8)).startswith(LFS):
            raise ModelError(f"{file} is only a git-lfs pointer. Fetch the file: git lfs pull.")
        length = int.from_bytes(head, "little")
        if size < 8 or length > min(HEADER, size - 8):
            raise _damaged(file, "it is cut short or no safetensors file")
        stream.seek(8)
        told = stream.read(length)
    name = f"{file.parent} cannot be loaded: the header of {file.name}"
    table = parse_json(told, name, most=HEADER, error=ModelError)
    if not isinstance(table, dict):
        raise _damaged(file, "its header is not a table of tensors")
    found: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    for key, value in cast("dict[str, Any]", table).items():
        if key != "__metadata__":
            found[key], span = _entry(file, key, value)
            spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise _damaged(file, "its tensors overlap or leave gaps")
        end = last
    if end != size - 8 - length:
        raise _damaged(file, f"it has {size - 8 - length:,} bytes of weights instead of {end:,}")
    return found


def _entry(file: Path, key: str, value: Any) -> tuple[Entry, tuple[int, int]]:
    told = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    dtype = told.get("dtype")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _damaged(file, f"{key[:100]!r} is of the unknown type {str(dtype)[:20]!r}")
    shape, span = _sizes(told.get("shape")), _sizes(told.get("data_offsets"))
    if shape is None or span is None or len(span) != 2 or len(shape) > 8:
        raise _damaged(file, f"{key[:100]!r} has no shape or no place")
    if (span[1] - span[0]) * 8 != math.prod(shape) * BITS[dtype]:
        raise _damaged(file, f"{key[:100]!r} has a size that is not that of its shape")
    return Entry(file, dtype, shape), (span[0], span[1])


def _sizes(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    sizes = cast("list[Any]", value)
    return tuple(sizes) if all(type(one) is int and 0 <= one < 2**48 for one in sizes) else None


def _shards(index: Path) -> list[Path]:
    """The files that an index names. Each tensor must be in the file that it is placed in.

    The libraries would follow an index to any path, to a pickle too: only plain names are taken.
    """
    told = read_json(index, error=ModelError)
    placed = cast("dict[str, Any]", told).get("weight_map") if isinstance(told, dict) else None
    if not isinstance(placed, dict) or not placed:
        raise ModelError(f"{index} has no weight_map. Copy or download it again.")
    by_file: dict[str, set[str]] = {}
    for tensor, file in cast("dict[str, Any]", placed).items():
        if not isinstance(file, str) or not _PLAIN.fullmatch(file):
            raise ModelError(
                f"{index} names {str(file)[:100]!r}. An index may name only .safetensors files in "
                "its own folder."
            )
        by_file.setdefault(file, set()).add(tensor)
    for file, wanted in by_file.items():
        if not _exists(index.parent / file):
            raise ModelError(
                f"{index} names {file}, which is absent. Copy or download the model again."
            )
        _check_place(index.parent, index.parent / file)
        if missing := sorted(wanted - header(index.parent / file).keys()):
            raise ModelError(
                f"{index} places {missing[0][:100]!r} in {file}, which lacks it. Copy or download "
                "the model again."
            )
    return [index.parent / file for file in sorted(by_file)]


def _refuse_odd_entries(part: Path) -> None:
    for name in _listing(part):
        if name.endswith(".incomplete"):
            raise ModelError(f"{part / name} is an unfinished download. Download the model again.")
        if ADAPTERS.fullmatch(name):
            raise ModelError(
                f"{part} holds {name}, an adapter beside the weights, which is not applied. "
                "Move it away (a LoRA is read by: understudy concept import)."
            )


def _check_place(part: Path, file: Path) -> None:
    """A link must stay in the part's folder, or in the blobs of the hub cache it belongs to."""
    if not file.is_symlink():
        return
    home, target = part.resolve(), file.resolve()
    allowed = [home]
    if "snapshots" in home.parts:
        last = len(home.parts) - 1 - home.parts[::-1].index("snapshots")
        allowed.append(Path(*home.parts[:last], "blobs"))
    if not any(target.is_relative_to(place) for place in allowed):
        raise ModelError(f"{file} is a link to a file outside its folder. Copy the file itself.")


def _listing(part: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in part.iterdir())
    except OSError as error:
        raise ModelError(f"{part} cannot be read: {error.strerror or error}.") from error


def _exists(file: Path) -> bool:
    return file.is_symlink() or file.exists()  # a link to nothing is named as such when it is read


def _none(part: Path, stem: str) -> str:
    """Why there is nothing to load."""
    there = _listing(part)
    if others := [name for name in there if name.endswith(".safetensors")]:
        return (
            f"{part} has no {stem}.safetensors, the name of its weights. It has "
            f"{others[0][:100]}. Copy or download it again."
        )
    if pickled := [name for name in there if name.endswith((".bin", ".ckpt", ".pt"))]:
        return (
            f"{part} has only pickled weights ({pickled[0][:100]}), which are not read because "
            "that can run code hidden in them. Get the .safetensors files of this model."
        )
    return f"{part} has no weights ({stem}.safetensors). Copy or download it again."


def _damaged(file: Path, why: str) -> ModelError:
    return ModelError(
        f"{file.parent} cannot be loaded: {file.name} is damaged: {why}. Copy or download it again."
    )
