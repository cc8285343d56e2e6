"""Windows of the feature map around points, and the bounding box of a mask.

The published program enlarges the whole map to the picture's size, twice a step. Here features of
a pixel are sampled straight from the cells around it: the two bilinear interpolations (map to
picture, picture to a place between pixels) are composed into one weight for each cell, which gives
the same values. Places are (y, x) in pixels, whole numbers being pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.generators.interface import HeldLatent
from understudy.generators.windows import Windows


@dataclass(frozen=True)
class Grid:
    """A feature map under a picture. picture: (height, width) in pixels; cells: in map cells."""

    picture: tuple[int, int]
    cells: tuple[int, int]

    def windows(self, places: Float[Tensor, "n 2"], radius: int) -> Windows:
        """The cells that pixels up to `radius` away from each place depend on."""
        firsts, sizes = list[Tensor](), list[int]()
        for axis in (0, 1):
            scale = self.cells[axis] / self.picture[axis]
            # Half-pixel centres: pixel x lies at (x + 0.5) * scale - 0.5 in cells. One cell more on
            # either side for the bilinear neighbours.
            low = places[:, axis].floor().double() - radius
            firsts.append(((low + 0.5) * scale - 0.5).floor().long())
            sizes.append(math.ceil((2 * radius + 2) * scale) + 2)
        return Windows(torch.stack(firsts, dim=1), (sizes[0], sizes[1]))

    def box(self, fixed: Float[Tensor, "h w"]) -> tuple[int, int, int, int]:
        """The cells (top, left, bottom, right; ends not included) under what a mask holds fixed."""
        spans = list[tuple[int, int]]()
        for axis in (0, 1):
            places = fixed.amax(1 - axis).nonzero().flatten().tolist()
            scale = self.cells[axis] / self.picture[axis]
            first = math.floor(max((places[0] + 0.5) * scale - 0.5, 0))
            last = math.floor(max((places[-1] + 0.5) * scale - 0.5, 0)) + 2
            spans.append((first, min(last, self.cells[axis])))
        return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


@dataclass(frozen=True, eq=False)
class FeatureView:
    """What was computed of a map: a window around each point, and what the mask looks at."""

    grid: Grid
    windows: Float[Tensor, "n c sh sw"]
    origins: Int[Tensor, "n 2"]
    box: Float[Tensor, "1 c bh bw"] | None = None

    def sample(self, places: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p c"]:
        """Features at any places near each point; zeros outside the picture."""
        # Bilinear weights are separable: one vector for the rows and one for the columns.
        rows, columns = (self._weights(places[..., axis], axis) for axis in (0, 1))
        weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)
        return weights @ self.windows.flatten(2).transpose(1, 2)

    def pixels(
        self, rows: Float[Tensor, "n r"], columns: Float[Tensor, "n k"]
    ) -> Float[Tensor, "n c r k"]:
        """Features at all crossings of rows and columns near each point."""
        down = self._weights(rows, 0)[:, None]  # (n, 1, r, sh)
        across = self._weights(columns, 1)[:, None].transpose(2, 3)  # (n, 1, sw, k)
        return down @ self.windows @ across

    def only(self, points: slice) -> FeatureView:
        """The look at some of the points."""
        return FeatureView(self.grid, self.windows[points], self.origins[points])

    def detached(self) -> FeatureView:
        """The same values, without gradients."""
        box = None if self.box is None else self.box.detach()
        return FeatureView(self.grid, self.windows.detach(), self.origins, box)

    def _weights(self, places: Tensor, axis: int) -> Tensor:
        """Weights of a window's cells along one axis for each place, (n, p, cells)."""
        low = places.floor()
        part = (places - low)[..., None]
        return (1 - part) * self._row(low, axis) + part * self._row(low + 1, axis)

    def _row(self, pixels: Tensor, axis: int) -> Tensor:
        """The cells' weights for whole pixels: half-pixel centres, the edge cells repeated."""
        side, cells = self.grid.picture[axis], self.grid.cells[axis]
        count = self.windows.shape[2 + axis]
        # F.interpolate(align_corners=False) clamps at 0 and repeats the last cell.
        source = ((pixels + 0.5) * (cells / side) - 0.5).clamp(min=0)
        first = source.floor().clamp(max=cells - 1)
        part = (source - first)[..., None]
        here = torch.arange(count, device=pixels.device) + self.origins[:, axis, None, None]
        one = (here == first[..., None]).to(pixels.dtype)
        next_one = (here == (first + 1).clamp(max=cells - 1)[..., None]).to(pixels.dtype)
        inside = ((pixels >= 0) & (pixels <= side - 1))[..., None]
        return ((1 - part) * one + part * next_one) * inside


def look(
    held: HeldLatent,
    moving_ws: Float[Tensor, "1 moving w_dim"],
    resolution: int,
    grid: Grid,
    places: Float[Tensor, "n 2"],
    radius: int,
    box: tuple[int, int, int, int] | None = None,
) -> FeatureView:
    """Features up to `radius` pixels around places, and of the mask's box of cells if there is one.

    On a CPU nothing else is computed: windows alone without a mask; with one, the smallest
    rectangle that holds box and windows. On a GPU the whole map is.
    """
    windows = grid.windows(places, radius)
    # A GPU is kept busy by the whole map, and waits for the many small kernels of windows: on an
    # H200 at 512 pixels windows take 1.5 times as long as the whole map.
    whole = moving_ws.device.type == "cuda"
    if box is None:
        if whole:
            found = windows.cut_out(held.features(moving_ws, resolution))
        else:
            found = held.features(moving_ws, resolution, windows)
        return FeatureView(grid, found, windows.origins.to(found.device))
    # The smallest rectangle with all windows and the mask's box: one call of the network instead of
    # several.
    low = windows.origins.amin(dim=0).tolist()
    high = (windows.origins.amax(dim=0) + torch.tensor(windows.size)).tolist()
    top, left = (max(min(box[axis], low[axis]), 0) for axis in (0, 1))
    bottom, right = (min(max(box[2 + a], high[a]), grid.cells[a]) for a in (0, 1))
    if whole:
        top, left, bottom, right = 0, 0, *grid.cells
    if (bottom - top, right - left) == grid.cells:
        area = held.features(moving_ws, resolution)
    else:
        around = Windows(torch.tensor([[top, left]]), (bottom - top, right - left))
        area = held.features(moving_ws, resolution, around)
    shift = torch.tensor([top, left])
    around_points = Windows(windows.origins - shift, windows.size).cut_out(area)
    inner = area[:, :, box[0] - top : box[2] - top, box[1] - left : box[3] - left]
    return FeatureView(grid, around_points, windows.origins.to(area.device), inner)
