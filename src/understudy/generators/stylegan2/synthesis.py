"""The synthesis network of StyleGAN2: w of every layer -> picture, block by block.

May stop after any block and go on from there. Blocks are called by the height of what leaves them
when the learned start is 4 cells high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.generators.interface import Noise
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.layers import SkipConv, StyleConv, ToRGB, fir_filter, upsampled

# How a layer is run: the layer, the index of its w, what goes in -> what comes out.
Run = Callable[[StyleConv, int, Tensor], Tensor]
HALF_BLOCKS = 4  # of the highest blocks, where a model does not say how many run in float16


class StyleBlock(nn.Module):
    """One resolution: conv0 doubles the size (not in the first block), conv1 keeps it.

    first: index of the first w it takes; toRGB takes the one after its convolutions' own.
    """

    def __init__(self, config: StyleGAN2Config, resolution: int, first: int) -> None:
        super().__init__()
        self.resolution, self.first = resolution, first
        inner, outer = config.channels(resolution // 2), config.channels(resolution)
        size, resnet = config.size(resolution), config.architecture == "resnet"
        kwargs: dict[str, Any] = {"use_noise": config.use_noise, "clamp": config.conv_clamp}
        self.start = resolution == 4
        if self.start:
            self.const = nn.Parameter(torch.randn(outer, *size))
        else:
            self.conv0 = StyleConv(inner, outer, config.w_dim, size, up=True, **kwargs)
            if resnet:
                self.skip = SkipConv(inner, outer)
        gain = math.sqrt(0.5) if resnet and not self.start else 1.0
        self.conv1 = StyleConv(outer, outer, config.w_dim, size, gain=gain, **kwargs)
        self.convs = 1 if self.start else 2
        self.paints = config.architecture == "skip" or resolution == config.img_resolution
        if self.paints:
            self.torgb = ToRGB(outer, config.img_channels, config.w_dim, config.conv_clamp)
        self.resnet = resnet and not self.start

    def features(
        self, x: Tensor | None, run: Run, fir: Tensor, rows: int, dtype: torch.dtype
    ) -> Tensor:
        """What leaves conv1, of `rows` pictures, in `dtype`."""
        if x is None:
            x = self.const.to(dtype).expand(rows, -1, -1, -1)
            return run(self.conv1, self.first, x)
        x = x.to(dtype)
        y = run(self.conv1, self.first + 1, run(self.conv0, self.first, x))
        return self.skip(x, fir) + y if self.resnet else y

    def paint(self, x: Tensor, rgb: Tensor | None, ws: Tensor, fir: Tensor) -> Tensor | None:
        """The picture so far, doubled, with what this block adds to it."""
        rgb = None if rgb is None else upsampled(rgb, fir)
        if not self.paints:
            return rgb
        colours = self.torgb(x, ws[:, self.first + self.convs]).to(ws.dtype)
        return colours if rgb is None else rgb + colours


@dataclass(frozen=True, eq=False)
class Partway:
    """Synthesis stopped after a block: its features, and the picture painted so far, if any."""

    resolution: int
    features: Tensor
    rgb: Tensor | None


class StyleGAN2Synthesis(nn.Module):
    """w of every layer -> picture; may stop after any block and go on from there."""

    fir: Tensor

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config, self.compute = config, torch.float32
        first = 0
        for resolution in config.resolutions:
            block = StyleBlock(config, resolution, first)
            self.add_module(f"b{resolution}", block)
            first += block.convs
        self.register_buffer("fir", fir_filter(config.resample_filter), persistent=False)

    def forward(
        self,
        ws: Float[Tensor, "b num_ws w_dim"],
        noise: Noise = "const",
        randomness: torch.Generator | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Pictures, about -1 to 1, not clamped."""
        whole = self.begin(ws, self.config.img_resolution, self.plain(ws, noise, randomness))
        assert whole.rgb is not None, "the last block always paints"
        return whole.rgb

    def plain(self, ws: Tensor, noise: Noise, randomness: torch.Generator | None = None) -> Run:
        """Run every layer with its own w and noise."""

        def run(layer: StyleConv, index: int, x: Tensor) -> Tensor:
            added = layer.noise_map(self.noise(layer, noise, len(ws), randomness))
            return layer(x, ws[:, index], added, self.fir)

        return run

    def noise(
        self,
        layer: StyleConv,
        noise: Noise,
        rows: int = 1,
        randomness: torch.Generator | None = None,
    ) -> Tensor | None:
        """The noise of a layer: its stored map, a fresh draw from the CPU, or none."""
        if noise == "none" or not layer.use_noise:
            return None
        stored = layer.get_buffer("noise_const")
        if noise == "const":
            return stored
        return torch.randn(rows, 1, *stored.shape, generator=randomness).to(stored)

    def begin(self, ws: Tensor, until: int, run: Run, paint: bool = True) -> Partway:
        """Walk from the learned start up to the block `until`."""
        return self._walk(ws, run, paint, self.blocks(4, until), None, None)

    def go_on(self, ws: Tensor, partway: Partway, run: Run) -> Partway:
        """Walk from where synthesis stopped to the picture."""
        blocks = self.blocks(2 * partway.resolution, self.config.img_resolution)
        return self._walk(ws, run, True, blocks, partway.features, partway.rgb)

    def _walk(
        self,
        ws: Tensor,
        run: Run,
        paint: bool,
        blocks: Iterator[StyleBlock],
        x: Tensor | None,
        rgb: Tensor | None,
    ) -> Partway:
        resolution = 0
        for block in blocks:
            resolution = block.resolution
            x = block.features(x, run, self.fir, len(ws), self.precision(resolution))
            if paint:
                rgb = block.paint(x, rgb, ws, self.fir)
        assert x is not None, "there is at least one block to walk"
        return Partway(resolution, x, rgb)

    def blocks(self, first: int, last: int) -> Iterator[StyleBlock]:
        """The blocks from one resolution to another, both included."""
        for resolution in self.config.resolutions:
            if first <= resolution <= last:
                block = self.get_submodule(f"b{resolution}")
                assert isinstance(block, StyleBlock)
                yield block

    def precision(self, resolution: int) -> torch.dtype:
        """The arithmetic of a block: low resolutions stay in float32, as published."""
        wide = self.get_submodule("b4").get_parameter("const").dtype
        blocks = self.config.num_fp16_res or HALF_BLOCKS
        threshold = max(self.config.img_resolution * 2 // 2**blocks, 8)
        halved = self.compute in (torch.float16, torch.bfloat16) and resolution >= threshold
        return self.compute if halved else wide
