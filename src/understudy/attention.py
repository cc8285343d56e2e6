"""What may pass through an attention layer: recorded, shared between rows, or replaced.

A control is an argument of one model call, never a patch. It is asked once a layer for a plan,
and `attend` carries the plan out with fused attention only: no attention map is materialised
unless a `Recording` asks for it, and rows that take another row's output are never computed.

"Row" is the batch index of the U-Net call. This file knows neither models nor prompts nor steps: a
control is a value made for ONE step, and it knows which rows it was made for.

Swaps without maps: A = softmax(q k^T) is linear in the values, so any recombination of the columns
of A moves onto v (Photoswap, Gu et al. 2023, arXiv:2305.18286; prompt-to-prompt, Hertz et al. 2022,
arXiv:2208.01626).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class AttentionSite:
    """Where in the U-Net a layer is, and how large it is in this call.

    name: the layer's module path, like "mid_block.attentions.0.transformer_blocks.0.attn2".
    block, block_index: "down" 0.., "mid" 0, "up" 0.. in order of execution.
    index: place in the order of execution among all attention layers, self and cross together.
    tokens: number of queries, h*w of the features here; heads: number of attention heads.
    """

    name: str
    block: Literal["down", "mid", "up"]
    block_index: int
    index: int
    is_cross: bool
    heads: int
    tokens: int = 0


@dataclass(frozen=True)
class CrossMix:
    """A cross-attention row that takes (part of) another row's map, column by column.

    The row's map becomes A = A_source @ shared + A_own * own (own along the columns; None = 0).
    The rows of A are not normalised again, as in prompt-to-prompt.

    source_row: the row whose queries and keys give A_source.
    shared: Float "source_tokens tokens", on the model's device and of its dtype.
    own: Float "tokens", or None when nothing of the row's own map is kept (one attention, not two).
    """

    source_row: int
    shared: Float[Tensor, "source_tokens tokens"]
    own: Float[Tensor, " tokens"] | None

    @classmethod
    def aligned(
        cls,
        source_row: int,
        mapper: Sequence[int],
        weights: Sequence[float],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> CrossMix:
        """Column i is weights[i] * A_source[mapper[i]] + (1 - weights[i]) * A_own[i].

        mapper[i] = -1 stands for "no partner": its weight counts as 0. Both have one entry per
        token of the row (prompt-to-prompt's refinement mapper and its alphas; for a step's word
        schedule, multiply the alphas by it).
        """
        if len(mapper) != len(weights):
            raise ValueError(
                f"mapper and weights must be equally long. Got {len(mapper)} and {len(weights)}."
            )
        count = len(mapper)
        shared = torch.zeros(count, count, dtype=torch.float64)
        own = torch.ones(count, dtype=torch.float64)
        for token, (partner, weight) in enumerate(zip(mapper, weights, strict=True)):
            if partner >= 0:
                shared[partner, token] = weight
                own[token] = 1 - weight
        kept = own.to(device, dtype) if bool(own.any()) else None
        return cls(source_row, shared.to(device, dtype), kept)


@dataclass(frozen=True)
class Recording:
    """Whose attention maps are wanted, and who receives them.

    receive(site, maps) is called during the forward pass with maps "rows heads queries columns":
    probabilities after any swap of the plan, in the order of `rows` and of `columns`. A row with
    output_from another row shows that row's map. columns: key tokens wanted; None = all.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...] | None
    receive: Callable[[AttentionSite, Float[Tensor, "rows heads queries columns"]], None]


@dataclass(frozen=True)
class AttentionPlan:
    """What one layer does in one call. Tuples have one entry for every row of the call.

    output_from: row r's output is row output_from[r]'s (phi); only rows with output_from[r] == r
        are computed, and a row that is pointed to must be one of those. None = every row its own.
    map_from: row r attends with the queries and keys of row map_from[r] and its own values (M).
        None = every row its own.
    cross: row -> CrossMix (A); such a row ignores map_from.
    record: maps wanted from this layer, or None.
    """

    output_from: tuple[int, ...] | None = None
    map_from: tuple[int, ...] | None = None
    cross: Mapping[int, CrossMix] = field(default_factory=dict[int, CrossMix])
    record: Recording | None = None


@runtime_checkable
class AttentionControl(Protocol):
    """Decides, layer by layer, what attention does in ONE call of the model."""

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        """The plan for this layer; None = plain attention for all rows."""
        ...


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


