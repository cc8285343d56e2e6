"""Windows of the feature map around points, and the bounding box of a mask.

The published program enlarges the whole map to the picture's size, twice a step. Here features of
a pixel are sampled straight from the cells around it: the two bilinear interpolations (map to
picture, picture to a place between pixels) are composed into one weight for each cell, which gives
the same values. Places are (y, x) in pixels, whole numbers being pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.generators.interface import HeldLatent
from understudy.generators.windows import Windows


@dataclass(frozen=True)
class Grid:
    """A feature map under a picture. picture: (height, width) in pixels; cells: in map cells."""

    picture: tuple[int, int]
    cells: tuple[int, int]

    @property
    def scales(self) -> tuple[float, float]:
        """Cells a pixel, by axis."""
        return self.cells[0] / self.picture[0], self.cells[1] / self.picture[1]

    def windows(self, places: Float[Tensor, "n 2"], radius: int) -> Windows:
        """The cells that pixels up to `radius` away from each place depend on; places on the
        host."""
        # Half-pixel centres: pixel x lies at (x + 0.5) * scale - 0.5 in cells.
        scales = self.scales
        origins = list[tuple[int, int]]()
        for place in places.tolist():
            low = [math.floor(value) - radius for value in place]
            top, left = (math.floor((low[a] + 0.5) * scales[a] - 0.5) for a in (0, 1))
            origins.append((top, left))
        return Windows(tuple(origins), self.window(radius))

    def window(self, radius: int) -> tuple[int, int]:
        """Rows and columns of such a window: one cell more on either side for the neighbours that
        bilinear interpolation reads."""
        rows, columns = (math.ceil((2 * radius + 2) * scale) + 2 for scale in self.scales)
        return rows, columns

    def origins(self, places: Float[Tensor, "n 2"], radius: int) -> Float[Tensor, "n 2"]:
        """The first cells of those windows, computed where the places are; whole numbers."""
        scale = constants(self, places.device, places.dtype)[0]
        return ((places.floor() - (radius - 0.5)) * scale - 0.5).floor()

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
    origins: Int[Tensor, "n 2"] | Float[Tensor, "n 2"]
    box: Float[Tensor, "1 c bh bw"] | None = None

    def sample(self, places: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p c"]:
        """Features at any places near each point; zeros outside the picture."""
        # Bilinear weights are separable: one vector for the rows and one for the columns.
        rows, columns = self._weights(places)
        weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)
        return weights @ self.windows.flatten(2).transpose(1, 2)

    def pixels(self, lines: Float[Tensor, "n r 2"]) -> Float[Tensor, "n c r r"]:
        """Features at all crossings of r rows and r columns near each point."""
        down, across = self._weights(lines)
        return down[:, None] @ self.windows @ across[:, None].transpose(2, 3)

    def only(self, points: slice) -> FeatureView:
        """The look at some of the points."""
        return FeatureView(self.grid, self.windows[points], self.origins[points])

    def detached(self) -> FeatureView:
        """The same values, without gradients."""
        box = None if self.box is None else self.box.detach()
        return FeatureView(self.grid, self.windows.detach(), self.origins, box)

    def inside(self, pixels: Float[Tensor, "*some 2"]) -> Bool[Tensor, "*some 2"]:
        """By axis, whether a pixel is in the picture."""
        return (pixels >= 0) & (pixels <= constants(self.grid, pixels.device, pixels.dtype)[2])

    def _weights(
        self, places: Float[Tensor, "n p 2"]
    ) -> tuple[Float[Tensor, "n p sh"], Float[Tensor, "n p sw"]]:
        """Weights of a window's rows and of its columns of cells for each place.

        A place lies between two whole pixels; a pixel lies between two cells, with half-pixel
        centres and the edge cells repeated. Both interpolations are linear, so a cell's weight is
        that of the two pixels, each 1 - distance in cells where that is positive. Both axes at
        once, to launch half the kernels.
        """
        scale, cells, _ = constants(self.grid, places.device, places.dtype)
        height, width = self.windows.shape[-2:]
        low = places.floor()
        pixels = torch.stack([low, low + 1])  # (2, n, p, axis)
        # F.interpolate(align_corners=False) clamps at 0 and repeats the last cell.
        source = (pixels * scale + (0.5 * scale - 0.5)).clamp(min=0).minimum(cells)
        here = torch.arange(max(height, width), device=places.device, dtype=places.dtype)
        here = (self.origins[..., None] + here)[:, None]  # (n, 1, axis, cells)
        hats = (1 - (source[..., None] - here).abs()).clamp(min=0)
        low_hat, high_hat = hats * self.inside(pixels)[..., None]
        rows, columns = torch.lerp(low_hat, high_hat, (places - low)[..., None]).unbind(2)
        return rows[..., :height], columns[..., :width]


# Never dropped: a CUDA graph reads them where they are.
@cache
def constants(
    grid: Grid, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, " axes"], Float[Tensor, " axes"], Float[Tensor, " axes"]]:
    """By axis: cells a pixel, the last cell, the last pixel. Made once: each is a copy to the
    device."""
    both = zip(grid.cells, grid.picture, strict=True)
    values = [(cells / side, cells - 1.0, side - 1.0) for cells, side in both]
    scale, cells, sides = torch.tensor(values, dtype=dtype, device=device).unbind(1)
    return scale, cells, sides


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

    Nothing else is computed: windows alone without a mask; with one, the smallest rectangle that
    holds box and windows. Where they lie are numbers of the host; see `look_whole`.
    """
    windows = grid.windows(places, radius)
    origins = windows.tensor(moving_ws.device)
    if box is None:
        return FeatureView(grid, held.features(moving_ws, resolution, windows), origins)
    # The smallest rectangle with all windows and the mask's box: one call of the network instead of
    # several.
    spans = [_span(windows, box, axis, grid.cells[axis]) for axis in (0, 1)]
    (top, bottom), (left, right) = spans
    if (bottom - top, right - left) == grid.cells:
        area = held.features(moving_ws, resolution)
    else:
        around = Windows(((top, left),), (bottom - top, right - left))
        area = held.features(moving_ws, resolution, around)
    shifted = tuple((row - top, column - left) for row, column in windows.origins)
    around_points = Windows(shifted, windows.size).cut_out(area)
    inner = area[:, :, box[0] - top : box[2] - top, box[1] - left : box[3] - left]
    return FeatureView(grid, around_points, origins, inner)


