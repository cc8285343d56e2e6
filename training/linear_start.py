"""A linear autoencoder in closed form, written into an AutoencoderKL as its starting point.

From a random start the decoder of an f8 autoencoder needs many thousand steps just to find what
linear algebra knows: the encoder becomes the nested principal components of 2x2, 4x4 and 8x8
patches; the decoder the least-squares answer, level by level, within what "repeat each value, then
convolve 3x3" can express. Residual blocks start as identities, the final normalisations are made
nearly linear by large constant biases, the final SiLU exactly linear by pairs: silu(x) - silu(-x)
= x. Training goes on from there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

REFERENCE = 8.0  # the constant that dominates the statistics of the last normalisations
SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def _eye(conv: nn.Conv2d, pairs: list[tuple[int, int, float]]) -> None:
    """Weight `value` from input j to output i at the kernel's centre; the rest stays as it is."""
    middle = conv.kernel_size[0] // 2
    for i, j, value in pairs:
        conv.weight[i] = 0
        conv.weight[i, j, middle, middle] = value
        conv.bias[i] = 0


def _shift(x: Tensor, dy: int, dx: int) -> Tensor:
    """What stands (dy, dx) further on, edges repeated."""
    h, w = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return padded[:, :, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]


def _with_neighbours(x: Tensor, top: int) -> Tensor:
    """x and the four neighbours of its first `top` channels, along the channels."""
    return torch.cat([x, *(_shift(x[:, :top], dy, dx) for dy, dx in SHIFTS)], dim=1)


def _components(conv: nn.Conv2d, x: Tensor, used: int, kept: int) -> None:
    """A stride-2 convolution becomes the principal components of 2x2 patches of `used` channels."""
    patches = F.unfold(x[:, :used], 2, stride=2).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    basis = vectors.flip(1)[:, :kept]
    conv.weight[:kept] = 0
    conv.weight[:kept, :used, :2, :2] = basis.T.reshape(kept, used, 2, 2).float()
    conv.bias[:kept] = -(mean @ basis).float()


def _fit(conv: nn.Conv2d, x: Tensor, target: Tensor, used: int) -> None:
    """Ridge regression of `target` on 3x3 neighbourhoods of x: the first outputs of `conv`."""
    gram, cross, n = 0.0, 0.0, 0
    for part, goal in zip(x.split(8), target.split(8), strict=True):
        around = F.unfold(part[:, :used], 3, padding=1)
        ones = torch.ones_like(around[:, :1])
        a = torch.cat([around, ones], 1).transpose(1, 2).flatten(0, 1).double()
        b = goal.flatten(2).transpose(1, 2).flatten(0, 1).double()
        gram, cross, n = gram + a.T @ a, cross + a.T @ b, n + len(a)
    ridge = 1e-5 * n * torch.eye(len(gram), dtype=torch.float64)
    answer = torch.linalg.solve(gram + ridge, cross).float()
    kept = target.shape[1]
    conv.weight[:kept] = 0
    conv.weight[:kept, :used] = answer[:-1].T.reshape(kept, used, 3, 3)
    conv.bias[:kept] = answer[-1]


def _linear_norm(norm: nn.GroupNorm, biases: Tensor, x: Tensor) -> None:
    """Make a group normalisation undo itself, given inputs whose deviation the biases dominate."""
    grouped = x.unflatten(1, (norm.num_groups, -1))
    deviation = grouped.std(dim=(2, 3, 4)).mean(0).repeat_interleave(grouped.shape[2])
    centre = grouped.mean(dim=(0, 2, 3, 4)).repeat_interleave(grouped.shape[2])
    norm.weight.copy_(deviation)
    norm.bias.copy_(centre - biases)


