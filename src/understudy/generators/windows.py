"""Rectangles of a feature map, for features of a part of the picture only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.device_copies import sent


@dataclass(frozen=True, eq=False)
class Windows:
    """Equal rectangles of a feature map, which may reach over its edge (zeros there).

    origins: first (row, column) of each, in cells; size: (rows, columns). Numbers of the host: a
    tensor's arithmetic would be a kernel launch each.
    """

    origins: tuple[tuple[int, int], ...]
    size: tuple[int, int]

    def tensor(self, device: torch.device) -> Int[Tensor, "n 2"]:
        """The origins on a device."""
        return sent(torch.tensor(self.origins), device)

    def grown(self, cells: int) -> Windows:
        """The windows with a margin of so many cells on each side."""
        origins = tuple((top - cells, left - cells) for top, left in self.origins)
        return Windows(origins, (self.size[0] + 2 * cells, self.size[1] + 2 * cells))

    def inside(self, size: tuple[int, int]) -> bool:
        """Whether no window reaches over the edge of a map of this size."""
        return all(
            0 <= first and first + length <= side
            for origin in self.origins
            for first, length, side in zip(origin, self.size, size, strict=True)
        )

    def cut_out(self, features: Float[Tensor, "1 c h w"]) -> Float[Tensor, "n c sh sw"]:
        """These windows of a whole map."""
        height, width = features.shape[-2:]
        rows, columns = self.size
        cut: list[Tensor] = []
        for top, left in self.origins:
            y0, y1 = max(top, 0), min(top + rows, height)
            x0, x1 = max(left, 0), min(left + columns, width)
            if y0 >= y1 or x0 >= x1:
                cut.append(features.new_zeros(features.shape[1], rows, columns))
                continue
            edges = (x0 - left, left + columns - x1, y0 - top, top + rows - y1)
            piece = features[0, :, y0:y1, x0:x1]
            cut.append(F.pad(piece, edges) if any(edges) else piece)
        return torch.stack(cut)
