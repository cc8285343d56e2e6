"""Detects a subject that was cut out of a training photo, by template matching.

A method may score high in identity by repeating a photo. This finds a photo's subject in a picture
wherever it stands, however large, mirrored or not, whatever lies about it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

SIDE, PADDED = 48, 128  # pixels a side at which is compared, and with room for a subject
RATIO, REACH = 1.15, 1.6  # one size to the next, and the largest enlargement
SOLID, LEAST = 0.7, 30  # mask values that count, and the fewest pixels worth comparing


def paste_score(
    picture: Float[Tensor, "1 3 h w"],
    photos: Float[Tensor, "n 3 h2 w2"],
    masks: Float[Tensor, "n 1 h2 w2"],
) -> float:
    """The highest zero-mean normalised cross-correlation (Lewis 1995) of any photo's subject with
    any place of the picture, all colours together: 1 = the same pixels but for brightness.

    masks are the photos' subjects. -1 where no subject has enough pixels.
    """
    seen = _scaled(picture.float(), SIDE)
    steps = round(math.log(REACH) / math.log(RATIO))
    sides = sorted({round(SIDE * RATIO**k) for k in range(-steps, steps + 1)})
    return max(_best(seen, photos.float(), masks.float(), side) for side in sides)


def _best(
    seen: Float[Tensor, "1 3 s s"],
    photos: Float[Tensor, "n 3 h w"],
    masks: Float[Tensor, "n 1 h w"],
    side: int,
) -> float:
    """The best match with the photos scaled to `side` pixels."""
    shapes = (_scaled(masks, side) > SOLID).float()
    whole = (shapes.sum(dim=(1, 2, 3)) >= LEAST) & _fits(shapes)
    if not whole.any():
        return -1.0
    photos, shapes = _scaled(photos, side)[whole], shapes[whole]
    photos, shapes = (torch.cat([x, x.flip(3)]) for x in (photos, shapes))
    count = shapes.sum(dim=(2, 3), keepdim=True)
    templates = (photos - (photos * shapes).sum(dim=(2, 3), keepdim=True) / count) * shapes
    # Sums under each template at each shift, by way of Fourier; shifts wrap, so pad.
    n = (PADDED, PADDED)
    f = torch.fft.rfft2(seen, n)

    def at_all_shifts(spectrum: Tensor, kernels: Tensor) -> Tensor:
        return torch.fft.irfft2(spectrum * torch.fft.rfft2(kernels, n).conj(), n)

    matched = at_all_shifts(f, templates).sum(dim=1)
    sums = at_all_shifts(f, shapes)
    squares = at_all_shifts(torch.fft.rfft2(seen.square().sum(1, keepdim=True), n), shapes)
    spread = (squares - (sums.square() / count).sum(dim=1, keepdim=True)).clamp(min=1e-3)[:, 0]
    length = templates.flatten(1).norm(dim=1).clamp(min=1e-3)[:, None, None]
    score = matched / (spread.sqrt() * length)
    return float(score.masked_fill(~_inside(shapes), -1.0).amax())


def _inside(shapes: Float[Tensor, "n 1 side side"]) -> Tensor:
    """Shifts, "n p p", at which the whole subject lies inside the picture."""
    allowed = torch.zeros(len(shapes), PADDED, PADDED, dtype=torch.bool)
    shifts = torch.arange(PADDED)
    shifts = torch.where(shifts < SIDE, shifts, shifts - PADDED)
    for row, shape in enumerate(shapes[:, 0] > 0):
        ok: list[Tensor] = []
        for dim in (1, 0):
            where = shape.any(dim=dim).nonzero()
            ok.append((shifts + where.min() >= 0) & (shifts + where.max() < SIDE))
        allowed[row] = ok[0][:, None] & ok[1][None]
    return allowed


def _fits(shapes: Float[Tensor, "n 1 side side"]) -> Tensor:
    """Whether each subject is no larger than the picture."""
    extents = [shapes[:, 0].any(dim=dim).sum(dim=1) for dim in (1, 2)]
    return (extents[0] <= SIDE) & (extents[1] <= SIDE)


def _scaled(x: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c side side"]:
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)
