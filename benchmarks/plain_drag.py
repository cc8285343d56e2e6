"""DragGAN the straightforward way, as its published program walks: the yardstick of drag_speed.

Every step runs the whole network to the picture with gradients for all weights, enlarges the whole
feature map to the picture's size, and handles the points one by one on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.generators.stylegan2.generator import StyleGAN2


@dataclass(frozen=True)
class PlainStep:
    """Points (y, x) after tracking, the moving layers after the optimiser's step, and the loss's
    slope before it."""

    points: list[tuple[int, int]]
    moving_ws: Tensor
    slope: Tensor


def plain_steps(
    model: StyleGAN2,
    ws: Tensor,
    points: list[tuple[int, int]],
    targets: list[tuple[int, int]],
    *,
    steps: int,
    movable: Tensor | None = None,
    learning_rate: float = 1e-3,
    r1: int = 3,
    r2: int = 12,
    mask_weight: float = 20.0,
    resolution: int = 128,
) -> Iterator[PlainStep]:
    """movable: (h, w), 1 where the picture may change. Radii in pixels of this picture."""
    model.requires_grad_(True)
    size, net = model.picture_size[0], model.synthesis
    moving_ws = ws[:, :6].clone().requires_grad_()
    optimiser = torch.optim.Adam([moving_ws], lr=learning_rate)
    references, first = list[Tensor](), torch.empty(0)
    line = torch.linspace(0, size, size, device=ws.device, dtype=ws.dtype)
    for step in range(steps):
        latent = torch.cat([moving_ws, ws[:, 6:]], dim=1)
        run = net.plain(latent, "const")
        partway = net.begin(latent, resolution, run)
        net.go_on(latent, partway, run)  # the picture, as it is shown every step
        wide = F.interpolate(partway.features, [size, size], mode="bilinear")
        if step == 0:
            first = wide.detach()
            references = [first[:, :, y, x] for y, x in points]
        points = [_tracked(wide, *one, r2) for one in zip(points, references, strict=True)]
        loss = ws.new_zeros(())
        for (y, x), target in zip(points, targets, strict=True):
            way = torch.tensor([target[0] - y, target[1] - x]).to(ws)
            if way.norm() <= 1:
                continue
            near = ((line[:, None] - y) ** 2 + (line[None, :] - x) ** 2).sqrt() < r1
            disc = near.nonzero()
            ahead = disc + way / (way.norm() + 1e-7)
            grid = ahead.flip(1) / (size - 1) * 2 - 1
            shifted = F.grid_sample(
                wide, grid[None, None], align_corners=True, padding_mode="zeros"
            )
            loss = loss + F.l1_loss(wide[:, :, disc[:, 0], disc[:, 1]].detach(), shifted[:, :, 0])
        if movable is not None:
            fixed = 1 - movable
            loss = loss + mask_weight * F.l1_loss(wide * fixed, first * fixed)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        slope = torch.zeros_like(moving_ws) if moving_ws.grad is None else moving_ws.grad.clone()
        yield PlainStep(points, moving_ws.detach().clone(), slope)


@torch.no_grad()
def _tracked(
    wide: Tensor, point: tuple[int, int], reference: Tensor, radius: int
) -> tuple[int, int]:
    size, (y, x) = wide.shape[-1], point
    top, left = max(y - radius, 0), max(x - radius, 0)
    window = wide[:, :, top : min(y + radius + 1, size), left : min(x + radius + 1, size)]
    apart = (window - reference[:, :, None, None]).norm(dim=1)[0]
    best = int(apart.argmin().item())
    return top + best // apart.shape[1], left + best % apart.shape[1]
