"""The layers of StyleGAN2: equalised linear layers, modulated convolutions, 2x up-sampling.

Pure PyTorch, no compiled operators. Two rewritings, both equal to the published formulas up to
rounding: the activation's gain is folded into what goes in (leaky ReLU is positively homogeneous),
and demodulation multiplies the outcome of a convolution with the plain weights, so that a gradient
for a style never needs one for the weights (Karras et al. 2020, arXiv:1912.04958, section 2.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SLOPE, GAIN = 0.2, math.sqrt(2)  # of every leaky ReLU
EPSILON = 1e-8


class Linear(nn.Module):
    """y = x (W m / sqrt(in))^T + b m, with m the learning-rate multiplier."""

    def __init__(self, inputs: int, outputs: int, multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain, self.multiplier = multiplier / math.sqrt(inputs), multiplier

    def forward(self, x: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
        return F.linear(x, *self.scaled())

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Weight and bias times their gains."""
        return self.weight * self.gain, self.bias * self.multiplier


@dataclass(frozen=True)
class HeldWeights:
    """A layer whose style stays: modulated weights, the activation's gain already in them.

    weight: as the convolution takes it, see `ReadyWeights`. bias: (out). added: the noise,
    (1, 1, h, w), or nothing.
    """

    weight: Tensor
    bias: Tensor
    added: Tensor | None


@dataclass(frozen=True)
class ReadyWeights:
    """A layer's weights as its arithmetic takes them, for a style that moves.

    weight: as the convolution takes it, (out, in, 3, 3), or (in, out, 3, 3) where the size is
    doubled. energy: squared norms of the filters, (out, in), over the square of the activation's
    gain; floor: what keeps a demodulation finite, (out), likewise. affine: weight (in, w_dim) and
    bias (in) of the style. bias: (out), times the gain.
    """

    weight: Tensor
    energy: Tensor
    floor: Tensor
    affine: tuple[Tensor, Tensor]
    bias: Tensor

    def strength(self, style: Float[Tensor, "b in"]) -> Float[Tensor, "b out"]:
        """The gain over the norm of every filter after modulation."""
        squares = style.to(self.energy.dtype).square()
        return F.linear(squares, self.energy, self.floor).rsqrt().to(style.dtype)


