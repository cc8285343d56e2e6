"""What dragging and projection may call on an image generator: the protocols and their values."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.generators.windows import Windows

Noise = Literal["const", "random", "none"]


@runtime_checkable
class HeldLatent(Protocol):
    """A latent whose layers from `moving` on stay: what depends on them is computed once.

    `moving_ws` is w of the first `moving` layers; everything is differentiable in it.
    """

    @property
    def moving(self) -> int: ...

    def ws(self, moving_ws: Float[Tensor, "1 moving w_dim"]) -> Float[Tensor, "1 num_ws w_dim"]:
        """The whole latent."""
        ...

    def features(
        self,
        moving_ws: Float[Tensor, "1 moving w_dim"],
        resolution: int,
        windows: Windows | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The features of a resolution: the whole map (n = 1), or the windows alone."""
        ...

    def picture(self, moving_ws: Float[Tensor, "1 moving w_dim"]) -> Float[Tensor, "1 3 h w"]:
        """The picture, not clamped; continues from the last whole map if that is of `moving_ws`."""
        ...


@runtime_checkable
class ImageGenerator(Protocol):
    """A style-based generator of pictures: z -> w of every layer -> features -> picture.

    picture_size is (height, width). fingerprint: SHA-256 over configuration and weights.
    feature_resolutions: names of the feature maps, rising; feature_size: (height, width) of one.
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def picture_size(self) -> tuple[int, int]: ...
    @property
    def num_ws(self) -> int: ...
    @property
    def w_dim(self) -> int: ...
    @property
    def feature_resolutions(self) -> tuple[int, ...]: ...

    def feature_size(self, resolution: int) -> tuple[int, int]: ...

    def draw_z(self, seed: int) -> Float[Tensor, "1 z_dim"]:
        """The latent of a seed, as the published programs draw it."""
        ...

    def latents(
        self,
        z: Float[Tensor, "b z_dim"],
        labels: Float[Tensor, "b c_dim"] | None = None,
        *,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Float[Tensor, "b num_ws w_dim"]:
        """w of z, once a layer; the first `cutoff` layers (None: all) drawn towards the mean."""
        ...

    def pictures(
        self,
        ws: Float[Tensor, "b num_ws w_dim"],
        *,
        noise: Noise = "const",
        randomness: torch.Generator | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures, about -1 to 1, not clamped; gradients flow to ws."""
        ...

    def held(self, ws: Float[Tensor, "1 num_ws w_dim"], moving: int) -> HeldLatent:
        """Hold the layers of ws from `moving` on."""
        ...
