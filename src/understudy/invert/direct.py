"""Direct inversion: while editing, the source is simply set to the inversion's own trajectory.

Ju et al. 2023, arXiv:2310.01506 ("PnP Inversion"). The published code adds an offset to the source
after every step, from a pass of its own; that offset is what brings the source back onto the
trajectory, so storing the trajectory gives the same result without the pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.invert.inversion import InvertStep, ddim_inversion_steps
from understudy.models.interface import DiffusionModel


@torch.no_grad()
def direct_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    prompt: str,
    *,
    steps: int = 50,
) -> Iterator[InvertStep]:
    """DDIM inversion whose trajectory is the source's path in every edit."""
    yield from ddim_inversion_steps(model, latents, prompt, steps=steps, method="direct")
