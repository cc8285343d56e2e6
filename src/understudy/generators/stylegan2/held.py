"""StyleGAN2 with the upper layers of a latent held: features of a window of the map only.

A drag moves the first few w only. Layers above are modulated once; synthesis stops where the
features are wanted; and where only windows of a map are wanted, only the cells they depend on are
computed: one more on each side for a 3 x 3 convolution, one input cell for an up-convolution. The
windows hold the same numbers as the whole map, up to rounding.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.generators.style_based import HeldLayers, StyleBased
from understudy.generators.stylegan2.layers import HeldWeights, ReadyWeights, StyleConv
from understudy.generators.stylegan2.synthesis import Partway, StyleBlock, StyleGAN2Synthesis
from understudy.generators.windows import Windows


class StyleGAN2Held(HeldLayers[tuple[Tensor, ...]]):
    """Implements `HeldLatent` for StyleGAN2, with the stored noise. A walk: the blocks' outputs."""

    def __init__(
        self,
        model: StyleBased,
        synthesis: StyleGAN2Synthesis,
        ws: Float[Tensor, "1 num_ws w_dim"],
        moving: int,
    ) -> None:
        super().__init__(model, ws, moving)
        self.synthesis, self.config = synthesis, synthesis.config
        self._weights: dict[int, HeldWeights] = {}
        self._ready: dict[int, ReadyWeights] = {}

    def features(
        self,
        moving_ws: Float[Tensor, "1 moving w_dim"],
        resolution: int,
        windows: Windows | None = None,
    ) -> Float[Tensor, "n c h w"]:
        if windows is None:
            return self._whole(moving_ws, resolution)
        plan = self._plan(resolution, windows)
        whole = self._whole(moving_ws, resolution >> len(plan))
        if not plan:
            return windows.cut_out(whole)
        return self._windows(moving_ws, whole, plan)

    @torch.no_grad()
    def picture(self, moving_ws: Float[Tensor, "1 moving w_dim"]) -> Float[Tensor, "1 3 h w"]:
        net, ws, rgb = self.synthesis, self.ws(moving_ws), None
        outputs = self.kept(moving_ws)
        if outputs is None:
            self._whole(moving_ws, self.config.img_resolution)
            outputs = self.kept(moving_ws)
        assert outputs is not None, "a whole walk is kept"
        last = 4 << (len(outputs) - 1)
        for block, x in zip(net.blocks(4, last), outputs, strict=True):
            rgb = block.paint(x, rgb, ws, net.fir)

        def run(layer: StyleConv, index: int, x: Tensor) -> Tensor:
            return self._run(ws, layer, index, x)

        whole = Partway(last, outputs[-1], rgb)
        if last < self.config.img_resolution:
            whole = net.go_on(ws, whole, run)
        assert whole.rgb is not None, "the last block always paints"
        return whole.rgb

    def _whole(self, moving_ws: Tensor, resolution: int) -> Tensor:
        """The whole map of a resolution, every block's output kept for a picture."""
        net, ws = self.synthesis, self.ws(moving_ws)

        def run(layer: StyleConv, index: int, x: Tensor) -> Tensor:
            return self._run(ws, layer, index, x)

        x, outputs = None, list[Tensor]()
        for block in net.blocks(4, resolution):
            x = block.features(x, run, net.fir, 1, net.precision(block.resolution))
            outputs.append(x.detach())
        assert x is not None, "there is a block of every resolution"
        self.keep(moving_ws, tuple(outputs))
        return x.to(ws.dtype)

    def _run(
        self,
        ws: Tensor,
        layer: StyleConv,
        index: int,
        x: Tensor,
        windows: Windows | None = None,
    ) -> Tensor:
        """One layer, on the whole map or (x being cut out with a margin of one cell) on windows."""
        fir, cut = self.synthesis.fir, int(windows is not None)
        held = self._layer(layer, index, x.dtype)
        added = held.added
        if added is not None and windows is not None:
            added = windows.cut_out(added)
        if index >= self.moving:
            return layer.forward_held(x, replace(held, added=added), fir, cut)
        return layer(x, ws[:, index], added, fir, cut=cut, ready=self._ready[index])

    @torch.no_grad()
    def _layer(self, layer: StyleConv, index: int, dtype: torch.dtype) -> HeldWeights:
        """What of a layer stays, computed when first asked for."""
        if index not in self._weights:
            noise = layer.noise_map(self.synthesis.noise(layer, "const"))
            if index >= self.moving:
                held = layer.held(self._ws[:, index], noise)
                self._weights[index] = replace(
                    held, weight=held.weight.to(dtype), bias=held.bias.to(dtype)
                )
            else:
                ready = layer.ready(dtype)
                self._ready[index] = replace(ready, weight=ready.weight.contiguous())
                self._weights[index] = HeldWeights(ready.weight, layer.bias, noise)
        return self._weights[index]

    # Windows

    def _plan(self, resolution: int, windows: Windows) -> list[Windows]:
        """For every block that runs on windows, the highest last: what must leave it.

        Empty where windows together are no smaller than the map, and for residual networks,
        whose second path is not cut.
        """
        wanted: list[Windows] = []
        if self.config.architecture == "resnet":
            return wanted
        while resolution > 4 and not self._covers(resolution, windows):
            wanted.insert(0, windows)
            windows, resolution = _below(windows), resolution // 2
        return wanted

    def _covers(self, resolution: int, windows: Windows) -> bool:
        height, width = self.config.size(resolution)
        return len(windows.origins) * windows.size[0] * windows.size[1] >= height * width

    def _windows(self, moving_ws: Tensor, whole: Tensor, plan: list[Windows]) -> Tensor:
        net, ws = self.synthesis, self.ws(moving_ws)
        x, first = whole, True
        last = len(plan) - 1
        height = self.config.start[0]
        resolution = 4 * whole.shape[-2] // height
        blocks = net.blocks(2 * resolution, resolution << (last + 1))
        for block, windows in zip(blocks, plan, strict=True):
            if first:
                x, first = _below(windows).cut_out(whole), False
            x = self._block(block, ws, x.to(net.precision(block.resolution)), windows)
        return x.to(ws.dtype)

    def _block(self, block: StyleBlock, ws: Tensor, x: Tensor, windows: Windows) -> Tensor:
        """x: what `_below(windows)` asked for -> what leaves the block, cut to windows."""
        size = self.config.size(block.resolution)
        below = _below(windows)
        wide = Windows(
            tuple((2 * (top + 1), 2 * (left + 1)) for top, left in below.origins),
            (2 * below.size[0] - 4, 2 * below.size[1] - 4),
        )
        x = self._run(ws, block.conv0, block.first, x, wide)
        margin = windows.grown(1)
        x = _inside(_crop(x, wide, margin), margin, size)
        x = self._run(ws, block.conv1, block.first + 1, x, windows)
        return _inside(x, windows, size)


