"""Inception's features, which FID was published with; the extra `metrics` brings its weights."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import ExtraMissing
from understudy.vision.features import Choices


class InceptionFeatures:
    """Inception v3's last pooling, as torch-fidelity has it, for `metrics.frechet_distance`.

    Not unit vectors: FID compares means and covariances. Raises ExtraMissing without `metrics`.
    """

    name = "Inception"

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
                FeatureExtractorInceptionV3,
            )
        except ImportError:
            raise ExtraMissing("metrics", "Inception's FID") from None
        network: Any = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        self._network, self._device = network.to(device).eval(), device

    @property
    def choices(self) -> Choices:
        return {"features": "torch-fidelity's inception-v3-compat", "layer": "2048"}

    @torch.no_grad()
    def of(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048"]:
        """2048 numbers a picture, float32 on the CPU."""
        levels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return self._network(levels.to(self._device))[0].float().cpu()
