"""StyleGAN3 (Karras et al. 2021, arXiv:2106.12423), configs T and R, in pure PyTorch.

Parameters and buffers bear the published names (`mapping.fc0.weight`, `synthesis.input.freqs`,
`synthesis.L5_148_512.magnitude_ema`), so a published state dictionary loads as it is, its filters
among them.

Maps reach beyond the picture: a margin of samples on every side gives filters something to read.
Features that leave here have it cut off, so that they cover the picture as a picture does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.generators.interface import HeldLatent, Noise
from understudy.generators.style_based import StyleBased, filled
from understudy.generators.stylegan3.config import StyleGAN3Config
from understudy.generators.stylegan3.held import StyleGAN3Held
from understudy.generators.stylegan3.synthesis import StyleGAN3Synthesis


class StyleGAN3(StyleBased):
    """A StyleGAN3 generator; implements `ImageGenerator`.

    name and fingerprint say which weights these are. A feature resolution is a layer's rate; of
    several layers with one rate, the last, whose features are the sharpest, is meant.
    """

    def __init__(self, config: StyleGAN3Config, name: str = "", fingerprint: str = "") -> None:
        super().__init__(config, name, fingerprint)
        self.config = config
        self.synthesis = StyleGAN3Synthesis(config)

    @classmethod
    def from_tensors(
        cls,
        config: StyleGAN3Config,
        tensors: Mapping[str, Tensor],
        *,
        name: str = "",
        fingerprint: str = "",
    ) -> StyleGAN3:
        """A generator with these weights, frozen. Raises ModelError, naming a tensor that differs.

        Filters are those of the weights, as the authors' program made them.
        """
        return filled(cls(config, name, fingerprint), tensors)

    @property
    def dtype(self) -> torch.dtype:
        return self.synthesis.precision(self.synthesis.plans[-1])

    def compute_in(self, dtype: torch.dtype) -> StyleGAN3:
        """float16 and bfloat16 for the highest layers, float32 below; or float32, or float64."""
        self.to(torch.float64 if dtype == torch.float64 else torch.float32)
        self.synthesis.compute = dtype
        return self

    @property
    def picture_size(self) -> tuple[int, int]:
        return self.config.img_resolution, self.config.img_resolution

    @property
    def feature_resolutions(self) -> tuple[int, ...]:
        return tuple(sorted({plan.rates[1] for plan in self.synthesis.plans}))

    def feature_size(self, resolution: int) -> tuple[int, int]:
        return resolution, resolution

    def pictures(
        self,
        ws: Float[Tensor, "b num_ws w_dim"],
        *,
        noise: Noise = "const",
        randomness: torch.Generator | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures, about -1 to 1, not clamped; gradients flow to ws. This kind has no noise."""
        return self.synthesis(ws.to(self.mapping.w_avg))

    def features(
        self, ws: Float[Tensor, "b num_ws w_dim"], layer: int | str
    ) -> Float[Tensor, "b c h w"]:
        """What leaves a layer, without the margin: by its name, its index, or, -1, the picture's.

        Raises KeyError for a name that no layer has.
        """
        names = {plan.name: plan.index for plan in self.synthesis.plans}
        index = names[layer] if isinstance(layer, str) else range(len(names))[layer]
        net = self.synthesis
        return net.inside(net.walk(ws.to(self.mapping.w_avg), index)).to(ws.dtype)

    def held(self, ws: Float[Tensor, "1 num_ws w_dim"], moving: int) -> HeldLatent:
        """Hold the layers of ws from `moving` on; see `HeldLatent`."""
        return StyleGAN3Held(self, self.synthesis, ws, moving)
