"""Layers that the networks for toybox pictures share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Bottleneck residual block, batch-normalised (He et al. 2016, fig. 5 right)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(width, inner, 1),
            conv(inner, inner, 3),
            nn.Conv2d(inner, width, 1, bias=False),
            last := nn.BatchNorm2d(width),
        )
        nn.init.zeros_(last.weight)  # a new block passes its input on

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return F.relu(x + self.layers(x))


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the side shrinks by exactly `stride`."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, (size - stride + 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def pool(features: Float[Tensor, "b c h w"], mask: Float[Tensor, "b 1 s s"]) -> Tensor:
    """Mean features inside the mask (logits) and outside it, "b 2c"; it lets no gradient through.

    A little weight everywhere keeps both means defined, whatever the mask.
    """
    inside = F.adaptive_avg_pool2d(
        mask.detach().float().sigmoid(), (features.shape[2], features.shape[3])
    )
    weights = torch.cat([inside, 1 - inside], dim=1).flatten(2) + 1e-3  # b 2 hw
    weights = (weights / weights.sum(dim=2, keepdim=True)).to(features.dtype)
    return (weights @ features.flatten(2).transpose(1, 2)).flatten(1)
