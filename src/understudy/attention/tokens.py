"""Some tokens of a row read tokens of other rows, in the place of their own row's.

Cross-image attention (Alaluf et al. 2023, arXiv:2311.03335): the queries of one picture meet the
keys and values of others, so that each part takes the colours of the part that is most like it
there. Here only a subject's tokens do so, and they go on reading the background of their own row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.attention.projections import Projections, join_heads, split_heads
from understudy.device_copies import chosen


@dataclass(frozen=True, eq=False)
class TokensOf:
    """Who reads what, in a self-attention layer of n tokens a row.

    Attributes:
        rows: rows whose tokens read elsewhere.
        inside: indices of those tokens; they no longer read each other.
        outside: indices of the row's other tokens, which they do read.
        of: rows whose tokens they read.
        seen: indices of these tokens, counted on over all rows of `of`.
    """

    rows: tuple[int, ...]
    inside: Int[Tensor, " m"]
    outside: Int[Tensor, " n_m"]
    of: tuple[int, ...]
    seen: Int[Tensor, " s"]

    def read(
        self,
        out: Float[Tensor, "rows n c"],
        features: Float[Tensor, "rows n c"],
        layer: Projections,
    ) -> Float[Tensor, "rows n c"]:
        """The layer's output with these tokens' computed so.

        out: the output of all rows. features: the layer's input.
        """
        mine = chosen(features, self.rows)
        theirs = chosen(features, self.of).flatten(0, 1).index_select(0, self.seen)
        theirs = theirs.expand(len(self.rows), -1, -1)
        context = torch.cat([mine.index_select(1, self.outside), theirs], dim=1)
        given = (
            (layer.query, mine.index_select(1, self.inside)),
            (layer.key, context),
            (layer.value, context),
        )
        q, k, v = (split_heads(project(of), layer.heads) for project, of in given)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=layer.scale)
        found = layer.out(join_heads(mixed))
        new = chosen(out, self.rows).index_copy(1, self.inside, found.to(out))
        rows = list(out)
        for row, value in zip(self.rows, new, strict=True):
            rows[row] = value
        return torch.stack(rows)
