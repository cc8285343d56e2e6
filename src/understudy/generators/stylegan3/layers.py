"""The layers of StyleGAN3: Fourier feature input, modulated convolutions, filtered leaky ReLU.

Pure PyTorch, no compiled operators (Karras et al. 2021, arXiv:2106.12423, sections 2 and 3,
appendix F). Modulation and demodulation stand around a convolution with the plain weights, as in
`style_layers`, so that a gradient for a style never needs one for the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.generators.stylegan2.layers import GAIN, SLOPE, Linear, demodulation
from understudy.generators.stylegan3.config import LayerPlan, StyleGAN3Config
from understudy.generators.stylegan3.filters import filters


class FourierInput(nn.Module):
    """Waves of random directions in place of a learned start; w turns and moves them.

    transform: a (3, 3) matrix of the user's, the identity in published files: places (x, y, 1) in
    the picture, its centre 0 and its side 1, to the places whose waves they show. So the inverse of
    what the picture is to undergo.
    """

    weight: nn.Parameter
    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.size, self.rate = config.sizes[0], config.rates[0]
        self.band, channels = config.cutoffs[0], config.channels[0]
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = Linear(config.w_dim, 4)
        nn.init.zeros_(self.affine.weight)
        self.affine.bias.data = torch.tensor([1.0, 0.0, 0.0, 0.0])
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", _in_a_disc(channels) * self.band)
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w: Float[Tensor, "b w_dim"]) -> Float[Tensor, "b c n n"]:
        w = w.to(self.weight.dtype)
        moved = self.placement(w) @ self.transform
        freqs = self.freqs @ moved[:, :2, :2]  # (b, c, 2)
        phases = self.phases + (self.freqs @ moved[:, :2, 2:])[..., 0]
        room = self.rate / 2 - self.band  # a transform that shrinks must not alias
        loud = (1 - (freqs.norm(dim=2) - self.band) / room).clamp(0, 1)
        steps = torch.arange(self.size, dtype=w.dtype, device=w.device)
        line = (steps + 0.5 - self.size / 2) / self.rate
        turns = line[:, None, None] * freqs[:, None, None, :, 1]
        turns = turns + line[:, None] * freqs[:, None, None, :, 0] + phases[:, None, None]
        waves = (2 * math.pi * turns).sin() * loud[:, None, None]  # (b, n, n, c)
        mixed = waves @ (self.weight / math.sqrt(len(self.weight))).T
        return mixed.permute(0, 3, 1, 2)

    def placement(self, w: Float[Tensor, "b w_dim"]) -> Float[Tensor, "b 3 3"]:
        """What w asks of the places: (cos, sin) of a turn, and a shift, all over the turn's norm.

        Picture to waves: first back along the shift, then back around the turn.
        """
        told = self.affine(w)
        told = told / told[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = told.unbind(dim=1)
        none, one = torch.zeros_like(cos), torch.ones_like(cos)
        turn = torch.stack([cos, -sin, none, sin, cos, none, none, none, one], dim=1)
        shift = torch.stack([one, none, -x, none, one, -y, none, none, one], dim=1)
        return turn.reshape(-1, 3, 3) @ shift.reshape(-1, 3, 3)


@dataclass(frozen=True, eq=False)
class HeldConv:
    """A convolution whose style stays. weight: (out, in, k, k), modulated; bias: (out)."""

    weight: Tensor
    bias: Tensor


class FilteredConv(nn.Module):
    """Modulated convolution, bias, filtered leaky ReLU; or, to paint, colours alone.

    magnitude_ema: mean square of what went in, while training; its root divides what goes in.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, plan: LayerPlan, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        (inputs, outputs), side = plan.channels, plan.kernel
        self.plan, self.clamp = plan, clamp
        self.affine = Linear(w_dim, inputs)
        nn.init.ones_(self.affine.bias)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("magnitude_ema", torch.ones([]))
        known = {name: torch.from_numpy(values) for name, values in filters(plan).items()}
        for name in ("up_filter", "down_filter"):
            self.register_buffer(name, known.get(name))
        self.fan_in = math.sqrt(inputs * side * side)

    def forward(
        self,
        x: Float[Tensor, "b i h w"],
        w: Float[Tensor, "b w_dim"],
        kernel: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "b o h2 w2"]:
        """x in the precision to compute in; kernel: `self.kernel` of it, where it is known."""
        weight, energy = kernel or self.kernel(x.dtype)
        style = self.style(w)
        x = x * (style * self.magnitude_ema.rsqrt()).to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, weight, padding=self.plan.kernel - 1)
        if not self.plan.paints:
            strength = self.fan_in * demodulation(energy, style)
            x = x * strength.to(x.dtype)[:, :, None, None]
        return self.activated(x + self.bias.to(x.dtype)[:, None, None])

    def style(self, w: Float[Tensor, "b w_dim"]) -> Float[Tensor, "b i"]:
        """What each feature is multiplied with; of mean square 1, where that is undone again."""
        style = self.affine(w.to(self.weight.dtype))
        if self.plan.paints:
            return style / self.fan_in
        return style * style.square().mean(dim=1, keepdim=True).rsqrt()

    def kernel(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The weights as the convolution takes them, and what demodulation must know of them.

        Each filter is brought to mean square 1, and for the convolution divided by the root of
        its size, which keeps sums inside float16; the energies (out, in) are those undivided.
        """
        weight = self.weight
        if self.plan.paints:
            return weight.to(dtype), weight.new_ones(())
        weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
        return (weight / self.fan_in).to(dtype), weight.square().sum((2, 3))

    def held(self, w: Float[Tensor, "1 w_dim"], dtype: torch.dtype) -> HeldConv:
        """The layer with this style in its weights."""
        style = self.style(w)
        weight, energy = self.kernel(self.weight.dtype)
        weight = weight * (style * self.magnitude_ema.rsqrt())[:, :, None, None]
        if not self.plan.paints:
            weight = weight * (self.fan_in * demodulation(energy, style)).reshape(-1, 1, 1, 1)
        return HeldConv(weight.to(dtype).detach().contiguous(), self.bias.to(dtype).detach())

    def forward_held(self, x: Float[Tensor, "1 i h w"], held: HeldConv) -> Tensor:
        """The same as `forward` with the style that is held."""
        return self.activated(F.conv2d(x, held.weight, held.bias, padding=self.plan.kernel - 1))

    def activated(self, x: Float[Tensor, "b o h w"]) -> Float[Tensor, "b o h2 w2"]:
        """The activation, at a rate that its harmonics fit in; what does not fit is filtered away.

        Section 3.2: up-sample, leaky ReLU, down-sample. Where nothing is filtered, clamped alone.
        """
        plan = self.plan
        before, behind = plan.padding
        x = upsampled(x, self.up_filter, plan.up, before, behind)
        if not plan.paints:
            x = F.leaky_relu(x, SLOPE) * GAIN
        if self.clamp is not None:
            x = x.clamp(-self.clamp, self.clamp)
        return downsampled(x, self.down_filter, plan.down)


def upsampled(x: Tensor, taps: Tensor | None, factor: int, before: int, behind: int) -> Tensor:
    """Zeros between the samples and around them, then the filter, `factor` times as loud an axis.

    (n, c, h, w) -> each side n * factor + before + behind - taps + 1. before, behind: zeros put
    around at the new rate (the `factor` - 1 behind the last sample are there); negative: cut off.
    """
    if taps is None:
        return F.pad(x, (before, behind, before, behind)) if before or behind else x
    count, channels = len(taps), x.shape[1]
    loud = (factor * taps).to(x.dtype)
    for axis, shape in ((2, (count, 1)), (3, (1, count))):
        length = x.shape[axis] * factor + before + behind - count + 1
        step = (factor, 1) if axis == 2 else (1, factor)
        kernel = loud.reshape(1, 1, *shape).expand(channels, -1, -1, -1)
        x = F.conv_transpose2d(x, kernel, stride=step, groups=channels)
        first = before - count + 1  # a transposed convolution begins as with count - 1 zeros
        ends = (first, length - first - x.shape[axis])
        x = F.pad(x, ends if axis == 3 else (0, 0, *ends))
    return x


def downsampled(x: Tensor, taps: Tensor | None, factor: int) -> Tensor:
    """The filter, (taps,) along both axes or (taps, taps) at once, then each factor-th sample."""
    if taps is None:
        return x
    count, channels = len(taps), x.shape[1]
    taps = taps.to(x.dtype)
    if taps.ndim == 2:
        kernels = [(taps, (factor, factor))]
    else:
        kernels = [(taps.reshape(count, 1), (factor, 1)), (taps.reshape(1, count), (1, factor))]
    for kernel, step in kernels:
        wide = kernel.expand(channels, 1, -1, -1)
        x = F.conv2d(x, wide, stride=step, groups=channels)
    return x


def _in_a_disc(count: int) -> Float[Tensor, "n 2"]:
    """Places spread evenly over the unit disc: a direction, and the root of a chance."""
    directions = torch.randn(count, 2)
    directions = directions / directions.norm(dim=1, keepdim=True)
    return directions * torch.rand(count, 1).sqrt()