def look_whole(
    held: HeldLatent,
    moving_ws: Float[Tensor, "1 moving w_dim"],
    resolution: int,
    grid: Grid,
    places: Float[Tensor, "n 2"],
    radius: int,
    box: tuple[int, int, int, int] | None = None,
) -> FeatureView:
    """The same from the whole map; places are on the device, and the host need not know them.

    Beyond the edge the edge is repeated instead of zeros. No pixel depends on those cells.
    """
    area = held.features(moving_ws, resolution)
    origins, size = grid.origins(places, radius), grid.window(radius)
    # Both axes at once, in the dtype of the places: half the kernels.
    last = constants(grid, places.device, places.dtype)[1]
    here = torch.arange(max(size), device=places.device, dtype=places.dtype)
    lines = (origins[:, None] + here[:, None]).clamp(min=0).minimum(last)
    rows, columns = lines[:, : size[0], None, 0], lines[:, None, : size[1], 1]
    cells = (columns + rows * grid.cells[1]).long()  # (n, sh, sw)
    found = area[0].flatten(1).index_select(1, cells.flatten())
    windows = found.reshape(-1, *cells.shape).transpose(0, 1)
    inner = None if box is None else area[:, :, box[0] : box[2], box[1] : box[3]]
    return FeatureView(grid, windows, origins, inner)


def prefers_whole_map(device: torch.device) -> bool:
    """Whether the whole map takes less time than windows of it.

    A GPU is kept busy by the whole map, and waits for the many small kernels of windows: on an
    H200 at 512 pixels windows take 1.5 times as long as the whole map.
    """
    return device.type == "cuda"


def _span(
    windows: Windows, box: tuple[int, int, int, int], axis: int, cells: int
) -> tuple[int, int]:
    """First cell and end, along an axis, of the rectangle that holds box and windows."""
    firsts = [origin[axis] for origin in windows.origins]
    first = max(min(box[axis], *firsts), 0)
    return first, min(max(box[2 + axis], max(firsts) + windows.size[axis]), cells)
