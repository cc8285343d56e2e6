"""Puts an edited square back into the photo it was cut from.

Only what the edit changed is replaced: elsewhere the photo's own pixels are sharper than anything a
generator draws. Knows pictures and squares only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.pictures.paste import changed
from understudy.project.align import Square

RIM = 0.06  # of half the square: over so much of its border the edit fades out


@torch.no_grad()
def put_back(
    photo: Float[Tensor, "1 3 h w"],
    before: Float[Tensor, "1 3 h2 w2"],
    after: Float[Tensor, "1 3 h2 w2"],
    square: Square,
) -> Float[Tensor, "1 3 h w"]:
    """The photo with the edit in it; where nothing changed, and outside, bit for bit itself.

    before, after: what the generator draws of the square, unedited and edited.
    """
    top, bottom, left, right = _box(square, (photo.shape[-2], photo.shape[-1]))
    if top >= bottom or left >= right:
        return photo
    v, u = _places(square, (top, bottom, left, right))
    share = changed(after, before) * _rim(after)
    drawn = _laid(torch.cat([after, share], dim=1), square, u, v).to(photo)
    part, share = photo[..., top:bottom, left:right], drawn[:, 3:].clamp(0, 1)
    mixed = part + share * (drawn[:, :3].clamp(-1, 1) - part)
    made = photo.clone()
    made[..., top:bottom, left:right] = mixed.where(share > 0, part)
    return made


def _box(square: Square, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows and columns of a photo within which the square lies: from, to; from, to."""
    x, y = square.centre
    wide, tall = (abs(r) + abs(d) for r, d in zip(square.right, square.down, strict=True))
    return (
        max(0, math.floor(y - tall)), min(size[0], math.ceil(y + tall)),
        max(0, math.floor(x - wide)), min(size[1], math.ceil(x + wide)),
    )  # fmt: skip


def _places(square: Square, box: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Where pixels of a box lie in the square: down and across it, -1 to 1 inside."""
    top, bottom, left, right = box
    y = torch.arange(top, bottom)[:, None] + 0.5 - square.centre[1]
    x = torch.arange(left, right)[None] + 0.5 - square.centre[0]
    (a, c), (b, d) = square.right, square.down
    area = a * d - b * c
    return (a * y - c * x) / area, (d * x - b * y) / area


def _rim(picture: Tensor) -> Float[Tensor, "1 1 h w"]:
    """1 inside, falling to 0 at the border."""
    ways = [
        (1 - ((torch.arange(n) + 0.5) / n * 2 - 1).abs()).div(RIM).clamp(0, 1)
        for n in picture.shape[-2:]
    ]
    return torch.outer(*ways)[None, None].to(picture)


def _laid(picture: Tensor, square: Square, u: Tensor, v: Tensor) -> Tensor:
    """Sampled where u and v say, 0 outside; made smaller before where the photo is the smaller."""
    sizes = 2 * math.hypot(*square.down), 2 * math.hypot(*square.right)
    own = (int(picture.shape[-2]), int(picture.shape[-1]))
    size = [min(n, max(1, round(wanted))) for n, wanted in zip(own, sizes, strict=True)]
    if tuple(size) != own:
        picture = F.interpolate(picture, size=size, mode="bilinear", antialias=True)
    grid = torch.stack(torch.broadcast_tensors(u, v), dim=-1)[None].to(picture)
    return F.grid_sample(
        picture, grid, mode="bicubic", padding_mode="border", align_corners=False
    ) * ((u.abs() < 1) & (v.abs() < 1)).to(picture)
