"""The synthesis network of StyleGAN3: w of every layer -> picture, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.generators.stylegan3.config import LayerPlan, StyleGAN3Config
from understudy.generators.stylegan3.layers import FilteredConv, FourierInput


@dataclass(frozen=True, eq=False)
class Reached:
    """Synthesis stopped after a layer: its map, with the margin. index: the layer's; -1: input."""

    index: int
    features: Float[Tensor, "b c n n"]


class StyleGAN3Synthesis(nn.Module):
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

    def layer_at(self, resolution: int) -> int:
        """The index of the layer whose features a resolution names."""
        plans = self.plans[:-1]
        return max(plan.index for plan in plans if plan.rates[1] == resolution)
