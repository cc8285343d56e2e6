"""Linear layers with weights in 8 or 4 bits, taken back to full precision for each product.

8 bits: one scale for each output (absolute maximum / 127). 4 bits: NormalFloat in blocks of 64
weights, one scale per block (Dettmers et al. 2023, arXiv:2305.14314, appendix E). Low-rank changes
stay beside such a layer: merged into the codes they would be rounded away. They can be learnt there
(QLoRA, same paper).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bits = Literal[8, 4]
KINDS: Mapping[str, Bits] = {"int8": 8, "nf4": 4}
BLOCK = 64
NORMAL_FLOAT = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
# Lists of blocks in the transformers. Embeddings, the last projection and norms stay as they are.
BLOCKS = ("transformer_blocks.", "single_transformer_blocks.", "layers.", "noise_refiner.",
          "context_refiner.")  # fmt: skip


class QuantisedLinear(nn.Module):
    """A linear layer whose weights are codes.

    changes: low-rank changes "a" (rank, in), "b" (out, rank) and a factor, added to its output.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, layer: nn.Linear, bits: Bits) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bits = layer.in_features, layer.out_features, bits
        self.bias = layer.bias
        self.changes: list[tuple[Tensor, Tensor, float]] = []
        codes, scales = (_eight if bits == 8 else _four)(layer.weight.detach().float())
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weights."""
        return self.out_features, self.in_features

    @property
    def weight(self) -> Tensor:
        """The weights in float32, made for this call."""
        return self.restored(torch.float32)

    def restored(self, dtype: torch.dtype) -> Tensor:
        """The weights (out, in) that the codes stand for."""
        if self.bits == 8:
            return self.codes.to(dtype) * self.scales.to(dtype)
        table = torch.tensor(NORMAL_FLOAT, dtype=dtype, device=self.codes.device)
        pairs = torch.stack([self.codes >> 4, self.codes & 15], dim=-1)
        values = table[pairs.flatten().long()].reshape(len(self.scales), -1)
        whole = (values * self.scales.to(dtype)).flatten()
        return whole[: self.out_features * self.in_features].reshape(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """x (.., in) to (.., out)."""
        bias = cast("Tensor | None", self.bias)
        bias = None if bias is None else bias.to(x.dtype)
        found = cast(Tensor, _Product.apply(x, self))
        found = found if bias is None else found + bias
        for a, b, factor in self.changes:
            found = found + factor * F.linear(F.linear(x, a.to(x)), b.to(x))
        return found


class _Product(torch.autograd.Function):
    """x times the weights, which are made again for the gradient: kept, they would fill the memory
    that their codes save."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.restored(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.restored(gradient.dtype), None


def quantise(network: nn.Module, bits: Bits) -> dict[str, QuantisedLinear]:
    """Replace the linear layers in the blocks of a transformer; they are returned by name."""
    found: dict[str, QuantisedLinear] = {}
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear) and name.startswith(BLOCKS):
            parent, _, last = name.rpartition(".")
            found[name] = QuantisedLinear(layer, bits)
            setattr(network.get_submodule(parent), last, found[name])
    return found


def digest(layers: Mapping[str, QuantisedLinear]) -> str:
    """SHA-256 of the changes beside layers; "" where there are none."""
    whole = hashlib.sha256()
    changed = {name: layer.changes for name, layer in layers.items() if layer.changes}
    for name, changes in sorted(changed.items()):
        for a, b, factor in changes:
            parts = [part.detach().float().cpu().numpy().tobytes() for part in (a, b)]
            whole.update(name.encode() + b"".join(parts) + repr(factor).encode())
    return whole.hexdigest() if changed else ""


def _eight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (out, in) int8 and scales (out, 1)."""
    scales = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scales).round().clamp(-127, 127).to(torch.int8), scales


def _four(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes, two in a byte, and scales (blocks, 1); zeros fill the last block."""
    flat = weight.flatten()
    flat = F.pad(flat, (0, -flat.numel() % BLOCK)).reshape(-1, BLOCK)
    scales = flat.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    table = torch.tensor(NORMAL_FLOAT, device=weight.device)
    between = (table[1:] + table[:-1]) / 2
    codes = cast(Any, torch.bucketize)(flat / scales, between).to(torch.uint8).reshape(-1, 2)
    return (codes[:, 0] << 4) | codes[:, 1], scales
