"""LoRA files: kohya's and diffusers' ways of writing the same small matrices, to and from ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from understudy.concept.exchange.names import (
    as_text_model,
    diffusers_weight,
    kohya_name,
    kohya_table,
    split_weight,
)
from understudy.errors import ConceptError, InputError

Shapes = Mapping[str, tuple[int, ...]]  # of every weight of the model, by our names
LowRank = dict[str, tuple[Tensor, Tensor, float]]  # weight: A (rank, in), B (out, rank), alpha

# Endings of a pair's two tensors, in every dialect: what comes before is the module's name.
DOWN = (".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight", ".lora.down.weight",
        ".lora_linear_layer.down.weight", ".down.weight")  # fmt: skip
UP = tuple(one.replace("down", "up").replace("lora_A", "lora_B") for one in DOWN)
OTHERS = ("hada_", "lokr_", "oft_", "dora_scale", "lora_magnitude_vector", "lora_mid", ".diff")
ATTENTION = re.compile(r"\.(attentions|self_attn|mlp)\.")  # what LoRA files change


def low_rank_of(tensors: Mapping[str, Tensor]) -> LowRank:
    """The low-rank changes among a concept's tensors."""
    weights = [name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A")]
    return {
        w: (tensors[f"{w}.lora_A"], tensors[f"{w}.lora_B"], float(tensors[f"{w}.alpha"]))
        for w in weights
    }


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
    for weight, (a, b, alpha) in pairs.items():
        name = kohya_name(weight, shapes)
        down, up = _in_shape(a, b, shapes[weight])
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


def _in_shape(a: Tensor, b: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The pair of a convolution as two convolutions, that of a linear layer as it is."""
    if len(shape) == 4:
        return a.reshape(len(a), *shape[1:]).contiguous(), b[:, :, None, None].contiguous()
    return a.contiguous(), b.contiguous()


def is_lora(tensors: Mapping[str, Any]) -> bool:
    """Whether a file's names are those of a LoRA, of this sort or another."""
    return any(name.endswith(DOWN) or any(o in name for o in OTHERS[:3]) for name in tensors)


def from_file(tensors: Mapping[str, Tensor], shapes: Shapes, file: str) -> LowRank:
    """The low-rank changes of a file of kohya's or diffusers' for a model with these weights.

    Raises ConceptError for other sorts (LoHa, LoKr, DoRA) and for another family's LoRA.
    """
    odd = sorted(name for name in tensors if any(other in name for other in OTHERS))
    if odd:
        raise ConceptError(
            f"{file} is no plain LoRA: it has {odd[0]!r}. LoHa, LoKr, OFT and DoRA are not read; "
            "merge it into a model with the program that made it, and import that folder."
        )
    table = kohya_table(shapes)
    pairs: LowRank = {}
    strangers: list[str] = []
    for name, down in tensors.items():
        ending = next((one for one in DOWN if name.endswith(one)), None)
        if ending is None:
            continue
        module = name.removesuffix(ending)
        weight = table.get(module) or diffusers_weight(module, shapes)
        up = tensors.get(module + UP[DOWN.index(ending)])
        if weight is None or up is None:
            strangers.append(name)
            continue
        alpha = tensors.get(f"{module}.alpha")
        scale = float(alpha) if alpha is not None else float(down.shape[0])
        a, b = down.flatten(1), up.flatten(1)
        pairs[weight] = (a, b, scale)
        if a.shape[1] * b.shape[0] != _numel(shapes[weight]) or a.shape[0] != b.shape[1]:
            raise ConceptError(
                f"{file} is a LoRA for another model: {name} is {tuple(down.shape)}, the weight it "
                f"changes here is {tuple(shapes[weight])}. Load the model it was made for."
            )
    if strangers or not pairs:
        raise ConceptError(
            f"{file} changes {len(strangers)} weights that this model does not have, the first is "
            f"{(strangers or ['none at all'])[0]!r}. Load the model it was made for."
        )
    return pairs


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


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
