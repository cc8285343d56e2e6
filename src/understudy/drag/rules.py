"""Checks of settings, masks and generators before a drag."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.drag.region import Grid
from understudy.drag.supervision import MaskedBox, Supervision
from understudy.drag.tracking import FeatureTracker
from understudy.errors import InputError
from understudy.generators.interface import ImageGenerator
from understudy.settings.drag import DragSettings


def feature_resolutions(generator: ImageGenerator, settings: DragSettings) -> tuple[int, int]:
    """The blocks that are supervised and tracked; InputError for one that is not there."""
    known = generator.feature_resolutions
    # Half the picture's size: larger maps hold texture that does not tell points apart, smaller
    # ones cannot place them.
    half = min(128, max(known[-1] // 2, known[0]))
    # The authors' program reads feature index 5, 128 x 128, whatever the size of the picture.
    published = settings.preset in ("official", "mirrored") and 128 in known
    usual = settings.feature_resolution or (128 if published else half)
    wanted = [usual, settings.tracking_resolution or usual]
    if settings.preset == "paper":
        wanted = [min(one, known[-1]) for one in wanted]
    for name, one in zip(("feature", "tracking"), wanted, strict=True):
        if one not in known:
            raise InputError(
                f"--{name}-resolution must be one of {', '.join(map(str, known))} for "
                f"{generator.name}. Got {one}."
            )
    return wanted[0], wanted[1]


def fixed_part(
    mask: Float[Tensor, "1 1 h w"], grid: Grid, like: Float[Tensor, "1 num_ws w_dim"]
) -> MaskedBox | None:
    """What may not change; None where everything may. InputError for a mask that does not fit."""
    height, width = grid.picture
    if tuple(mask.shape[2:]) != grid.picture:
        got = f"{mask.shape[3]} x {mask.shape[2]}"
        raise InputError(
            f"The mask has {got} pixels, but the picture has {width} x {height}. "
            "Give a mask of that size."
        )
    fixed = 1 - mask[0, 0].to(like)
    if not bool(((fixed >= 0) & (fixed <= 1)).all()):
        raise InputError("Mask values must be from 0 (fixed) to 1 (may change).")
    if bool((fixed == 1).all()):
        raise InputError(
            "The mask is black everywhere, so nothing can move. Paint some of it white."
        )
    if not bool(fixed.any()):
        return None
    return MaskedBox(fixed, grid.box(fixed), grid.cells)


def supervision_of(settings: DragSettings, radius: float, masked: bool = False) -> Supervision:
    """How the settings pull; radius in pixels of this picture.

    A handle that is to look as at the start keeps what it is, but hardly moves where a mask holds
    its surroundings: there it is to look as it does now.
    """
    s = cast(Any, settings)
    reference = s.reference
    if reference == "auto":
        # See the docstring: with a mask the surroundings hold the handle back, so its own features
        # must be free to change.
        reference = "current" if masked else "original"
    return Supervision(
        radius,
        form=s.motion,
        reference=reference,
        disc=s.disc,
        clamp_step=s.clamp_step,
        dead_zone=-1.0 if s.hold_reached else s.dead_zone,
        reduction=s.reduction,
    )


def feature_tracker(settings: DragSettings) -> FeatureTracker:
    """How the settings track."""
    s = cast(Any, settings)
    return FeatureTracker(norm=s.norm, window=s.window, subpixel=s.subpixel, doubt=s.doubt)


def check_latent(generator: ImageGenerator, latent: Tensor) -> None:
    """Raise InputError for a latent of another generator, or with numbers that are not finite."""
    wanted = (1, generator.num_ws, generator.w_dim)
    if tuple(latent.shape) != wanted:
        raise InputError(
            f"A latent of {generator.name} has shape {wanted}. Got {tuple(latent.shape)}; it "
            "belongs to another generator."
        )
    if not bool(torch.isfinite(latent).all()):
        raise InputError(
            "The latent has values that are not finite (NaN, infinity). Use another one."
        )


def check_generator(generator: ImageGenerator, model: str, fingerprint: str) -> None:
    """Raise InputError unless the generator is the one of that name and fingerprint."""
    if generator.fingerprint != fingerprint:
        raise InputError(
            f'this drag was started with the generator "{model}" ({fingerprint[:12]}), not with '
            f'"{generator.name}" ({generator.fingerprint[:12]}). Load that one, or start a new '
            "drag."
        )
