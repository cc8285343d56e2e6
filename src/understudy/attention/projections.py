"""The learnt parts of an attention layer, what they give, and heads. Knows tensors only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Projections:
    """The learnt parts of an attention layer, and its number of heads.

    query and out act on the features "r n channels", key and value on the context "r k width".
    scale: factor on q k^T, normally head_width ** -0.5.
    """

    query: Callable[[Tensor], Tensor]
    key: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    out: Callable[[Tensor], Tensor]
    heads: int
    scale: float


@dataclass(frozen=True)
class Projected:
    """Queries, keys and values of all rows, as attention uses them.

    scale: factor on q k^T. mask: which keys may be read; None = all.
    """

    query: Float[Tensor, "r h n d"]
    key: Float[Tensor, "r h n d"]
    value: Float[Tensor, "r h n d"]
    scale: float
    mask: Bool[Tensor, "r n"] | None = None


def split_heads(x: Float[Tensor, "b n c"], heads: int) -> Float[Tensor, "b heads n d"]:
    """Heads of queries, keys or values."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n c"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)
