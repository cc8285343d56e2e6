"""How a model is guided: by an unconditional row, by a number that it reads, or not at all.

Classifier-free guidance: Ho & Salimans 2022, arXiv:2207.12598. Guidance-distilled models (FLUX.1
dev) read the scale as an input and have no unconditional branch. Step-distilled ones (FLUX.1
schnell, Z-Image Turbo) are sampled without guidance. Knows tensors only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError


@dataclass(frozen=True)
class Guidance:
    """How a model is guided.

    Attributes:
        kind: "cfg" (an unconditional row), "embedded" (the network reads the scale), "none".
        rescaled: whether a guided output gets the norm of the conditional one back, for each image
            token (Qwen-Image).
        patch: latent cells along a side of an image token, for `rescaled`.
    """

    kind: Literal["cfg", "embedded", "none"] = "cfg"
    rescaled: bool = False
    patch: int = 2

    def combined(
        self,
        uncond: Float[Tensor, "b c h w"],
        cond: Float[Tensor, "b c h w"],
        scale: float,
    ) -> Float[Tensor, "b c h w"]:
        """u + scale * (c - u), its norm corrected where the model is sampled so."""
        guided = uncond + scale * (cond - uncond)
        if not self.rescaled:
            return guided
        # Strong guidance lengthens the output and over-saturates the picture; Qwen-Image's pipeline
        # restores the length token by token.
        wanted, found = self._norms(cond), self._norms(guided)
        return guided * (wanted / found)

    def _norms(self, output: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The norm over all channels and cells of a token, at each of its cells."""
        side = self.patch
        squares = output.square().sum(dim=1, keepdim=True)
        tokens = squares.unfold(2, side, side).unfold(3, side, side).sum(dim=(-1, -2))
        spread = tokens.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
        return torch.sqrt(spread)


PLAIN = Guidance()


def guidance_of(model: Any) -> Guidance:
    """What a model says of its guidance; classifier-free guidance where it says nothing."""
    found = getattr(model, "guidance", PLAIN)
    return found if isinstance(found, Guidance) else PLAIN


def reads_unconditional(model: Any, scale: float, negative: str = "") -> bool:
    """Whether sampling with this guidance scale needs the embedded negative prompt.

    Raises InputError where the scale or the negative prompt would be ignored.
    """
    how = guidance_of(model)
    name = getattr(model, "name", "this model")
    # Refused instead of ignored: the user would see no effect and not know why.
    if how.kind == "none" and scale != 1:
        raise InputError(
            f"{name} is step-distilled and sampled without guidance. Use --guidance 1. Got {scale}."
        )
    if how.kind != "cfg" and negative:
        raise InputError(
            f"{name} has no unconditional branch, so a negative prompt changes nothing. "
            "Leave --negative out."
        )
    if negative and scale == 1:
        raise InputError(
            "--negative changes nothing with --guidance 1. Leave it out, or use another scale."
        )
    return how.kind == "cfg" and scale != 1
