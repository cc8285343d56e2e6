"""LoRA files of flow transformers with the names of their authors' code (see original_names.py of
models/transformer), as ours and back.

ComfyUI and ai-toolkit put "diffusion_model." in front, kohya "lora_unet_" with underscores.

Splitting a fused low-rank change copies A and cuts B by rows. Joining stacks the As and makes B
block-diagonal. Both are exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from understudy.concept.exchange.adapter_names import ALPHA, field_of
from understudy.errors import ConceptError
from understudy.models.transformer.original_names import PART, Fused, Shapes, original_table

PREFIXES = ("diffusion_model.", "model.diffusion_model.", PART, "")
Pair = tuple[Tensor, Tensor, float]  # A (rank, in), B (out, rank), alpha


def as_ours(tensors: Mapping[str, Tensor], weights: Shapes, file: str) -> dict[str, Tensor]:
    """The tensors of a file under diffusers' names, fused layers split. Others stay as they are.

    Raises ConceptError for a fused layer in another form than a plain LoRA.
    """
    table = original_table(weights)
    flat = {f"lora_unet_{path.replace('.', '_')}": path for path in table}
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        placed = field_of(name)
        module = placed[0] if placed else ALPHA.sub("", name)
        path = flat.get(module)
        for prefix in PREFIXES:
            if path is None and module.startswith(prefix) and module[len(prefix) :] in table:
                path = module[len(prefix) :]
        if path is None:
            found[_renamed(name)] = value
            continue
        ending, layer = name[len(module) :], table[path]
        plain = placed is None or placed[1] in ("A", "B")
        if not plain and (len(layer.weights) > 1 or layer.swapped):
            raise ConceptError(
                f"{file}: {name!r} belongs to a fused layer, and only plain LoRA matrices of such "
                "layers are read. Merge it into a model with the program that made it."
            )
        pieces = [value] * len(layer.weights)
        if placed is not None and placed[1] == "B":
            pieces = _cut(value, layer, weights, name, file)
        for weight, piece in zip(layer.weights, pieces, strict=True):
            found[f"{weight.removesuffix('.weight')}{ending}"] = piece
    return found


def _renamed(name: str) -> str:
    """ "diffusion_model." in front of diffusers' names, as ai-toolkit and ComfyUI write them."""
    for prefix in PREFIXES[:2]:
        if name.startswith(prefix):
            return PART + name[len(prefix) :]
    return name


def _cut(value: Tensor, layer: Fused, weights: Shapes, name: str, file: str) -> list[Tensor]:
    rows = [weights[weight][0] for weight in layer.weights]
    if not value.ndim or sum(rows) != len(value):
        raise ConceptError(
            f"{file} is for another model: {name!r} has {len(value) if value.ndim else 0} rows. "
            f"Expected {sum(rows)}."
        )
    value = _halves(value) if layer.swapped else value
    return [piece.contiguous() for piece in value.split(rows)]


def _halves(value: Tensor) -> Tensor:
    first, second = value.chunk(2)
    return torch.cat([second, first])


def as_original(pairs: Mapping[str, Pair], weights: Shapes) -> dict[str, Pair]:
    """Low-rank changes by the original code's paths; what it does not name stays by ours.

    A layer whose parts did not all change gets zero rows for the others.
    """
    owner = {
        weight: (path, layer)
        for path, layer in original_table(weights).items()
        for weight in layer.weights
    }
    found: dict[str, Pair] = {}
    for weight, pair in pairs.items():
        if weight not in owner:
            found[weight] = pair
            continue
        path, layer = owner[weight]
        if path not in found:
            found[path] = _joined([pairs.get(one) for one in layer.weights], layer, weights)
    return found


def _joined(parts: list[Pair | None], layer: Fused, weights: Shapes) -> Pair:
    there = [part for part in parts if part is not None]
    if len(parts) == 1 and not layer.swapped:
        return there[0]
    a = torch.cat([part[0].float() for part in there])
    b = a.new_zeros(sum(weights[one][0] for one in layer.weights), len(a))
    row = column = 0
    for weight, part in zip(layer.weights, parts, strict=True):
        height = weights[weight][0]
        if part is not None:
            rank = len(part[0])
            b[row : row + height, column : column + rank] = part[1].float() * (part[2] / rank)
            column += rank
        row += height
    return a, (_halves(b) if layer.swapped else b), float(len(a))
