"""A generator known in closed form: its latent slides a pattern over the picture.

The mean of the first layers is how far (y, x) the pattern has slid, in pixels, so that the right
answer of a drag is known: a handle is at its start plus that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SIDE, LAYERS = 64, 8
WAVES = torch.tensor([[1, 0], [0, 1], [1, 1], [2, -1], [-1, 2], [1, 3], [3, -2]]) * 0.11


class Sliding:
    """Implements ImageGenerator; features are sines of the slid place, a pixel a cell."""

    name, fingerprint = "sliding", "sliding"
    device, dtype = torch.device("cpu"), torch.float32
    picture_size, num_ws, w_dim = (SIDE, SIDE), LAYERS, 2
    feature_resolutions = (SIDE // 2, SIDE)

    def feature_size(self, resolution: int) -> tuple[int, int]:
        return resolution, resolution

    def draw_z(self, seed: int) -> Tensor:
        return torch.full((1, 2), float(seed))

    def latents(
        self, z: Tensor, labels: Any = None, *, truncation: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        return truncation * z.float()[:, None].repeat(1, LAYERS, 1)

    def pictures(self, ws: Tensor, *, noise: Any = "const", randomness: Any = None) -> Tensor:
        return self.held(ws, LAYERS).picture(ws)

    def held(self, ws: Tensor, moving: int) -> Slid:
        return Slid(ws, moving)


class Slid:
    """Implements HeldLatent."""

    def __init__(self, ws: Tensor, moving: int) -> None:
        self._ws, self.moving = ws, moving

    def ws(self, moving_ws: Tensor) -> Tensor:
        return torch.cat([moving_ws, self._ws[:, self.moving :]], dim=1)

    def features(self, moving_ws: Tensor, resolution: int, windows: Any = None) -> Tensor:
        scale = SIDE / resolution
        line = (torch.arange(resolution) + 0.5) * scale - 0.5
        slid = moving_ws[0].mean(dim=0)
        y, x = (line - slid[0])[:, None], (line - slid[1])[None, :]
        whole = torch.stack([(a * y + b * x + n).sin() for n, (a, b) in enumerate(WAVES)])[None]
        return whole if windows is None else windows.cut_out(whole)

    def picture(self, moving_ws: Tensor) -> Tensor:
        with torch.no_grad():
            return self.features(moving_ws, SIDE)[:, :3]
