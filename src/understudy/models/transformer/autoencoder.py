"""Pictures to latents and back, by the autoencoder of a flow model.

Knows autoencoders by their calls and configurations only.
"""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Codec(Protocol):
    """An autoencoder with the scaling that its family's network was trained with.

    downscale: pixels of a latent cell's side. channels: of the latents.
    """

    downscale: int
    channels: int

    def posterior(
        self, pictures: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c lh lw"], Float[Tensor, "b c lh lw"]]:
        """Mean and standard deviation of the scaled latents, float32 or finer."""
        ...

    def decode(self, latents: Float[Tensor, "b c lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures, float32, clamped to [-1, 1]."""
        ...


class KLCodec:
    """AutoencoderKL: latents are (z - shift_factor) * scaling_factor (SD3, FLUX.1, Z-Image)."""

    def __init__(self, vae: nn.Module) -> None:
        self.vae = vae
        config = cast(Any, vae).config
        self.downscale = 2 ** (len(config.block_out_channels) - 1)
        self.channels = int(config.latent_channels)
        self.factor, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)

    def posterior(
        self, pictures: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c lh lw"], Float[Tensor, "b c lh lw"]]:
        """See Codec."""
        vae = cast(Any, self.vae)
        latent = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist
        return (fine(latent.mean) - self.shift) * self.factor, fine(latent.std) * self.factor

    def decode(self, latents: Float[Tensor, "b c lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """See Codec."""
        vae = cast(Any, self.vae)
        given = (latents / self.factor + self.shift).to(vae.device, vae.dtype)
        return vae.decode(given, return_dict=False)[0].float().clamp(-1, 1)


def fine(values: Tensor) -> Tensor:
    """The same values in float32, or in their own dtype where that is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
