"""How the latents of a generator vary: the principal directions of W, and the spread along each.

A drag that moves a latent where the mapping network makes none can leave no picture of the
generator's kind. That happens most with a generator that was tuned to a photo, because tuning
holds it right near one latent only. Haerkoenen et al. 2020 (GANSpace, arXiv:2004.02546) found
that the principal directions of W carry what pictures of a kind differ in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.generators.interface import ImageGenerator

SAMPLES, SEED = 4096, 123
LEAST = 1e-3  # of the largest spread: directions with less count as having so much


@dataclass(frozen=True, eq=False)
class LatentPrior:
    """directions: orthonormal columns. spread: standard deviations along them."""

    directions: Float[Tensor, "w_dim w_dim"]
    spread: Float[Tensor, " w_dim"]

    @classmethod
    @torch.no_grad()
    def of(cls, generator: ImageGenerator) -> LatentPrior:
        """Of W, from latents that the mapping network makes of SAMPLES random z."""
        random = torch.Generator().manual_seed(SEED)
        size = generator.draw_z(0).shape[-1]
        z = torch.randn(SAMPLES, size, generator=random)
        w = torch.cat([generator.latents(part)[:, 0] for part in z.split(256)]).double().cpu()
        values, directions = torch.linalg.eigh(torch.cov(w.T))
        spread = values.clamp(min=0).sqrt()
        spread = spread.clamp(min=LEAST * float(spread.max()))
        like = {"device": generator.device, "dtype": torch.float32}
        return cls(directions.to(**like), spread.to(**like))

    @property
    def relative(self) -> Float[Tensor, " w_dim"]:
        """The spread along each direction, over its root mean square."""
        return self.spread / self.spread.square().mean().sqrt()

    def inwards(self, slope: Float[Tensor, "1 rows w_dim"]) -> Float[Tensor, "1 rows w_dim"]:
        """A gradient in w as a gradient in coordinates that count relative spreads."""
        return (slope @ self.directions.to(slope)) * self.relative.to(slope)

    def outwards(self, step: Float[Tensor, "1 rows w_dim"]) -> Float[Tensor, "1 rows w_dim"]:
        """A step in those coordinates as a step in w."""
        return (step * self.relative.to(step)) @ self.directions.to(step).T

    def distance(self, change: Float[Tensor, "1 rows w_dim"]) -> Float[Tensor, ""]:
        """The mean square of a change of w in standard deviations (Mahalanobis)."""
        return ((change @ self.directions.to(change)) / self.spread.to(change)).square().mean()
