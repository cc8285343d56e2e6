"""Computes attention by a plan: fused, without attention maps, only for the rows that need it.

No attention map is materialised unless a `Recording` asks for it, and rows that take another
row's output are never computed. Knows layers by their projections only.

A = softmax(q k^T) is linear in the values, so any recombination of the columns of A moves onto v:
that is how maps are swapped that never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan, AttentionSite, Keep, Recording, StoredRow


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
    ask = _Asked(layer, features, context, plan.stored)

    out = _mixed(ask, plan, computed) if computed else features[:0]
    if plan.record is not None:
        _record(ask, plan, plan.record, site, output_from)
    if plan.keep is not None:
        outputs = {row: out[computed.index(output_from[row])] for row in plan.keep.output}
        _keep(ask, plan.keep, site, outputs)
    if computed == everyone:
        return out
    return torch.stack(
        [out[computed.index(r)] if r < rows else ask.of_stored(r, "output") for r in output_from]
    )


class _Asked:
    """Queries and keys by row, from this call or from an earlier one; projected once."""

    def __init__(
        self, layer: Projections, features: Tensor, context: Tensor, stored: Sequence[StoredRow]
    ) -> None:
        self.layer, self.features, self.context, self.stored = layer, features, context, stored
        self.rows = len(features)
        self._queries, self._keys = dict[int, Tensor](), dict[int, Tensor]()

    def queries(self, rows: tuple[int, ...]) -> Float[Tensor, "some n inner"]:
        return self._gathered(rows, self._queries, self.layer.query, self.features, "query")

    def keys(self, rows: tuple[int, ...]) -> Float[Tensor, "some k inner"]:
        return self._gathered(rows, self._keys, self.layer.key, self.context, "key")

    def values(self, rows: tuple[int, ...]) -> Float[Tensor, "some k inner"]:
        return self.layer.value(_select(self.context, rows))

    def of_stored(self, row: int, part: Literal["output", "query", "key"]) -> Tensor:
        found: Tensor | None = getattr(self.stored[row - self.rows], part)
        if found is None:
            raise ValueError(f"stored row {row - self.rows} was kept without its {part}.")
        return found.to(self.features)

    def _gathered(
        self,
        rows: tuple[int, ...],
        made: dict[int, Tensor],
        project: Callable[[Tensor], Tensor],
        of: Tensor,
        part: Literal["query", "key"],
    ) -> Tensor:
        new = tuple(row for row in rows if row < self.rows and row not in made)
        if new:
            projected = project(_select(of, new))
            made.update(zip(new, projected, strict=True))
            if new == rows:
                return projected
        return torch.stack([made[r] if r < self.rows else self.of_stored(r, part) for r in rows])


def _mixed(
    ask: _Asked, plan: AttentionPlan, computed: tuple[int, ...]
) -> Float[Tensor, "computed n c"]:
    """The outputs of the rows that are computed."""
    # Which map meets which values: one term a row, two where a row keeps part of its own map.
    terms = [term for row in computed for term in _terms(plan, row)]
    map_rows = tuple(sorted({term.map_row for term in terms}))
    q = _split(ask.queries(map_rows), ask.layer.heads)  # (maps, heads, n, d)
    k = _split(ask.keys(map_rows), ask.layer.heads)  # (maps, heads, k, d)
    v = _split(ask.values(computed), ask.layer.heads)  # (computed, heads, k, d)

    # One fused call over all terms, then the terms of a row are added up.
    order = tuple(map_rows.index(term.map_row) for term in terms)
    values = _weighted(v, computed, terms)
    mixed = F.scaled_dot_product_attention(
        _select(q, order), _select(k, order), values, scale=ask.layer.scale
    )
    return ask.layer.out(_merge(_sum_by_row(mixed, computed, terms)))


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
    ask: _Asked,
    plan: AttentionPlan,
    record: Recording,
    site: AttentionSite,
    output_from: tuple[int, ...],
) -> None:
    """Materialise only the rows asked for, and hand over only their columns."""
    maps: list[Tensor] = []
    for row in record.rows:
        parts: list[Tensor] = []
        for term in _terms(plan, output_from[row] if row < ask.rows else row):
            q = _split(ask.queries((term.map_row,)), ask.layer.heads)[0]
            k = _split(ask.keys((term.map_row,)), ask.layer.heads)[0]
            part = (q @ k.mT * ask.layer.scale).softmax(-1)  # (heads, n, k)
            if term.weights is not None:
                part = part @ term.weights if term.weights.ndim == 2 else part * term.weights
            parts.append(part if record.columns is None else part[..., list(record.columns)])
        maps.append(sum(parts[1:], parts[0]))
    record.receive(site, torch.stack(maps))


def _keep(ask: _Asked, keep: Keep, site: AttentionSite, outputs: dict[int, Tensor]) -> None:
    """Hand over the parts asked for."""
    q = dict(zip(keep.map, ask.queries(keep.map), strict=True)) if keep.map else {}
    k = dict(zip(keep.map, ask.keys(keep.map), strict=True)) if keep.map else {}
    rows = dict.fromkeys((*keep.output, *keep.map))
    kept = {row: StoredRow(outputs.get(row), q.get(row), k.get(row)) for row in rows}
    keep.receive(site, kept)


def _checked(plan: AttentionPlan, rows: int, site: AttentionSite) -> AttentionPlan:
    """The plan itself, once it fits the rows of this call."""
    known = rows + len(plan.stored)
    for what, given in (("output_from", plan.output_from), ("map_from", plan.map_from)):
        if given is not None and (len(given) != rows or not all(0 <= r < known for r in given)):
            raise ValueError(f"{what} must name one of {known} rows for each row. Got {given}.")
    if plan.output_from and any(plan.output_from[r] != r for r in plan.output_from if r < rows):
        raise ValueError(f"output_from must point to computed rows. Got {plan.output_from}.")
    if plan.cross and not site.is_cross:
        raise ValueError(f"a CrossMix needs a cross-attention layer. Got {site.name}.")
    named = {row for r, mix in plan.cross.items() for row in (r, mix.source_row)}
    named |= set(plan.record.rows if plan.record else ())
    kept = (*plan.keep.output, *plan.keep.map) if plan.keep else ()
    if not all(0 <= row < known for row in named) or not all(0 <= row < rows for row in kept):
        raise ValueError(f"the plan names rows {sorted(named)}, {kept}; there are {known} rows.")
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
