"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958 and 2006.06676) in pure PyTorch.

Parameters and buffers bear the published names (`mapping.fc0.weight`, `synthesis.b64.conv1.bias`,
`synthesis.b8.torgb.affine.weight`, `mapping.w_avg`), so a published state dictionary loads as it
is; only the filters (`*.resample_filter`) are left out, because the configuration tells them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.generators.interface import HeldLatent, Noise
from understudy.generators.style_based import StyleBased, filled
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.held import StyleGAN2Held
from understudy.generators.stylegan2.synthesis import StyleGAN2Synthesis


class StyleGAN2(StyleBased):
    """A StyleGAN2 generator; implements `ImageGenerator`.

    name and fingerprint say which weights these are.
    """

    def __init__(self, config: StyleGAN2Config, name: str = "", fingerprint: str = "") -> None:
        super().__init__(config, name, fingerprint)
        self.config = config
        self.synthesis = StyleGAN2Synthesis(config)

    @classmethod
    def from_tensors(
        cls,
        config: StyleGAN2Config,
        tensors: Mapping[str, Tensor],
        *,
        name: str = "",
        fingerprint: str = "",
    ) -> StyleGAN2:
        """A generator with these weights, frozen. Raises ModelError, naming a tensor that differs.

        Filters (`*.resample_filter`) are taken from the configuration and passed over here.
        """
        given = {n: t for n, t in tensors.items() if not n.endswith(".resample_filter")}
        return filled(cls(config, name, fingerprint), given)

    @property
    def dtype(self) -> torch.dtype:
        return self.synthesis.precision(self.config.img_resolution)

    def compute_in(self, dtype: torch.dtype) -> StyleGAN2:
        """float16 and bfloat16 for the highest blocks, float32 below; or float32, or float64."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.to(wide)
        self.synthesis.compute = dtype
        return self

    @property
    def picture_size(self) -> tuple[int, int]:
        return self.config.size(self.config.img_resolution)

    @property
    def feature_resolutions(self) -> tuple[int, ...]:
        return self.config.resolutions

    def feature_size(self, resolution: int) -> tuple[int, int]:
        return self.config.size(resolution)

    def pictures(
        self,
        ws: Float[Tensor, "b num_ws w_dim"],
        *,
        noise: Noise = "const",
        randomness: torch.Generator | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures, about -1 to 1, not clamped; gradients flow to ws."""
        return self.synthesis(ws.to(self.mapping.w_avg), noise, randomness)

    def held(self, ws: Float[Tensor, "1 num_ws w_dim"], moving: int) -> HeldLatent:
        """Hold the layers of ws from `moving` on; see `HeldLatent`."""
        return StyleGAN2Held(self, self.synthesis, ws, moving)
