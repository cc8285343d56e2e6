"""Latents as tokens and back: 2 x 2 cells packed into one, the tokens' positions, references."""

from __future__ import annotations

from collections.abc import Sequence

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


def framed(
    latents: Float[Tensor, "r c h w"],
    references: Sequence[Float[Tensor, "1 c _ _"]],
    patch: int,
    *,
    step: int,
) -> Float[Tensor, "n 3"]:
    """`places` of latents, then of references, whose first number is step, 2 step and so on."""
    found = [places(latents, patch)]
    for number, reference in enumerate(references, 1):
        ids = places(reference, patch).to(latents.device)
        ids[:, 0] = number * step
        found.append(ids)
    return torch.cat(found)


def with_references(
    tokens: Float[Tensor, "r n d"], references: Sequence[Float[Tensor, "1 _ d"]]
) -> Float[Tensor, "r all d"]:
    """Tokens of the image in each row, then those of all references."""
    more = [one.to(tokens).expand(len(tokens), -1, -1) for one in references]
    return torch.cat([tokens, *more], dim=1) if more else tokens


def tokens_in(latents: Float[Tensor, "r c h w"], patch: int) -> int:
    """Number of image tokens of latents."""
    return latents.shape[-2] * latents.shape[-1] // patch**2
