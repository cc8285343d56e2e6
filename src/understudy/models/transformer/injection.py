"""The image's residual passed between the rows of one call of a flow transformer.

Blocks take no arguments of ours, so it passes through a hook that is there for the length of one
call and gone afterwards, whatever happens in it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.device_copies import chosen
from understudy.models.transformer.calls import Call
from understudy.models.unet.injection import FeatureControl


@contextmanager
def injecting(network: nn.Module, call: Call | None) -> Generator[None]:
    """Inside the block, rows take the image tokens of other rows behind `layout_block`, if the
    control of this call plans that features pass."""
    control = None if call is None else call.control
    plan = control.feature_plan if isinstance(control, FeatureControl) else None
    if plan is None or call is None:
        yield
        return
    rows, cells = list(plan.rows_from), call.grid[0] * call.grid[1]

    def take(module: nn.Module, given: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # text, image
            text, image = cast("tuple[Tensor, Tensor]", output)
            return text, chosen(image, rows)
        whole = cast(Tensor, output)  # one sequence, image first (Z-Image)
        return torch.cat([chosen(whole, rows)[:, :cells], whole[:, cells:]], dim=1)

    handle = layout_block(network).register_forward_hook(take)
    try:
        yield
    finally:
        handle.remove()


def layout_block(network: nn.Module) -> nn.Module:
    """The block a third of the way through, or the last one that keeps image and text apart.

    Blocks 13 to 19 of FLUX's 57 carry the layout (ReFlex, Kim et al. 2025, arXiv:2507.01496).
    """
    module: Any = network
    first = list(getattr(module, "transformer_blocks", None) or module.layers)
    depth = len(first) + len(getattr(module, "single_transformer_blocks", ()))
    return first[min(depth // 3, len(first) - 1)]
