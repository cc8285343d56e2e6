"""DragGAN's authors' loop the plain way: whole maps, torch's own Adam and grid_sample, no windows.

Written from the description of the loop in the golden README, for a skip network with noise and
without clamps; shares no code with the package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Point = tuple[int, int]


@dataclass(frozen=True)
class PlainDrag:
    """The numbers of a drag. mask "h w": 1 = fixed; radii refer to a picture of 512 pixels."""

    space: str
    learning_rate: float
    mask: Tensor
    mask_weight: float
    feature_resolution: int
    r1: float = 3.0
    r2: float = 12.0
    moving: int = 6


@dataclass(frozen=True)
class PlainStep:
    """What a step saw, and the latent behind it."""

    points: list[Point]
    motion: list[float]
    mask: float
    total: float
    after: Tensor


def features(weights: Mapping[str, Tensor], ws: Tensor, resolution: int) -> Tensor:
    """The block output of this width; ws "layers w_dim"."""
    x, size, layer = weights["synthesis.b4.const"][None], 4, 0
    x, layer = _layer(weights, "synthesis.b4.conv1", x, ws[0], False), 1
    while size < resolution:
        size *= 2
        for name, up in (("conv0", True), ("conv1", False)):
            x = _layer(weights, f"synthesis.b{size}.{name}", x, ws[layer], up)
            layer += 1
    return x


def _layer(weights: Mapping[str, Tensor], name: str, x: Tensor, w: Tensor, up: bool) -> Tensor:
    style = (
        weights[f"{name}.affine.weight"] @ w / math.sqrt(len(w)) + weights[f"{name}.affine.bias"]
    )
    kernel = weights[f"{name}.weight"] * style[None, :, None, None]
    kernel = kernel * (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
    if up:
        y = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2)
        line = torch.tensor([1.0, 3, 3, 1], dtype=x.dtype)
        fir = (torch.outer(line, line) / 16)[None, None].expand(y.shape[1], 1, 4, 4)
        y = F.conv2d(F.pad(y, (1, 1, 1, 1)), fir, groups=y.shape[1])
    else:
        y = F.conv2d(x, kernel, padding=1)
    y = y + weights[f"{name}.noise_const"] * weights[f"{name}.noise_strength"]
    return F.leaky_relu(y + weights[f"{name}.bias"][:, None, None], 0.2) * math.sqrt(2)


def plain_drag(
    weights: Mapping[str, Tensor],
    w0: Tensor,
    points: Sequence[Point],
    targets: Sequence[Point],
    how: PlainDrag,
    steps: int,
) -> list[PlainStep]:
    """All steps from the start latent w0 "1 num_ws w_dim", in w0's precision."""
    size = how.mask.shape[0]
    disc, search = round(how.r1 / 512 * size), round(how.r2 / 512 * size)
    w = (w0[:, 0] if how.space == "w" else w0).clone().requires_grad_()
    adam = torch.optim.Adam([w], how.learning_rate)
    here, found = list(points), list[PlainStep]()
    anchor, references = None, list[Tensor]()
    for _ in range(steps):
        rows = w[:, None].repeat(1, how.moving, 1) if how.space == "w" else w[:, : how.moving]
        ws = torch.cat([rows, w0[:, how.moving :]], 1)[0]
        seen = features(weights, ws, how.feature_resolution)
        wide = F.interpolate(seen, [size, size], mode="bilinear")[0]
        if anchor is None:
            anchor = wide.detach()
            references = [anchor[:, y, x] for y, x in here]
        pairs = zip(here, references, strict=True)
        here = [_tracked(wide.detach(), *pair, search) for pair in pairs]
        pulls = [_pull(wide, p, t, disc) for p, t in zip(here, targets, strict=True)]
        mask = ((wide - anchor) * how.mask).abs().mean()
        loss = sum((pull for pull in pulls if pull is not None), how.mask_weight * mask)
        left = [math.dist(p, t) for p, t in zip(here, targets, strict=True)]
        if max(left) > max(2 / 512 * size, 2):
            adam.zero_grad()
            loss.backward()
            adam.step()
        motion = [math.nan if pull is None else pull.item() for pull in pulls]
        found.append(PlainStep(here, motion, mask.item(), loss.item(), w.detach().clone()))
    return found


def _tracked(wide: Tensor, point: Point, reference: Tensor, search: int) -> Point:
    top, left = (max(place - search, 0) for place in point)
    window = wide[:, top : point[0] + search + 1, left : point[1] + search + 1]
    apart = (window - reference[:, None, None]).square().sum(0).sqrt()
    row, column = divmod(int(apart.argmin()), apart.shape[1])
    return top + row, left + column


def _pull(wide: Tensor, point: Point, target: Point, disc: float) -> Tensor | None:
    """The motion term of a handle; None within a pixel of its target."""
    size, way = wide.shape[-1], torch.tensor(target).to(wide) - torch.tensor(point).to(wide)
    length = way.norm()
    if length <= 1:
        return None
    line = torch.linspace(0, size, size, dtype=wide.dtype)
    rows, columns = line[:, None] - point[0], line[None] - point[1]
    inside = ((rows.square() + columns.square()).sqrt() < disc).nonzero()
    ahead = (inside.to(wide) + way / (length + 1e-7)).flip(1) / (size - 1) * 2 - 1
    there = F.grid_sample(wide[None], ahead[None, None], align_corners=True)[0, :, 0]
    return (wide[:, inside[:, 0], inside[:, 1]].detach() - there).abs().mean()
