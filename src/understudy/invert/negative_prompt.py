"""Negative-prompt inversion: the source prompt itself stands in for the tuned null embedding.

Miyake et al. 2023, arXiv:2305.16807. No optimisation: unconditional and conditional noise of the
source are equal, so guidance cancels and the source costs one row per step instead of two.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.text import Text
from understudy.invert.inversion import InvertStep, ddim_inversion_steps
from understudy.models.interface import DiffusionModel


@torch.no_grad()
def negative_prompt_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    prompt: str,
    *,
    steps: int = 50,
    towards_empty: float = 0.0,
) -> Iterator[InvertStep]:
    """DDIM inversion whose unconditional embedding is the prompt's own.

    towards_empty: 0 for the prompt, 1 for the empty prompt, between them on the arc that joins
    the two (trades faithfulness for room to edit).
    """
    text, empty = model.embed([prompt]), model.embed([""])
    # The arc between equal texts has no direction: dividing by sin(0) gives NaN.
    alone = towards_empty == 0 or text.equals(empty)
    null = text if alone else on_arc(text, empty, towards_empty)
    yield from ddim_inversion_steps(
        model, latents, prompt, steps=steps, method="negative-prompt", null_embeddings=null
    )


def on_arc(start: Text, end: Text, share: float) -> Text:
    """Spherical interpolation between two texts of one row, each taken as one long vector."""
    a, b = (torch.cat([values.flatten(1) for values in x.trainable], dim=1) for x in (start, end))
    a_hat, b_hat = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    # Spherical, because embeddings of equal norm lie on a sphere, and the straight line would
    # shorten them.
    angle = (a_hat * b_hat).sum(1, keepdim=True).acos()
    kept, taken = (part.sin() / angle.sin() for part in ((1 - share) * angle, share * angle))
    mixed = (kept * a + taken * b).split([values[0].numel() for values in start.trainable], dim=1)
    return start.with_trainable([m.view_as(v) for m, v in zip(mixed, start.trainable, strict=True)])
