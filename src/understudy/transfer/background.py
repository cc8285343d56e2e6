"""KV-Edit's background (Zhu et al. 2025, arXiv:2502.17363): which rows of a call read the photo's.

Where a mask lets nothing change, a target's image tokens have the keys and values that the photo's
tokens have in the same call. Knows rows, masks and grids; knows no models and no steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.attention.plan import Background
from understudy.attention.site import AttentionSite
from understudy.transfer.batch_layout import BatchLayout, Branch


@dataclass(frozen=True)
class BackgroundRows:
    """Rows of a call that take keys and values of their background from rows of the photo.

    sources: row -> the photo's row that it takes from. cells: row -> cells of the latents, True
    where they stay. emphasis: see `Background`.
    """

    sources: dict[int, int]
    cells: dict[int, Bool[Tensor, "h w"]]
    emphasis: float = 0.0

    def at(self, site: AttentionSite) -> dict[int, Background]:
        """The same in a layer's own tokens, for an AttentionPlan."""
        return {
            row: Background(self.sources[row], tokens_of(kept, site.grid), self.emphasis)
            for row, kept in self.cells.items()
        }


def tokens_of(cells: Bool[Tensor, "h w"], grid: tuple[int, int]) -> Bool[Tensor, " tokens"]:
    """Image tokens of which all cells are set."""
    return F.adaptive_max_pool2d((~cells).float()[None], grid)[0].flatten() == 0


def background_rows(
    where: BatchLayout, branches: Sequence[Branch], mask: Float[Tensor, "m 1 h w"]
) -> BackgroundRows:
    """The rows of targets beside a source; mask: of all targets or one each, 0 = stays.

    The unconditional row of a target takes from the source's unconditional row, as both halves of
    guidance see a background of their own.
    """
    sources, cells = dict[int, int](), dict[int, Tensor]()
    for number, branch in enumerate(branches):
        pairs = [(where.target_cond[number], where.source_cond)]
        if where.target_uncond:
            pairs.append((where.target_uncond[number], where.source_uncond))
        for row, source in pairs:
            # In the first step a target's unconditional row may be the source's own.
            if source is not None and row != source:
                sources[row] = source
                cells[row] = mask[branch.members[0] if len(mask) > 1 else 0, 0] == 0
    return BackgroundRows(sources, cells)
