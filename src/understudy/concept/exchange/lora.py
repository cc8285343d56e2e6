"""Low-rank changes as the tensors of LoRA files in kohya's and in diffusers' layout."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from understudy.concept.exchange.names import (
    as_text_model,
    kohya_name,
    split_weight,
)
from understudy.concept.exchange.original_names import as_original
from understudy.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]  # of every weight of the model, by our names
LowRank = dict[str, tuple[Tensor, Tensor, float]]  # weight: A (rank, in), B (out, rank), alpha

# What LoRA files change.
ATTENTION = re.compile(r"\.(attentions|self_attn|mlp|attn2?|attention|ff|ff_context)\.")


def low_rank_of(tensors: Mapping[str, Tensor]) -> LowRank:
    """The low-rank changes among a concept's tensors."""
    weights = [name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A")]
    return {
        w: (tensors[f"{w}.lora_A"], tensors[f"{w}.lora_B"], float(tensors[f"{w}.alpha"]))
        for w in weights
    }


def as_low_rank(tensors: Mapping[str, Tensor], rank: int, shapes: Shapes) -> tuple[LowRank, float]:
    """All of a concept's changes of weights as low-rank ones, the share of the full differences'
    sum of squares that is kept beside them. Raises InputError as `extracted` does."""
    pairs = low_rank_of(tensors)
    full = {name: one for name, one in tensors.items() if name in shapes}
    if not full:
        return pairs, 1.0
    more, kept = extracted(full, rank, shapes)
    return {**pairs, **more}, kept


def as_tensors(pairs: LowRank) -> dict[str, Tensor]:
    """The reverse: a concept's tensors."""
    named: dict[str, Tensor] = {}
    for weight, (a, b, alpha) in pairs.items():
        named |= {f"{weight}.lora_A": a.contiguous(), f"{weight}.lora_B": b.contiguous()}
        named[f"{weight}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    return named


def to_kohya(pairs: LowRank, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors under kohya's names: lora_down, lora_up and alpha of each module."""
    found: dict[str, Tensor] = {}
    for weight, (a, b, alpha) in as_original(pairs, shapes).items():
        ours = weight in shapes
        name = kohya_name(weight, shapes) if ours else f"lora_unet_{weight.replace('.', '_')}"
        down, up = _in_shape(a, b, shapes[weight] if ours else ())
        found |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        found[f"{name}.alpha"] = torch.tensor(alpha, dtype=down.dtype)
    return found


def to_diffusers(pairs: LowRank, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors under diffusers' names, the scale alpha / rank multiplied into the second one.

    Text encoders keep the prefix "text_model." that older versions look for.
    """
    found: dict[str, Tensor] = {}
    for weight, (a, b, alpha) in pairs.items():
        part, path = split_weight(weight)
        name = f"{part}.{as_text_model(part, path)}"
        down, up = _in_shape(a, b * (alpha / len(a)), shapes[weight])
        found |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    return found


def to_comfyui(pairs: LowRank, shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of a flow transformer under its authors' names (Black Forest Labs', Stability's),
    "diffusion_model." in front, as ComfyUI and ai-toolkit write them; diffusers' names where the
    family has no others. Scales are multiplied in."""
    found: dict[str, Tensor] = {}
    for weight, (a, b, alpha) in as_original(pairs, shapes).items():
        part, path = split_weight(weight) if weight in shapes else ("transformer", weight)
        name = f"diffusion_model.{path}"
        if part != "transformer":
            name = f"{part}.{as_text_model(part, path)}"
        down, up = _in_shape(a, b * (alpha / len(a)), shapes.get(weight, ()))
        found |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    return found


def _in_shape(a: Tensor, b: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The pair of a convolution as two convolutions, that of a linear layer as it is."""
    if len(shape) == 4:
        return a.reshape(len(a), *shape[1:]).contiguous(), b[:, :, None, None].contiguous()
    return a.contiguous(), b.contiguous()


@torch.no_grad()
def extracted(tensors: Mapping[str, Tensor], rank: int, shapes: Shapes) -> tuple[LowRank, float]:
    """Full differences as low-rank ones, the best of that rank (singular value decomposition), and
    the share of the whole change (sum of squares) that they keep.

    Layers of the attention blocks only, as LoRA files have them; what else changed is lost.
    """
    if rank < 1:
        raise InputError(f"--rank must be at least 1. Got {rank}.")
    pairs: LowRank = {}
    kept = whole = 0.0
    for weight, change in tensors.items():
        whole += float(change.double().square().sum())
        if change.ndim < 2 or not weight.endswith(".weight") or not ATTENTION.search(weight):
            continue
        u, s, v = torch.linalg.svd(change.float().flatten(1), full_matrices=False)
        most = min(rank, len(s))
        root = s[:most].sqrt()
        a, b = root[:, None] * v[:most], u[:, :most] * root
        pairs[weight] = (a.half(), b.half(), float(most))
        kept += float(s[:most].double().square().sum())
    return pairs, kept / whole if whole else 0.0
