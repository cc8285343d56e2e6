"""Convolutional features passed between the rows of one call of a U-Net.

Residual blocks take no arguments of ours, so features pass through a hook that is there for the
length of one call and gone afterwards, whatever happens in it. Knows U-Nets by their names only.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from understudy.attention.plan import AttentionControl
from understudy.attention.site import AttentionSite
from understudy.device_copies import chosen
from understudy.errors import ModelError


@dataclass(frozen=True)
class FeaturePlan:
    """Rows that take another row's convolutional features, at one place of the decoder.

    The place is the residual block in front of a decoder transformer, after its last convolution
    and before its shortcut is added (plug-and-play, Tumanyan et al. 2023, arXiv:2211.12572).

    transformer: which, counted from 0 in order of execution, as in `AttentionSite`.
    rows_from: row r takes the features of row rows_from[r]; one entry for every row of the call.
    """

    transformer: int
    rows_from: tuple[int, ...]


@runtime_checkable
class FeatureControl(Protocol):
    """What a control has besides, if convolutional features are to pass between rows."""

    @property
    def feature_plan(self) -> FeaturePlan | None:
        """What passes in this call; None = nothing."""
        ...


def feature_plan(control: AttentionControl | None) -> FeaturePlan | None:
    """What passes between rows in a call with this control; None = nothing."""
    return control.feature_plan if isinstance(control, FeatureControl) else None


@contextmanager
def injecting(
    unet: nn.Module, sites: Sequence[AttentionSite], control: AttentionControl | None
) -> Generator[None]:
    """Inside the block, features pass between rows as the control plans it, if it does.

    Raises ModelError where the U-Net has no such place.
    """
    plan = feature_plan(control)
    if plan is None:
        yield
        return
    rows = list(plan.rows_from)

    def take(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        return chosen(output, rows)

    handle = _last_convolution(unet, sites, plan).register_forward_hook(take)
    try:
        yield
    finally:
        handle.remove()


def _last_convolution(
    unet: nn.Module, sites: Sequence[AttentionSite], plan: FeaturePlan
) -> nn.Module:
    """conv2 of the residual block in front of the plan's transformer."""
    homes = [
        site.name.split(".transformer_blocks.")[0]
        for site in sites
        if site.block == "up" and site.transformer == plan.transformer
    ]
    names = [f"{home.replace('.attentions.', '.resnets.')}.conv2" for home in homes[:1]]
    found = dict(unet.named_modules()).get(names[0]) if names else None
    if found is None:
        raise ModelError(
            f"Features of the block in front of decoder transformer {plan.transformer} are wanted; "
            f"this {type(unet).__name__} has no such block. Use another method, like p2p."
        )
    return found
