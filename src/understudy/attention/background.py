"""KV-Edit's background in joint attention: keys and values of some image tokens are another row's.

Zhu et al. 2025, arXiv:2502.17363. The authors keep the background's keys and values of the
inversion in memory and run the foreground's tokens alone. Here the source is a row of the same
call, so nothing is kept, and the background's own tokens are computed but read by nobody: what
the foreground and the words read is the same. Knows rows and tokens only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan, Background
from understudy.attention.site import AttentionSite
from understudy.device_copies import sent


def exchanged(
    values: Float[Tensor, "r h n d"], site: AttentionSite, background: Mapping[int, Background]
) -> Float[Tensor, "r h n d"]:
    """Keys or values in which each row's background is its source row's."""
    found = values.clone()
    for row, kept in background.items():
        taken = _tokens(kept.cells, site, values)[:, None]
        found[row] = torch.where(taken, values[kept.source_row], values[row])
    return found


def _tokens(cells: Bool[Tensor, " cells"], site: AttentionSite, like: Tensor) -> Bool[Tensor, " n"]:
    """Cells of the picture among all tokens. No list of places: the host would wait for it."""
    found = torch.zeros(like.shape[2], dtype=torch.bool, device=like.device)
    found[site.image] = sent(cells, like.device)
    return found


def biases(
    plan: AttentionPlan, site: AttentionSite, keys: Float[Tensor, "r h n d"]
) -> dict[int, Float[Tensor, "n n"]]:
    """What is added to the logits of rows whose queries are emphasised or hidden from: queries by
    keys."""
    found: dict[int, Tensor] = {}
    count = keys.shape[2]

    def change(row: int, queries: Tensor, read: Tensor, value: float) -> None:
        bias = found.setdefault(row, keys.new_zeros(count, count))
        here, there = (_tokens(one, site, keys) for one in (queries, read))
        both = here[:, None] & there
        found[row] = bias + torch.zeros_like(bias).masked_fill(both, value)

    for row, kept in plan.background.items():
        if kept.emphasis:
            change(row, ~kept.cells, kept.cells, kept.emphasis)
    for row, cells in plan.hidden.items():
        change(row, ~cells, cells, float("-inf"))
    return found


def check_background(plan: AttentionPlan, site: AttentionSite, rows: int) -> None:
    """Raise ValueError for a background that does not fit the call."""
    for row, kept in plan.background.items():
        if not (0 <= row < rows and 0 <= kept.source_row < rows):
            raise ValueError(f"a background is of row {kept.source_row}; the call has {rows} rows.")
        if kept.source_row in plan.background:
            raise ValueError(f"row {kept.source_row} gives a background and takes one.")
    for cells in (*(kept.cells for kept in plan.background.values()), *plan.hidden.values()):
        if cells.shape != (site.cells,):
            raise ValueError(f"a background wants {site.cells} cells. Got {tuple(cells.shape)}.")
