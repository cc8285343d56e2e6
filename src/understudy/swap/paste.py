"""Outside the swapped region the picture is the photo itself: a feathered composite of pixels.

Blending latents keeps the photo's latent, but what passes an autoencoder is never quite the photo.
Knows pictures and masks only.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def paste(
    photo: Float[Tensor, "1 3 h w"],
    swapped: Float[Tensor, "k 3 h w"],
    mask: Float[Tensor, "m 1 h w"],
    feather: int = 4,
) -> Float[Tensor, "k 3 h w"]:
    """`swapped` where the mask is 1, `photo` bit for bit where it is 0.

    feather: pixels over which the two meet, inside the mask: nothing outside it is touched.
    """
    soft = mask.to(swapped)
    if feather:
        # Shrink the mask, then blur it: the ramp from 1 to 0 ends where the mask ended.
        near = (feather + 1) // 2
        inner = 1 - F.max_pool2d(_padded(1 - soft, near), 2 * near + 1, stride=1)
        soft = F.avg_pool2d(_padded(inner, near), 2 * near + 1, stride=1).minimum(soft)
    mixed = photo.to(swapped) + soft * (swapped - photo.to(swapped))
    return mixed.where(soft > 0, photo.to(swapped))


def _padded(mask: Tensor, by: int) -> Tensor:
    """The picture's edge is no edge of the mask."""
    return F.pad(mask, (by, by, by, by), mode="replicate")
