"""The weights of a part as safetensors files of bounded size, read piece by piece from one file.

Only the tensors of one shard are in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from understudy.errors import ModelError
from understudy.files.atomic import write_json
from understudy.files.tensors import save_tensors
from understudy.models.weight_files import BITS, header

SHARD = 4 * 2**30  # bytes of a file
EIGHTHS = (torch.float8_e4m3fn, torch.float8_e5m2)  # bfloat16 holds their values exactly


@dataclass(frozen=True)
class Piece:
    """Where a tensor is in a file. rows: the first and the one behind the last; None = all.
    swapped: whether the two halves of its rows stand in the other order."""

    name: str
    rows: tuple[int, int] | None = None
    swapped: bool = False


def write_shards(
    part: Path, file: Path, pieces: Mapping[str, Piece], tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write the weights of a part: pieces of a file, or tensors that are in memory.

    Raises ModelError for values that are not finite.
    """
    stem = "model" if part.name.startswith("text_encoder") else "diffusion_pytorch_model"
    if tensors is not None:
        checked = {name: _finite(file, part, name, value) for name, value in tensors.items()}
        save_tensors(part / f"{stem}.safetensors", checked, {"format": "pt"})
        return
    groups = _groups(file, pieces)
    placed: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        end = "" if len(groups) == 1 else f"-{number:05}-of-{len(groups):05}"
        shard = part / f"{stem}{end}.safetensors"
        with safe_open(file, "pt") as opened:
            found = {name: _read(opened, pieces[name]) for name in names}
        for name, value in found.items():
            _finite(file, part, name, value)
        save_tensors(shard, found, {"format": "pt"})
        placed |= dict.fromkeys(names, shard.name)
    if len(groups) > 1:
        write_json(part / f"{stem}.safetensors.index.json", {"metadata": {}, "weight_map": placed})


def _groups(file: Path, pieces: Mapping[str, Piece]) -> list[list[str]]:
    """The names of each shard, in order."""
    entries = header(file)
    groups, size = [list[str]()], 0.0
    for name, piece in pieces.items():
        entry = entries[piece.name]
        rows = 1.0 if piece.rows is None else (piece.rows[1] - piece.rows[0]) / entry.shape[0]
        more = rows * math.prod(entry.shape) * max(BITS[entry.dtype], 16) / 8
        if groups[-1] and size + more > SHARD:
            groups.append([])
            size = 0.0
        groups[-1].append(name)
        size += more
    return groups


def _read(opened: Any, piece: Piece) -> Tensor:
    whole = opened.get_slice(piece.name)
    value: Tensor = (
        whole[piece.rows[0] : piece.rows[1]] if piece.rows else opened.get_tensor(piece.name)
    )
    value = value.to(torch.bfloat16) if value.dtype in EIGHTHS else value
    if piece.swapped:
        first, second = value.chunk(2)
        value = torch.cat([second, first])
    return value


def _finite(file: Path, part: Path, name: str, value: Tensor) -> Tensor:
    if value.is_floating_point() and not value.isfinite().all():
        raise ModelError(f"{file}: {part.name}.{name} holds values that are not finite (NaN).")
    return value
