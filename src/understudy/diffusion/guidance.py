"""How a model is guided: by an unconditional row, by a number that it reads, or not at all.

Classifier-free guidance: Ho & Salimans 2022, arXiv:2207.12598. Guidance-distilled models (FLUX.1
dev) read the scale as an input and have no unconditional branch. Step-distilled ones (FLUX.1
schnell, Z-Image Turbo) are sampled without guidance. Perturbed-attention guidance (PAG, Ahn et al.
2024, arXiv:2403.17377) works with all of them: its second output is that of a network whose
self-attention is perturbed (`attention/perturbed.py`). Knows tensors only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError


@dataclass(frozen=True)
class Scales:
    """How strongly outputs are guided.

    Attributes:
        guidance: scale of classifier-free guidance; 1 = none.
        pag: scale of perturbed-attention guidance; 0 = none, and no rows for it.
        layers: attention layers that are perturbed, by `AttentionSite.index`.
        rescale: share, 0 to 1, by which the standard deviation of the guided output is made that
            of the conditional one (Lin et al. 2023, arXiv:2305.08891, eq. 15 and 16).
    """

    guidance: float = 1.0
    pag: float = 0.0
    layers: frozenset[int] = frozenset()
    rescale: float = 0.0


def scales_of(given: float | Scales) -> Scales:
    """A scale of classifier-free guidance alone, or all scales."""
    return given if isinstance(given, Scales) else Scales(given)


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
        uncond: Float[Tensor, "b c h w"] | None,
        cond: Float[Tensor, "b c h w"],
        given: float | Scales,
        perturbed: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """u + scale * (c - u) + pag * (c - p), its norm corrected where the model is sampled so.

        uncond, perturbed: None = without that part.
        """
        scales = scales_of(given)
        guided = cond if uncond is None else uncond + scales.guidance * (cond - uncond)
        if perturbed is not None:
            guided = guided + scales.pag * (cond - perturbed)
        if guided is cond:
            return cond
        if scales.rescale:
            guided = rescaled(guided, cond, scales.rescale)
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


def rescaled(
    guided: Float[Tensor, "b c h w"], cond: Float[Tensor, "b c h w"], share: float
) -> Float[Tensor, "b c h w"]:
    """Guidance rescale: strong guidance raises the output's contrast, and so the picture's.

    share * guided * std(c) / std(guided) + (1 - share) * guided, with the deviation over all
    channels and cells of a row (Lin et al. 2023, arXiv:2305.08891, eq. 15 and 16).
    """
    wanted, found = (x.std(dim=(1, 2, 3), keepdim=True) for x in (cond, guided))
    return share * guided * (wanted / found) + (1 - share) * guided


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
