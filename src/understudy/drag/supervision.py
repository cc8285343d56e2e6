"""Motion-supervision and mask losses (DragGAN, section 3.2, eq. 1).

The motion term asks that the features a small step towards the target become those of the handle;
the mask term asks that features outside the movable region stay those of the anchor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from understudy.drag.region import FeatureView, Grid, constants

AT_ONCE = 4_000_000  # numbers of an enlarged map that are held at once
TINY = 1e-7  # the published programs add it to distances they divide by


@dataclass(frozen=True)
class Supervision:
    """How handles are pulled.

    radius: of the disc of pixels around a handle. form: "forward" trains the features one step
    ahead towards those at the handle; "mirrored", as published before July 2023, those at the
    handle towards the ones one step behind. reference: the handle's features now, or those it had
    at the anchor. disc: "published" measures on a grid stretched by one pixel, "centred" does not.
    clamp_step: a step is no longer than what is left of the way. dead_zone: pixels from the target
    within which a handle is no longer pulled. reduction: of differences over channels and pixels.
    """

    radius: float
    form: Literal["forward", "mirrored"] = "forward"
    reference: Literal["current", "original"] = "current"
    disc: Literal["published", "centred"] = "published"
    clamp_step: bool = False
    dead_zone: float = 1.0
    reduction: Literal["mean", "sum"] = "mean"

    def terms(
        self,
        look: FeatureView,
        points: Float[Tensor, "n 2"],
        targets: Float[Tensor, "n 2"],
        anchor: FeatureView,
        anchored: Float[Tensor, "n 2"],
    ) -> Float[Tensor, " n"]:
        """The motion term of every handle; NaN, with no gradient, in the dead zone.

        anchor, anchored: the look at the anchor, and where the handles were then.
        """
        # d_i of eq. 1: the unit vector from the handle to its target.
        way = targets - points
        length = way.norm(dim=1, keepdim=True)
        step = way / (length + TINY)
        # Without it the last step would pull beyond a target that is nearer than one pixel.
        if self.clamp_step:
            step = step * length.clamp(max=1.0)
        offsets, inside = self.offsets(points, look.grid)
        disc = points[:, None] + offsets
        behind, ahead = disc, disc + step[:, None]
        # The same difference one step back: there the gradient goes to the features at the handle.
        if self.form == "mirrored":
            behind, ahead = disc - step[:, None], disc
        if self.reference == "original":
            wanted, pulled_on = anchor.sample(anchored[:, None] + offsets), look.sample(ahead)
        else:  # in one call: half the kernels
            # Eq. 1 stops the gradient at the handle: the features ahead become those of the
            # handle, not the reverse.
            wanted, pulled_on = look.sample(torch.cat([behind, ahead], dim=1)).chunk(2, dim=1)
        # The L1 norm over channels, summed over the disc Omega_1(p, r1).
        apart = (pulled_on - wanted.detach()).abs().sum(dim=2) * inside
        terms = apart.sum(dim=1)
        if self.reduction == "mean":
            terms = terms / (inside.sum(dim=1).clamp(min=1) * wanted.shape[2])
        # A handle that is there must not drift: NaN takes it out of the sum.
        pulled = length[:, 0] > self.dead_zone
        return torch.where(pulled, terms, torch.full_like(terms, math.nan))

    def offsets(
        self, points: Float[Tensor, "n 2"], grid: Grid
    ) -> tuple[Float[Tensor, "n p 2"], Bool[Tensor, "n p"]]:
        """The disc's pixels relative to each handle, and which of them count."""
        reach = math.ceil(self.radius) + 1
        line = torch.arange(-reach, reach + 1, dtype=points.dtype, device=points.device)
        rows, columns = torch.meshgrid(line, line, indexing="ij")
        offsets = torch.stack([rows.flatten(), columns.flatten()], dim=1).expand(len(points), -1, 2)
        pixels = points[:, None] + offsets
        last = constants(grid, points.device, points.dtype)[2]
        # The published program builds its disc on a grid that is one pixel too long; "published"
        # repeats this, so that results are comparable.
        published = self.disc == "published"
        # Not pixels - points, whose rounding would decide which pixels at the rim belong to it.
        apart = pixels * ((last + 1) / last) - points[:, None] if published else offsets
        near = apart.square().sum(dim=2).sqrt() < self.radius
        return offsets, near & ((pixels >= 0) & (pixels <= last)).all(dim=2)


def mask_term(
    features: Float[Tensor, "1 c bh bw"],
    anchor: Float[Tensor, "1 c bh bw"],
    fixed: MaskedBox,
    reduction: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, ""]:
    """How far features strayed where nothing may change, enlarged to the picture's pixels."""
    total: Tensor = _Strayed.apply(features - anchor, fixed)  # pyright: ignore[reportAssignmentType]
    if reduction == "sum":
        return total
    height, width = fixed.picture
    # The mean over the enlarged map, as if it had been made.
    return total / (features.shape[1] * height * width)


@dataclass(frozen=True, eq=False)
class MaskedBox:
    """A mask and the cells under it. fixed: (h, w) of the picture, 1 where nothing may change.

    box: (top, left, bottom, right) in cells; cells: (height, width) of the whole map.
    """

    fixed: Float[Tensor, "h w"]
    box: tuple[int, int, int, int]
    cells: tuple[int, int]

    @property
    def picture(self) -> tuple[int, int]:
        return self.fixed.shape[0], self.fixed.shape[1]

    @property
    def whole(self) -> bool:
        """Whether the box is the whole map."""
        return self.box == (0, 0, *self.cells)


class _Strayed(torch.autograd.Function):
    """Sum of absolute enlarged differences under the mask.

    A few channels at a time; the gradient is made in the same pass, so that the enlarged map, 64
    times the size of the map itself at 1024 pixels, never exists.
    """

    @staticmethod
    def forward(ctx: Any, apart: Tensor, fixed: MaskedBox) -> Tensor:
        height, width = fixed.picture
        slope = torch.zeros_like(apart)
        total = apart.new_zeros(())
        # As many channels at a time as fit into a fixed number of values, whatever the size of the
        # picture.
        count = max(1, AT_ONCE // (height * width))
        for first in range(0, apart.shape[1], count):
            some = slice(first, first + count)
            part, slope[:, some] = _strayed(apart[:, some], fixed)
            total = total + part
        # The gradient of an absolute value is its sign: it is known in the forward pass.
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, None]:
        return grads[0] * ctx.saved_tensors[0], None


def _strayed(apart: Tensor, fixed: MaskedBox) -> tuple[Tensor, Tensor]:
    """The sum for some channels, and its gradient."""
    top, left, bottom, right = fixed.box
    with torch.enable_grad():
        cells = apart.detach().requires_grad_()
        whole = cells
        if not fixed.whole:
            height, width = fixed.cells
            # The interpolation at the rim of the box reads the cells around it; their difference is
            # zero.
            whole = F.pad(cells, (left, width - right, top, height - bottom))
        wide = F.interpolate(whole, fixed.picture, mode="bilinear")
        signs = wide.detach().sign().mul_(fixed.fixed)
        (slope,) = torch.autograd.grad(wide, cells, signs)
    return torch.dot(wide.detach().flatten(), signs.flatten()), slope
