"""Fits the background that an edit has drawn to the photo around it.

What was behind the old subject is redrawn, in colours that are a little off. The offset is known
where the photo shows the same background, and is carried into the gap by a weighted average of
what is near (normalised convolution, Knutsson and Westin 1993). Knows pictures and masks only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.pictures.tensors import blurred, grown

# Shares of the longer side: deviations of the near and of the far average, and of the soft edge of
# the subject. The far average decides only where the near one knows nothing.
NEAR, FAR, EDGE = 0.024, 0.064, 0.008
FAR_WEIGHT = 0.05
LEAST = 1e-3  # weight below which nothing is known, and nothing is changed
STRONG = 0.25  # of the range from -1 to 1: a change that is no background's


def toned(
    photo: Float[Tensor, "1 3 h w"],
    edited: Float[Tensor, "k 3 h w"],
    redrawn: Float[Tensor, "1 3 h w"],
    old: Float[Tensor, "1 1 h w"],
    new: Float[Tensor, "k 1 h w"],
) -> Float[Tensor, "k 3 h w"]:
    """`edited` with the colours of its background fitted to the photo's.

    redrawn: the photo as the autoencoder draws it. old, new: 1 on the subject of the photo and on
    that of each edited picture, with a rim. Strong changes outside `old` count as the new subject.
    """
    side = max(photo.shape[-2:])
    strong = ((edited - redrawn).abs().amax(1, keepdim=True) > STRONG).to(edited)
    subject = new.maximum(grown(strong * (1 - old)))
    known = (1 - old) * (1 - subject)
    apart = (photo - edited) * known
    total, weight = torch.zeros_like(edited), torch.zeros_like(known)
    for share, factor in ((NEAR, 1.0), (FAR, FAR_WEIGHT)):
        total = total + factor * blurred(apart, share * side)
        weight = weight + factor * blurred(known, share * side)
    return edited + total / (weight + LEAST) * (1 - blurred(subject, EDGE * side))