class StyleConv(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU, clamp; `up` doubles the size.

    size: (height, width) of what comes out.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        size: tuple[int, int],
        *,
        up: bool = False,
        use_noise: bool = True,
        clamp: float | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.affine = _affine(w_dim, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(*size))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.up, self.use_noise, self.gain = up, use_noise, GAIN * gain
        self.clamp = None if clamp is None else clamp * gain

    def forward(
        self,
        x: Tensor,
        w: Float[Tensor, "b w_dim"],
        noise: Tensor | None,
        fir: Tensor,
        *,
        cut: int = 0,
        ready: ReadyWeights | None = None,
    ) -> Tensor:
        """x: (n, in, h, w) with n = b, or any n with b = 1; noise: see `noise_map`.

        With cut = 1 the outer cells of x are neighbours only and nothing is padded. ready: what
        `self.ready` gives, where it is known already.
        """
        ready = ready or self.ready(x.dtype)
        style = F.linear(w.to(self.weight.dtype), *ready.affine).to(x.dtype)
        if x.dtype == torch.float16:
            style = style / style.abs().amax(1, keepdim=True)
        strength = ready.strength(style)
        x = self.convolved(x * style[:, :, None, None], ready.weight, fir, cut)
        return self.activated(x * strength[:, :, None, None], noise, ready.bias)

    def ready(self, dtype: torch.dtype) -> ReadyWeights:
        """The weights as the arithmetic takes them.

        In float16 those of the convolution are scaled, as the style is, to keep products inside
        the range; demodulation cancels both.
        """
        weight = self.weight.to(dtype)
        if dtype == torch.float16:
            weight = weight / (weight.abs().amax((1, 2, 3), keepdim=True) * _fan_in(weight))
        energy = weight.to(torch.promote_types(dtype, torch.float32)).square().sum((2, 3))
        weight = weight.transpose(0, 1) if self.up else weight
        energy = energy / self.gain**2
        floor = energy.new_full((len(energy),), EPSILON / self.gain**2)
        return ReadyWeights(weight, energy, floor, self.affine.scaled(), self.gain * self.bias)

    def convolved(
        self, x: Tensor, weight: Tensor, fir: Tensor, cut: int = 0, bias: Tensor | None = None
    ) -> Tensor:
        """The bare convolution; a bias goes where the size stays the same."""
        if self.up:
            return doubled(x, weight, fir, cut)
        return F.conv2d(x, weight, bias, padding=1 - cut)

    def held(self, w: Float[Tensor, "1 w_dim"], noise: Tensor | None) -> HeldWeights:
        """What stays the same while w does."""
        style = self.affine(w)
        strength = self.ready(w.dtype).strength(style)
        weight = self.weight * style[0, None, :, None, None] * strength.reshape(-1, 1, 1, 1)
        weight = weight.transpose(0, 1) if self.up else weight
        return HeldWeights(weight.detach().contiguous(), (self.gain * self.bias).detach(), noise)

    def forward_held(self, x: Tensor, held: HeldWeights, fir: Tensor, cut: int = 0) -> Tensor:
        """The same as `forward`, with weights that were modulated before."""
        inside = None if self.up else held.bias
        x = self.convolved(x, held.weight, fir, cut, inside)
        return self.activated(x, held.added, held.bias if self.up else None)

    def activated(self, x: Tensor, noise: Tensor | None, bias: Tensor | None) -> Tensor:
        """Noise and bias added, then the activation; all of it already scaled by the gain."""
        if noise is not None:
            x = x.add_(noise.to(x.dtype))
        if bias is not None:
            x = x.add_(bias.to(x.dtype)[:, None, None])
        x = F.leaky_relu_(x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def noise_map(self, noise: Tensor | None) -> Tensor | None:
        """What noise (h, w), or (b, 1, h, w), adds; None where the layer takes none."""
        if noise is None or not self.use_noise:
            return None
        added = noise * (self.noise_strength * self.gain)
        return added if added.ndim == 4 else added[None, None]


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution to picture channels: no demodulation, no activation."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.affine = _affine(w_dim, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.clamp = clamp

    def forward(
        self, x: Float[Tensor, "b i h w"], w: Float[Tensor, "b w_dim"]
    ) -> Float[Tensor, "b o h w"]:
        style = self.affine(w.to(self.weight.dtype)) / _fan_in(self.weight)
        x = x * style.to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class SkipConv(nn.Module):
    """The residual path of the resnet architecture: 1 x 1, doubled in size, no bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))

    def forward(self, x: Tensor, fir: Tensor) -> Tensor:
        weight = self.weight * (math.sqrt(0.5) / _fan_in(self.weight))
        return upsampled(F.conv2d(x, weight.to(x.dtype)), fir)


def demodulation(energy: Tensor, style: Tensor) -> Tensor:
    """1 / norm of every filter after modulation, (b, out)."""
    squares = style.to(energy.dtype).square()
    return (squares @ energy.T + EPSILON).rsqrt().to(style.dtype)


def doubled(x: Tensor, weight: Tensor, fir: Tensor, cut: int = 0) -> Tensor:
    """Convolution that doubles the size: transposed with stride 2, then the 4 x 4 filter.

    weight: (in, out, 3, 3). With `cut` = 1 the outer cells of x are neighbours only: of (h, w)
    cells the inner (h - 2, w - 2) are doubled, as they would be in the middle of a larger map.
    """
    wide = F.conv_transpose2d(x, weight, stride=2)
    if cut:
        wide = wide[:, :, 1:-1, 1:-1]
    kernel = fir.to(x.dtype).expand(wide.shape[1], 1, 4, 4)
    return F.conv2d(wide, kernel, padding=1 - cut, groups=wide.shape[1])


def upsampled(x: Tensor, fir: Tensor) -> Tensor:
    """Twice the size, by the resampling filter alone."""
    kernel = fir.to(x.dtype).expand(x.shape[1], 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def fir_filter(taps: tuple[float, ...]) -> Float[Tensor, "4 4"]:
    """The filter of up-sampling from its four taps: of sum 4, since a cell becomes four."""
    row = torch.tensor(taps, dtype=torch.float32)
    square = row[:, None] * row[None, :]
    return 4 * (square / square.sum())


def _affine(w_dim: int, outputs: int) -> Linear:
    layer = Linear(w_dim, outputs)
    nn.init.ones_(layer.bias)
    return layer


def _fan_in(weight: Tensor) -> float:
    return math.sqrt(weight[0].numel())
