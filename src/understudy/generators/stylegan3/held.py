"""StyleGAN3 with the upper layers of a latent held: they are modulated once.

Synthesis stops at the layer whose features are wanted, and a picture goes on from there. Windows
are cut out of the whole map: its filters are long and the maps below a drag's features small, so
that windows with all they depend on would be nearly as large as the maps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.generators.style_based import HeldLayers, StyleBased
from understudy.generators.stylegan3.layers import FilteredConv, HeldConv
from understudy.generators.stylegan3.synthesis import Reached, StyleGAN3Synthesis
from understudy.generators.windows import Windows


class StyleGAN3Held(HeldLayers[Reached]):
    """Implements `HeldLatent` for StyleGAN3. A walk: where it stopped."""

    def __init__(
        self,
        model: StyleBased,
        synthesis: StyleGAN3Synthesis,
        ws: Float[Tensor, "1 num_ws w_dim"],
        moving: int,
    ) -> None:
        super().__init__(model, ws, moving)
        self.synthesis = synthesis
        self._held: dict[int, HeldConv] = {}
        self._kernels: dict[int, tuple[Tensor, Tensor]] = {}

    def features(
        self,
        moving_ws: Float[Tensor, "1 moving w_dim"],
        resolution: int,
        windows: Windows | None = None,
    ) -> Float[Tensor, "n c h w"]:
        reached = self._walk(moving_ws, self.synthesis.layer_at(resolution), None)
        self.keep(moving_ws, Reached(reached.index, reached.features.detach()))
        whole = self.synthesis.inside(reached).to(moving_ws.dtype)
        return whole if windows is None else windows.cut_out(whole)

    @torch.no_grad()
    def picture(self, moving_ws: Float[Tensor, "1 moving w_dim"]) -> Float[Tensor, "1 3 h w"]:
        net = self.synthesis
        reached = self._walk(moving_ws, net.plans[-1].index, self.kept(moving_ws))
        return net.colours(reached.features, moving_ws.dtype)

    def _walk(self, moving_ws: Tensor, until: int, start: Reached | None) -> Reached:
        net, ws = self.synthesis, self.ws(moving_ws)
        x = net.input(ws[:, 0]) if start is None else start.features
        for layer in net.layers(start, until):
            x = self._run(layer, x.to(net.precision(layer.plan)), ws)
        return Reached(until, x)

    def _run(self, layer: FilteredConv, x: Tensor, ws: Tensor) -> Tensor:
        """One layer, by what of it stays, computed when first asked for."""
        index = layer.plan.index + 1
        with torch.no_grad():
            if index >= self.moving and index not in self._held:
                self._held[index] = layer.held(self._ws[:, index], x.dtype)
            elif index < self.moving and index not in self._kernels:
                self._kernels[index] = layer.kernel(x.dtype)
        if index >= self.moving:
            return layer.forward_held(x, self._held[index])
        return layer(x, ws[:, index], self._kernels[index])
