"""Low-rank changes of weights: as a concept's tensors, and from full changes by singular values."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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
