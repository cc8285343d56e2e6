"""StyleGAN3 (Karras et al. 2021, arXiv:2106.12423), configs T and R, in pure PyTorch.

Parameters and buffers bear the published names (`mapping.fc0.weight`, `synthesis.input.freqs`,
`synthesis.L5_148_512.magnitude_ema`), so a published state dictionary loads as it is, its filters
among them.

Maps reach beyond the picture: a margin of samples on every side gives filters something to read.
Features that leave here have it cut off, so that they cover the picture as a picture does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.generators.interface import HeldLatent, Noise
from understudy.generators.style_based import StyleBased, filled
from understudy.generators.stylegan3.config import LayerPlan, StyleGAN3Config
from understudy.generators.stylegan3.layers import FilteredConv, FourierInput


@dataclass(frozen=True, eq=False)
class Reached:
    """Synthesis stopped after a layer: its map, with the margin. index: the layer's; -1: input."""

    index: int
    features: Float[Tensor, "b c n n"]


class Waves(nn.Module):
    """The synthesis network: w of every layer -> picture; may stop after any layer and go on."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config, self.compute = config, torch.float32
        self.input = FourierInput(config)
        self.plans = config.layers
        for plan in self.plans:
            self.add_module(plan.name, FilteredConv(plan, config.w_dim, config.conv_clamp))

    def forward(self, ws: Float[Tensor, "b num_ws w_dim"]) -> Float[Tensor, "b c h w"]:
        """Pictures, about -1 to 1, not clamped."""
        return self.colours(self.walk(ws, self.plans[-1].index).features, ws.dtype)

    def walk(
        self, ws: Float[Tensor, "b num_ws w_dim"], until: int, start: Reached | None = None
    ) -> Reached:
        """From the input, or from where synthesis stopped, up to the layer of this index."""
        x = self.input(ws[:, 0]) if start is None else start.features
        for layer in self.layers(start, until):
            x = layer(x.to(self.precision(layer.plan)), ws[:, layer.plan.index + 1])
        return Reached(until, x)

    def layers(self, start: Reached | None, until: int) -> Iterator[FilteredConv]:
        """The layers behind `start`, up to the one of index `until`."""
        for plan in self.plans[0 if start is None else start.index + 1 : until + 1]:
            layer = self.get_submodule(plan.name)
            assert isinstance(layer, FilteredConv)
            yield layer

    def colours(self, painted: Tensor, dtype: torch.dtype) -> Tensor:
        """What the last layer gives, as a picture."""
        return painted.to(dtype) * self.config.output_scale

    def inside(self, reached: Reached) -> Float[Tensor, "b c h w"]:
        """The features over the picture, without the margin."""
        margin = self.plans[reached.index].margin
        x = reached.features
        return x[:, :, margin : x.shape[2] - margin, margin : x.shape[3] - margin]

    def precision(self, plan: LayerPlan) -> torch.dtype:
        """The arithmetic of a layer: low rates stay in float32, as published."""
        halved = self.compute in (torch.float16, torch.bfloat16)
        wide = self.input.weight.dtype
        return self.compute if halved and self.config.halved(plan.rates[1]) else wide


class StyleGAN3(StyleBased):
    """A StyleGAN3 generator; implements `ImageGenerator`.

    name and fingerprint say which weights these are. A feature resolution is a layer's rate; of
    several layers with one rate, the last, whose features are the sharpest, is meant.
    """

    def __init__(self, config: StyleGAN3Config, name: str = "", fingerprint: str = "") -> None:
        super().__init__(config, name, fingerprint)
        self.config = config
        self.synthesis = Waves(config)

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

    def layer_at(self, resolution: int) -> int:
        """The index of the layer whose features a resolution names."""
        plans = self.synthesis.plans[:-1]
        return max(plan.index for plan in plans if plan.rates[1] == resolution)

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
        from understudy.generators.stylegan3.held import HeldWaves

        return HeldWaves(self, ws, moving)