def _signs(channels: int) -> Tensor:
    """Alternating constants, the same for both of a pair."""
    return REFERENCE * (1.0 - 2.0 * (torch.arange(channels) // 2 % 2))


@torch.no_grad()
def linear_start(vae: AutoencoderKL, pictures: Tensor, channels: int) -> None:
    """Write the linear answer for `pictures` (n, 3, h, w) in [-1, 1] into a fresh autoencoder."""
    for part in vae.modules():
        if isinstance(part, ResnetBlock2D):
            part.conv2.weight.zero_()
            part.conv2.bias.zero_()
            if part.conv_shortcut is not None:
                part.conv_shortcut.weight.mul_(0.3)
    x64, x32 = _start_encoder(vae, pictures, channels)
    _start_decoder(vae, pictures, x64, x32, channels)


def _start_encoder(vae: AutoencoderKL, pictures: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """The encoder; returns what it knows at 64 and 32 pixels a side (for 128-pixel pictures)."""
    encoder = vae.encoder
    downs = encoder.down_blocks
    _eye(encoder.conv_in, [(i, i, 1.0) for i in range(3)])
    first = downs[0].downsamplers[0].conv
    first.weight[:12], first.bias[:12] = 0, 0
    for k in range(12):
        first.weight[k, k % 3, k // 6, k // 3 % 2] = 1.0
    x64 = downs[0](encoder.conv_in(pictures))
    _eye(downs[1].resnets[0].conv_shortcut, [(i, i, 1.0) for i in range(12)])
    _components(downs[1].downsamplers[0].conv, downs[1].resnets[0](x64, None), 12, 32)
    x32 = downs[1](x64)
    _eye(downs[2].resnets[0].conv_shortcut, [(i, i, 1.0) for i in range(32)])
    _components(downs[2].downsamplers[0].conv, downs[2].resnets[0](x32, None), 32, 64)
    x16 = downs[2](x32)[:, :64]
    gains = x16.std(dim=(0, 2, 3)).rsqrt()  # a compromise between equal sizes and true ones
    gains = gains / (x16 * gains[:, None, None])[:, :channels].square().mean().sqrt()
    shortcut = downs[3].resnets[0].conv_shortcut
    pairs = [(2 * i + s, i, float(gains[i]) * (1 - 2 * s)) for i in range(64) for s in (0, 1)]
    _eye(shortcut, pairs)
    shortcut.bias.copy_(_signs(128))
    deep = encoder.mid_block(downs[3](downs[2](x32)))
    _linear_norm(encoder.conv_norm_out, _signs(128), deep)
    conv = encoder.conv_out
    _eye(conv, [(i, 2 * i, 1.0) for i in range(channels)])
    for i in range(channels):
        conv.weight[i, 2 * i + 1, 1, 1] = -1.0
    vae.quant_conv.weight.copy_(torch.eye(2 * channels)[:, :, None, None])
    vae.quant_conv.bias.zero_()
    return x64[:, :12], x32[:, :32]


def _start_decoder(
    vae: AutoencoderKL, pictures: Tensor, x64: Tensor, x32: Tensor, channels: int
) -> None:
    decoder = vae.decoder
    ups = decoder.up_blocks
    vae.post_quant_conv.weight.copy_(torch.eye(channels)[:, :, None, None])
    vae.post_quant_conv.bias.zero_()
    latents = vae.encode(pictures).latent_dist.mean
    # The latents and their neighbours.
    top = min(channels, (128 - channels) // 4)
    _eye(decoder.conv_in, [(i, i, 1.0) for i in range(channels)])
    for s, (dy, dx) in enumerate(SHIFTS):
        for i in range(top):
            out = channels + s * top + i
            decoder.conv_in.weight[out], decoder.conv_in.bias[out] = 0, 0
            decoder.conv_in.weight[out, i, 1 + dy, 1 + dx] = 1.0
    x = F.interpolate(decoder.mid_block(decoder.conv_in(latents)), scale_factor=2.0)
    _fit(ups[0].upsamplers[0].conv, x, _with_neighbours(x32, 8), channels + 4 * top)
    x = ups[0].upsamplers[0].conv(x)
    _eye(ups[1].resnets[0].conv_shortcut, [(i, i, 1.0) for i in range(64)])
    x = F.interpolate(ups[1].resnets[0](x, None), scale_factor=2.0)
    goal = _with_neighbours(x64, 5)
    _fit(ups[1].upsamplers[0].conv, x, goal, 64)
    x = ups[1].upsamplers[0].conv(x)
    _eye(ups[2].resnets[0].conv_shortcut, [(i, i, 1.0) for i in range(32)])
    x = F.interpolate(ups[2].resnets[0](x, None), scale_factor=2.0)
    _fit(ups[2].upsamplers[0].conv, x, pictures, 32)
    x = ups[2].upsamplers[0].conv(x)
    shortcut = ups[3].resnets[0].conv_shortcut
    _eye(shortcut, [(2 * i + s, i, 1.0 - 2.0 * s) for i in range(3) for s in (0, 1)])
    shortcut.bias.copy_(_signs(16))
    x = ups[3](x)
    _linear_norm(decoder.conv_norm_out, _signs(16), x)
    _eye(decoder.conv_out, [(i, 2 * i, 1.0) for i in range(3)])
    for i in range(3):
        decoder.conv_out.weight[i, 2 * i + 1, 1, 1] = -1.0
