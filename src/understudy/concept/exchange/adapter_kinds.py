"""What each kind of adapter changes in a weight, as a full difference of the weight's shape.

    LoRA        s B A                                     Hu et al. 2021, arXiv:2106.09685
    LoCon       s U M D, M a core of the kernel's size    convolutions; Yeh et al. 2023
    LoHa        s (A1 B1) * (A2 B2), elementwise          Hyeon-Woo et al. 2022, arXiv:2108.06098
    LoKr        s W1 (x) W2, Kronecker product            Yeh et al. 2023, arXiv:2309.14859
    DoRA        m (W + D) / |W + D| - W                   Liu et al. 2024, arXiv:2402.09353

s is alpha / rank. Shapes are checked before anything is multiplied: a small file cannot ask for a
large result. Functions return None where the shapes do not make the weight's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]  # of one module, by their field: "A", "hada_w1_a"
Shape = tuple[int, ...]


def rank_of(found: Tensors) -> int | None:
    """The rank that alpha is divided by; None for a LoKr of two full factors, and differences."""
    if "A" in found:
        return found["A"].shape[0] if found["A"].ndim else None
    for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in found and found[name].ndim:
            return found[name].shape[0]
    return None


def low_rank(found: Tensors, shape: Shape) -> tuple[Tensor, Tensor] | None:
    """A (rank, inputs) and B (outputs, rank) of a plain LoRA for a weight of this shape."""
    down, up = found["A"], found["B"]
    if min(len(shape), down.ndim, up.ndim) < 2 or len(down) == 0:
        return None
    a, b = down.flatten(1), up.flatten(1)
    fits = (tuple(b.shape), a.shape[1]) == ((shape[0], len(a)), prod(shape[1:]))
    return (a, b) if fits else None


def full(found: Tensors, shape: Shape) -> Tensor | None:
    """The unscaled difference of any kind of adapter but DoRA, float32, of this shape."""
    found = {name: tensor.float() for name, tensor in found.items()}
    if "diff" in found:
        return found["diff"].reshape(shape) if found["diff"].numel() == prod(shape) else None
    if "mid" in found:
        return _locon(found, shape)
    if "A" in found:
        pair = low_rank(found, shape)
        return None if pair is None else (pair[1] @ pair[0]).reshape(shape)
    if "hada_w1_a" in found:
        halves = [_product(found, f"hada_w{n}", f"hada_t{n}", shape) for n in (1, 2)]
        one, other = halves
        return None if one is None or other is None else (one * other).reshape(shape)
    return _lokr(found, shape)


def _locon(found: Tensors, shape: Shape) -> Tensor | None:
    if min(found["A"].ndim, found["B"].ndim) < 2 or not found["A"].numel() * found["B"].numel():
        return None
    up, down = found["B"].flatten(1), found["A"].flatten(1)
    return _tucker(found["mid"], up.T, down, shape)


def _tucker(core: Tensor, a: Tensor, b: Tensor, shape: Shape) -> Tensor | None:
    """core (p, q, k, k), a (p, outputs), b (q, inputs): a weight (outputs, inputs, k, k)."""
    if core.ndim != 4 or len(shape) != 4 or a.ndim != 2 or b.ndim != 2:
        return None
    if tuple(core.shape[:2]) != (len(a), len(b)):
        return None
    if (a.shape[1], b.shape[1], *core.shape[2:]) != shape:
        return None
    return torch.einsum("pqkl,po,qi->oikl", core, a, b)


def _product(found: Tensors, stem: str, core: str, shape: Shape) -> Tensor | None:
    """A factor of a LoHa: a @ b, or with a Tucker core."""
    a, b = found[f"{stem}_a"], found[f"{stem}_b"]
    if core in found:
        return _tucker(found[core], a, b, shape)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        return None
    fits = (a.shape[0], b.shape[1]) == (shape[0], prod(shape[1:]))
    return (a @ b).reshape(shape) if fits else None


def _lokr(found: Tensors, shape: Shape) -> Tensor | None:
    one = _factor(found, "lokr_w1", None)
    other = _factor(found, "lokr_w2", "lokr_t2")
    if one is None or other is None or one.ndim != 2 or other.ndim not in (2, 4):
        return None
    if one.shape[0] * other.shape[0] != shape[0] or one.numel() * other.numel() != prod(shape):
        return None
    if other.ndim == 4:
        one = one[:, :, None, None]
    return torch.kron(one, other.contiguous()).reshape(shape)


def _factor(found: Tensors, stem: str, core: str | None) -> Tensor | None:
    if stem in found:
        return found[stem]
    a, b = found[f"{stem}_a"], found[f"{stem}_b"]
    if core and core in found:
        kernel = tuple(found[core].shape[2:])
        return _tucker(found[core], a, b, (a.shape[-1], b.shape[-1], *kernel))
    return a @ b if a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0] else None


def decomposed(
    weight: Tensor, change: Tensor, magnitude: Tensor, per_output: bool
) -> Tensor | None:
    """DoRA's difference: the changed weight at the given magnitudes, less the weight.

    magnitude: one a row of the weight (per_output) or one a column; norms are over all else.
    """
    changed = weight.detach().float().cpu() + change
    sizes = [1] * changed.ndim
    axis = 0 if per_output else 1
    if changed.ndim < 2 or magnitude.numel() != changed.shape[axis]:
        return None
    sizes[axis] = -1
    others = [dim for dim in range(changed.ndim) if dim != axis]
    norm = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
    norm = norm.clamp_min(torch.finfo(torch.float32).eps)
    scaled = magnitude.float().reshape(sizes) / norm * changed
    return scaled - weight.detach().float().cpu()