def _below(windows: Windows) -> Windows:
    """What must leave the block below, for windows to leave a block.

    conv1 needs one cell more on each side; that, widened to whole input cells (whichever way it
    lies), needs one input cell more on each side.
    """
    rows, columns = windows.size
    origins = tuple(((top - 1) // 2 - 1, (left - 1) // 2 - 1) for top, left in windows.origins)
    return Windows(origins, ((rows + 4) // 2 + 2, (columns + 4) // 2 + 2))


def _crop(x: Tensor, given: Windows, wanted: Windows) -> Tensor:
    """Each wanted window out of the given one that holds it."""
    rows, columns = wanted.size
    pairs = zip(x, given.origins, wanted.origins, strict=True)
    places = ((one, y - top, z - left) for one, (top, left), (y, z) in pairs)
    return torch.stack([one[:, y : y + rows, z : z + columns] for one, y, z in places])


def _inside(x: Tensor, windows: Windows, size: tuple[int, int]) -> Tensor:
    """Zeros where a window reaches over the edge, as the padding of the next layer has it."""
    if windows.inside(size):
        return x
    origins = windows.tensor(x.device)
    spans = [
        torch.arange(length, device=x.device) + origins[:, axis, None]
        for axis, length in enumerate(windows.size)
    ]
    within = [(span >= 0) & (span < side) for span, side in zip(spans, size, strict=True)]
    mask = (within[0][:, :, None] & within[1][:, None, :])[:, None]
    return x * mask.to(x)
