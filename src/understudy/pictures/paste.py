"""Pastes the photo's own pixels where an edit changed nothing, with a feathered edge.

Blending latents keeps the photo's latent, but what passes an autoencoder is never quite the photo,
and a cell of latents holds many pixels: those beside the subject are background, redrawn.
Knows pictures and masks only.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.pictures.membrane import offset

# Of the range from -1 to 1, chosen on toys outside the benchmark: a difference of colour below the
# first is none, one above the second is a whole one.
NONE, WHOLE = 0.1, 0.2
GRAIN, REACH = 5, 2  # pixels: over which differences are averaged, and how far each is felt


def paste(
    photo: Float[Tensor, "1 3 h w"],
    swapped: Float[Tensor, "k 3 h w"],
    mask: Float[Tensor, "m 1 h w"],
    feather: int = 4,
    redrawn: Float[Tensor, "1 3 h w"] | None = None,
    *,
    agree: bool = False,
) -> Float[Tensor, "k 3 h w"]:
    """`swapped` where the mask is 1, `photo` bit for bit where it is 0.

    feather: pixels over which the two meet, inside the mask: nothing outside it is touched.
    redrawn: the photo as the autoencoder draws it. Inside the mask, too, the photo stays where the
    swap shows what this does. agree: whether `swapped` is fitted to the photo along the border of
    what is pasted; see `membrane.py`.
    """
    soft = mask.to(swapped)
    if feather:
        # Shrink the mask, then blur it: the ramp from 1 to 0 ends where the mask ended.
        near = (feather + 1) // 2
        inner = 1 - F.max_pool2d(_padded(1 - soft, near), 2 * near + 1, stride=1)
        soft = F.avg_pool2d(_padded(inner, near), 2 * near + 1, stride=1).minimum(soft)
    if redrawn is not None:
        soft = soft * changed(swapped, redrawn.to(swapped))
    if agree:
        soft = soft.minimum(_eased(soft))
        swapped = swapped + offset(photo, swapped, soft > 0, NONE)
    mixed = photo.to(swapped) + soft * (swapped - photo.to(swapped))
    return mixed.where(soft > 0, photo.to(swapped))


def changed(
    swapped: Float[Tensor, "k 3 h w"], redrawn: Float[Tensor, "1 3 h w"]
) -> Float[Tensor, "k 1 h w"]:
    """How much a swap changed each pixel: 0 not at all, 1 beyond doubt."""
    apart = (swapped - redrawn).abs().amax(dim=1, keepdim=True)
    apart = F.avg_pool2d(_padded(apart, GRAIN // 2), GRAIN, stride=1)
    near = F.max_pool2d(_padded(apart, REACH), 2 * REACH + 1, stride=1)
    return ((near - NONE) / (WHOLE - NONE)).clamp(0, 1)


def _eased(soft: Float[Tensor, "k 1 h w"]) -> Float[Tensor, "k 1 h w"]:
    """0 where a mask is 0, from there to 1 over 4 pixels inside, with slope 0 at both ends."""
    inner = 1 - F.max_pool2d(_padded((soft == 0).to(soft), 2), 5, stride=1)
    for _ in range(2):
        inner = F.avg_pool2d(_padded(inner, 1), 3, stride=1)
    return inner


def _padded(mask: Tensor, by: int) -> Tensor:
    """The picture's edge is no edge of the mask."""
    return F.pad(mask, (by, by, by, by), mode="replicate")
