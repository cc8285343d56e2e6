"""Latents as tokens and back: 2 x 2 cells packed into one, and the tokens' positions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad


def packed(latents: Float[Tensor, "r c h w"]) -> Float[Tensor, "r n d"]:
    """2 x 2 cells as one token of 4 c channels, channel by channel."""
    rows, channels, height, width = latents.shape
    blocks = latents.reshape(rows, channels, height // 2, 2, width // 2, 2)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(rows, height * width // 4, channels * 4)


def unpacked(tokens: Float[Tensor, "r n d"], shape: torch.Size) -> Float[Tensor, "r c h w"]:
    """The inverse of `packed`. shape: of the latents."""
    rows, channels, height, width = shape
    blocks = tokens.reshape(rows, height // 2, width // 2, channels, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(shape)


def places(latents: Float[Tensor, "r c h w"], patch: int) -> Float[Tensor, "n 3"]:
    """Positions (0, row, column) of the image tokens, row by row."""
    height, width = (side // patch for side in latents.shape[-2:])
    where = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
    return pad(where.reshape(-1, 2), (1, 0)).to(latents.device)