def attend(
    features: Float[Tensor, "r n c"],
    context: Float[Tensor, "r k w"],
    layer: Projections,
    site: AttentionSite,
    plan: AttentionPlan | None = None,
) -> Float[Tensor, "r n c"]:
    """The layer's output for every row, as the plan says; context = features for self-attention."""
    rows = features.shape[0]
    everyone = tuple(range(rows))
    plan = _checked(plan or AttentionPlan(), rows, site)
    output_from = plan.output_from or everyone
    computed = tuple(row for row in everyone if output_from[row] == row)

    # Which map meets which values: one term a row, two where a row keeps part of its own map.
    terms = [term for row in computed for term in _terms(plan, row)]
    map_rows = tuple(sorted({term.map_row for term in terms}))
    wanted = _select(features, map_rows)
    q = _split(layer.query(wanted), layer.heads)  # (maps, heads, n, d)
    k = _split(layer.key(_select(context, map_rows)), layer.heads)  # (maps, heads, k, d)
    v = _split(layer.value(_select(context, computed)), layer.heads)  # (computed, heads, k, d)

    # One fused call over all terms, then the terms of a row are added up.
    order = tuple(map_rows.index(term.map_row) for term in terms)
    values = _weighted(v, computed, terms)
    mixed = F.scaled_dot_product_attention(
        _select(q, order), _select(k, order), values, scale=layer.scale
    )
    out = layer.out(_merge(_sum_by_row(mixed, computed, terms)))

    if plan.record is not None:
        _record(plan, plan.record, site, layer, features, context)
    return _select(out, tuple(computed.index(output_from[row]) for row in everyone))


@dataclass(frozen=True)
class _Term:
    """softmax(q k^T) of map_row times the (re-weighted) values of row."""

    row: int
    map_row: int
    weights: Tensor | None = None  # (source_tokens, tokens) matrix, or (tokens,), or None = 1


def _terms(plan: AttentionPlan, row: int) -> list[_Term]:
    mix = plan.cross.get(row)
    if mix is None:
        return [_Term(row, plan.map_from[row] if plan.map_from else row)]
    shared = _Term(row, mix.source_row, mix.shared)
    return [shared] if mix.own is None else [shared, _Term(row, row, mix.own)]


def _weighted(
    v: Float[Tensor, "computed h k d"], computed: tuple[int, ...], terms: Sequence[_Term]
) -> Float[Tensor, "terms h s d"]:
    if all(term.weights is None for term in terms):
        return v
    values: list[Tensor] = []
    for term in terms:
        own = v[computed.index(term.row)]  # (h, k, d)
        if term.weights is None:
            values.append(own)
        elif term.weights.ndim == 2:
            values.append(term.weights @ own)
        else:
            values.append(term.weights[:, None] * own)
    return torch.stack(values)


def _sum_by_row(
    mixed: Float[Tensor, "terms h n d"], computed: tuple[int, ...], terms: Sequence[_Term]
) -> Float[Tensor, "computed h n d"]:
    if len(terms) == len(computed):
        return mixed
    by_row: dict[int, Tensor] = {}
    for term, part in zip(terms, mixed, strict=True):
        by_row[term.row] = by_row[term.row] + part if term.row in by_row else part
    return torch.stack([by_row[row] for row in computed])


def _record(
    plan: AttentionPlan,
    record: Recording,
    site: AttentionSite,
    layer: Projections,
    features: Float[Tensor, "r n c"],
    context: Float[Tensor, "r k w"],
) -> None:
    """Materialise only the rows asked for, and hand over only their columns."""
    everyone = tuple(range(features.shape[0]))
    output_from = plan.output_from or everyone
    maps: list[Tensor] = []
    for row in record.rows:
        parts: list[Tensor] = []
        for term in _terms(plan, output_from[row]):
            q = _split(layer.query(features[term.map_row : term.map_row + 1]), layer.heads)[0]
            k = _split(layer.key(context[term.map_row : term.map_row + 1]), layer.heads)[0]
            part = (q @ k.mT * layer.scale).softmax(-1)  # (heads, n, k)
            if term.weights is not None:
                part = part @ term.weights if term.weights.ndim == 2 else part * term.weights
            parts.append(part if record.columns is None else part[..., list(record.columns)])
        maps.append(sum(parts[1:], parts[0]))
    record.receive(site, torch.stack(maps))


def _checked(plan: AttentionPlan, rows: int, site: AttentionSite) -> AttentionPlan:
    """The plan itself, once it fits the rows of this call."""
    for what, given in (("output_from", plan.output_from), ("map_from", plan.map_from)):
        if given is not None and (len(given) != rows or not all(0 <= r < rows for r in given)):
            raise ValueError(f"{what} must name one of {rows} rows for each row. Got {given}.")
    if plan.output_from and any(plan.output_from[r] != r for r in plan.output_from):
        raise ValueError(f"output_from must point to computed rows. Got {plan.output_from}.")
    if plan.cross and not site.is_cross:
        raise ValueError(f"a CrossMix needs a cross-attention layer. Got {site.name}.")
    named = {row for r, mix in plan.cross.items() for row in (r, mix.source_row)}
    named |= set(plan.record.rows if plan.record else ())
    if not all(0 <= row < rows for row in named):
        raise ValueError(f"the plan names rows {sorted(named)}, the call has {rows} rows.")
    return plan


def _select(x: Tensor, rows: tuple[int, ...]) -> Tensor:
    """x[rows] without an index tensor: x itself or a slice where possible, else one copy."""
    if rows == tuple(range(rows[0], rows[0] + len(rows))):
        return x if len(rows) == x.shape[0] else x[rows[0] : rows[0] + len(rows)]
    return torch.stack([x[row] for row in rows])


def _split(x: Float[Tensor, "b n c"], heads: int) -> Float[Tensor, "b heads n d"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n c"]:
    return x.transpose(1, 2).flatten(2)
