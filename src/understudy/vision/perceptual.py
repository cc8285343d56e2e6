"""Perceptual distances for projection: the built-in recogniser's features, or LPIPS.

The recogniser was trained on toys; for photographs LPIPS is the published measure, an extra that
brings weights of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.errors import ExtraMissing, InputError, ModelError
from understudy.pictures.metrics import Distance
from understudy.vision.distance import Perceptual
from understudy.vision.recogniser import Recogniser, load

MEASURES = ("recogniser", "lpips")


class RecogniserFeatures:
    """Unit-length features at three depths, and the colours themselves, compared place by place.

    The distance is the mean over places of the squared difference, summed over the depths, as
    in LPIPS (Zhang et al. 2018, eq. 1) without its learnt weights.
    """

    name = "recogniser"

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        levels = self.recogniser.network.levels(self.recogniser.prepare(pictures))
        return tuple(F.normalize(level.float(), dim=1, eps=1e-6) for level in levels)

    def distance(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> Float[Tensor, " b"]:
        pairs = zip(ours, theirs, strict=True)
        levels = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]
        return torch.stack(levels).sum(dim=0)


class Lpips:
    """LPIPS (Zhang et al. 2018) with AlexNet, from the extra of that name."""

    name = "lpips"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        try:
            import lpips  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ExtraMissing("metrics", "LPIPS") from None
        try:
            self.network: Any = lpips.LPIPS(net="alex", verbose=False).to(device).eval()
        except (OSError, RuntimeError) as error:  # it downloads AlexNet when it is first used
            reason = " ".join(str(error).split())[:120]
            raise ModelError(
                f"LPIPS's weights are not available and could not be downloaded ({reason}). "
                "Go online once, or use --measure recogniser."
            ) from error
        self.network.requires_grad_(False)

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        return (pictures,)

    def distance(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> Float[Tensor, " b"]:
        return self.network(ours[0], theirs[0]).flatten()


def measure(name: str, device: torch.device | str = "cpu") -> RecogniserFeatures | Lpips:
    """A perceptual distance by name. Raises ExtraMissing, ModelError."""
    if name not in MEASURES:
        raise InputError(f"--measure must be one of {', '.join(MEASURES)}. Got {name!r}.")
    return Lpips(device) if name == "lpips" else RecogniserFeatures(load(device=device))


def between(network: Perceptual) -> Distance:
    """The distance of pictures in [-1, 1], pair by pair, as metrics take one."""

    @torch.no_grad()
    def distance(ours: Tensor, theirs: Tensor) -> Tensor:
        return network.distance(network.features(ours), network.features(theirs))

    return distance
