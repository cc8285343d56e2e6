"""Pictures to latents and back, by the autoencoder of a flow model.

Knows autoencoders by their calls and configurations only.
"""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


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


class QwenCodec:
    """AutoencoderKLQwenImage: a video autoencoder on one frame; (z - mean) / std by channel."""

    def __init__(self, vae: nn.Module) -> None:
        self.vae = vae
        config = cast(Any, vae).config
        self.downscale = 2 ** len(config.temperal_downsample)
        self.channels = int(config.z_dim)
        self.mean, self.std = (
            torch.tensor(values).view(1, -1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )

    def posterior(
        self, pictures: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c lh lw"], Float[Tensor, "b c lh lw"]]:
        """See Codec."""
        vae = cast(Any, self.vae)
        latent = vae.encode(pictures.to(vae.device, vae.dtype).unsqueeze(2)).latent_dist
        mean, std = (fine(part[:, :, 0]) for part in (latent.mean, latent.std))
        return (mean - self.mean.to(mean)) / self.std.to(mean), std / self.std.to(mean)

    def decode(self, latents: Float[Tensor, "b c lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """See Codec."""
        vae = cast(Any, self.vae)
        given = (latents * self.std.to(latents) + self.mean.to(latents)).to(vae.device, vae.dtype)
        return vae.decode(given.unsqueeze(2), return_dict=False)[0][:, :, 0].float().clamp(-1, 1)


class Flux2Codec:
    """AutoencoderKLFlux2: 2 x 2 cells side by side as channels, then its batch-norm statistics."""

    def __init__(self, vae: nn.Module) -> None:
        self.vae = vae
        config = cast(Any, vae).config
        self.downscale = 2 ** len(config.block_out_channels)
        self.channels = 4 * int(config.latent_channels)

    def posterior(
        self, pictures: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c lh lw"], Float[Tensor, "b c lh lw"]]:
        """See Codec."""
        vae = cast(Any, self.vae)
        latent = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist
        mean, std = (pixel_unshuffle(fine(part), 2) for part in (latent.mean, latent.std))
        center, spread = self._statistics(mean)
        return (mean - center) / spread, std / spread

    def decode(self, latents: Float[Tensor, "b c lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """See Codec."""
        vae = cast(Any, self.vae)
        center, spread = self._statistics(latents)
        given = pixel_shuffle(latents * spread + center, 2).to(vae.device, vae.dtype)
        return vae.decode(given, return_dict=False)[0].float().clamp(-1, 1)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the channels."""
        vae = cast(Any, self.vae)
        norm = vae.bn
        mean, variance = (part.view(1, -1, 1, 1) for part in (norm.running_mean, norm.running_var))
        return mean.to(like), torch.sqrt(variance + vae.config.batch_norm_eps).to(like)


def fine(values: Tensor) -> Tensor:
    """The same values in float32, or in their own dtype where that is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
