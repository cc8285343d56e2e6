"""Computes attention by a plan: fused, without attention maps, only for the rows that need it.

No attention map is materialised unless a `Recording` asks for it, and rows that take another
row's output are never computed. Knows layers by their projections only.

A = softmax(q k^T) is linear in the values, so any recombination of the columns of A moves onto v:
that is how maps are swapped that never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import (
    AttentionPlan,
    CrossMix,
    FeatureRequest,
    Recording,
    Rows,
    Segments,
    StoredRow,
)
from understudy.attention.projections import Projections, join_heads, split_heads
from understudy.attention.site import AttentionSite
from understudy.device_copies import chosen

Part = Literal["output", "query", "key", "value"]


def attend(
    features: Float[Tensor, "r n c"],
    context: Float[Tensor, "r k w"],
    layer: Projections,
    site: AttentionSite,
    plan: AttentionPlan | None = None,
) -> Float[Tensor, "r n c"]:
    """The layer's output for every row, as the plan says; context = features for self-attention."""
    if plan is None:
        return _plain(features, context, layer)
    rows = features.shape[0]
    everyone = tuple(range(rows))
    flows = _flows(plan, rows, site)
    computed = tuple(row for row in everyone if flows.output[row] == row)
    ask = _Asked(layer, features, context, plan.stored)

    out = _mixed(ask, flows, computed) if computed else features[:0]
    if plan.record is not None:
        _record(ask, flows, plan.record, site)
    if plan.features is not None:
        outputs = {row: out[computed.index(flows.output[row])] for row in plan.features.output}
        _store(ask, plan.features, site, outputs)
    if computed != everyone:
        outs = flows.output
        out = torch.stack(
            [out[computed.index(r)] if r < rows else ask.of_stored(r, "output") for r in outs]
        )
    return out if plan.tokens is None else plan.tokens.read(out, features, layer)


def _plain(
    features: Float[Tensor, "r n c"], context: Float[Tensor, "r k w"], layer: Projections
) -> Float[Tensor, "r n c"]:
    """Fused attention of every row by itself."""
    given = (layer.query, features), (layer.key, context), (layer.value, context)
    q, k, v = (split_heads(project(of), layer.heads) for project, of in given)
    mixed = F.scaled_dot_product_attention(q, k, v, scale=layer.scale)
    return layer.out(join_heads(mixed))


@dataclass(frozen=True)
class _Flows:
    """A checked plan, its pointers filled in for every row."""

    output: Rows
    query: Rows
    key: Rows
    value: Rows
    cross: Mapping[int, CrossMix]
    identity: Rows

    def terms(self, row: int) -> list[_Term]:
        """Which maps meet which values: one term per row, two where a row keeps part of its own."""
        mix, value = self.cross.get(row), self.value[row]
        if mix is None:
            return [_Term(row, self.query[row], self.key[row], value)]
        shared = _Term(row, mix.source_row, mix.source_row, value, mix.shared)
        return [shared] if mix.own is None else [shared, _Term(row, row, row, value, mix.own)]


@dataclass(frozen=True)
class _Term:
    """softmax(q k^T) of two rows times the (re-weighted) values of a third, for `row`."""

    row: int
    query: int
    key: int
    value: int
    weights: Tensor | None = None  # (source_tokens, tokens) matrix, or (tokens,), or None = 1


class _Asked:
    """Queries and keys by row, from this call or from an earlier one; projected once."""

    def __init__(
        self, layer: Projections, features: Tensor, context: Tensor, stored: Sequence[StoredRow]
    ) -> None:
        self.layer, self.features, self.context, self.stored = layer, features, context, stored
        self.rows = len(features)
        self._queries: dict[int, Tensor] = {}  # literals: dynamo cannot trace dict[int, Tensor]()
        self._keys: dict[int, Tensor] = {}

    def queries(self, rows: tuple[int, ...]) -> Float[Tensor, "some n inner"]:
        return self._gathered(rows, self._queries, self.layer.query, self.features, "query")

    def keys(self, rows: tuple[int, ...]) -> Float[Tensor, "some k inner"]:
        return self._gathered(rows, self._keys, self.layer.key, self.context, "key")

    def values(self, rows: tuple[int, ...]) -> Float[Tensor, "some k inner"]:
        here = tuple(row for row in rows if row < self.rows)
        if here == rows:
            return self.layer.value(chosen(self.context, rows))
        projected = self.layer.value(chosen(self.context, here)) if here else ()
        made = dict(zip(here, projected, strict=True))
        return torch.stack([made[r] if r in made else self.of_stored(r, "value") for r in rows])

    def of_stored(self, row: int, part: Part) -> Tensor:
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
        part: Part,
    ) -> Tensor:
        new = tuple(row for row in rows if row < self.rows and row not in made)
        if new:
            projected = project(chosen(of, new))
            made.update(zip(new, projected, strict=True))
            if new == rows:
                return projected
        return torch.stack([made[r] if r < self.rows else self.of_stored(r, part) for r in rows])


def _mixed(ask: _Asked, flows: _Flows, computed: tuple[int, ...]) -> Float[Tensor, "computed n c"]:
    """The outputs of the rows that are computed."""
    mapped = tuple(row for row in computed if row not in flows.identity)
    if mapped != computed:
        return _with_identity(ask, flows, computed, mapped)
    return ask.layer.out(join_heads(_by_maps(ask, flows, computed)))


def _with_identity(
    ask: _Asked, flows: _Flows, computed: tuple[int, ...], mapped: tuple[int, ...]
) -> Float[Tensor, "computed n c"]:
    """The same where some rows' maps are the identity: what they read is their values."""
    plain = tuple(row for row in computed if row in flows.identity)
    parts = dict(zip(plain, ask.values(tuple(flows.value[row] for row in plain)), strict=True))
    if mapped:
        parts |= zip(mapped, join_heads(_by_maps(ask, flows, mapped)), strict=True)
    return ask.layer.out(torch.stack([parts[row] for row in computed]))


def _by_maps(ask: _Asked, flows: _Flows, computed: tuple[int, ...]) -> Float[Tensor, "some h n d"]:
    """Maps times values of some rows."""
    terms = [term for row in computed for term in flows.terms(row)]
    query_rows = tuple(sorted({term.query for term in terms}))
    key_rows = tuple(sorted({term.key for term in terms}))
    value_rows = tuple(sorted({term.value for term in terms}))
    q = split_heads(ask.queries(query_rows), ask.layer.heads)  # (rows, heads, n, d)
    k = split_heads(ask.keys(key_rows), ask.layer.heads)  # (rows, heads, k, d)
    v = split_heads(ask.values(value_rows), ask.layer.heads)

    # One fused call over all terms, then the terms of a row are added up.
    mixed = F.scaled_dot_product_attention(
        chosen(q, tuple(query_rows.index(term.query) for term in terms)),
        chosen(k, tuple(key_rows.index(term.key) for term in terms)),
        _weighted(v, value_rows, terms),
        scale=ask.layer.scale,
    )
    return _sum_by_row(mixed, computed, terms)


def _weighted(
    v: Float[Tensor, "some h k d"], rows: tuple[int, ...], terms: Sequence[_Term]
) -> Float[Tensor, "terms h s d"]:
    """The values of each term, their columns re-weighted where the map's are."""
    if all(term.weights is None for term in terms):
        return chosen(v, tuple(rows.index(term.value) for term in terms))
    values: list[Tensor] = []
    for term in terms:
        own = v[rows.index(term.value)]  # (h, k, d)
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


def _record(ask: _Asked, flows: _Flows, record: Recording, site: AttentionSite) -> None:
    """Materialise only the rows asked for, and hand over only their columns."""
    maps: list[Tensor] = []
    for row in record.rows:
        parts: list[Tensor] = []
        shown = flows.output[row] if row < ask.rows else row
        own = shown >= ask.rows  # a stored row shows its own map
        for term in [_Term(shown, shown, shown, shown)] if own else flows.terms(shown):
            q = split_heads(ask.queries((term.query,)), ask.layer.heads)[0]
            k = split_heads(ask.keys((term.key,)), ask.layer.heads)[0]
            part = (q @ k.mT * ask.layer.scale).softmax(-1)  # (heads, n, k)
            if term.weights is not None:
                part = part @ term.weights if term.weights.ndim == 2 else part * term.weights
            parts.append(part if record.columns is None else columns_of(part, record.columns))
        maps.append(sum(parts[1:], parts[0]))
    record.receive(site, torch.stack(maps))


def _store(
    ask: _Asked, wanted: FeatureRequest, site: AttentionSite, outputs: dict[int, Tensor]
) -> None:
    """Hand over the parts asked for."""
    q = dict(zip(wanted.map, ask.queries(wanted.map), strict=True)) if wanted.map else {}
    k = dict(zip(wanted.map, ask.keys(wanted.map), strict=True)) if wanted.map else {}
    rows = dict.fromkeys((*wanted.output, *wanted.map))
    # In memory of their own: a view would keep all rows of the layer alive.
    kept = {row: StoredRow(*(_copied(part.get(row)) for part in (outputs, q, k))) for row in rows}
    wanted.receive(site, kept)


def _copied(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().clone()


def _flows(plan: AttentionPlan, rows: int, site: AttentionSite) -> _Flows:
    """The plan with all pointers filled in, once it fits the rows of this call."""
    known = rows + len(plan.stored)
    if site.kind == "joint" or plan.words or plan.background or plan.hidden:
        raise ValueError(f"{site.name}: joint attention and its swaps are for attend_joint.")
    found: list[Rows] = []
    for what in ("output_from", "query_from", "key_from", "value_from"):
        given: Rows | Segments | None = getattr(plan, what)
        if isinstance(given, Segments):
            raise ValueError(
                f"{what} has segments, {site.name} has not: name one row for each row."
            )
        check_pointers(what, given, rows, known)
        found.append(tuple(range(rows)) if given is None else given)
    output = found[0]
    if any(output[r] != r for r in output if r < rows):
        raise ValueError(f"output_from must point to computed rows. Got {output}.")
    if plan.cross and site.kind != "cross":
        raise ValueError(f"a CrossMix needs a cross-attention layer. Got {site.name}.")
    named = {row for r, mix in plan.cross.items() for row in (r, mix.source_row)}
    named |= set(plan.record.rows if plan.record else ())
    if plan.identity and site.kind != "self":
        raise ValueError(f"an identity needs a self-attention layer. Got {site.name}.")
    if any(r not in output or output[r] != r for r in plan.identity):
        raise ValueError(f"identity must name computed rows. Got {plan.identity}.")
    if plan.record is not None and set(plan.record.rows) & set(plan.identity):
        raise ValueError("a row whose map is the identity has no map to record.")
    kept = (*plan.features.output, *plan.features.map) if plan.features else ()
    if not all(0 <= row < known for row in named) or not all(0 <= row < rows for row in kept):
        raise ValueError(f"the plan names rows {sorted(named)}, {kept}; there are {known} rows.")
    return _Flows(found[0], found[1], found[2], found[3], plan.cross, plan.identity)


def check_pointers(what: str, given: Rows | None, rows: int, known: int) -> None:
    """Refuse pointers that are not one for each row, or that point nowhere."""
    if given is not None and (len(given) != rows or not all(0 <= r < known for r in given)):
        raise ValueError(f"{what} must name one of {known} rows for each row. Got {given}.")


def columns_of(maps: Float[Tensor, "*rows n"], columns: Sequence[int]) -> Float[Tensor, "*rows k"]:
    """Some columns of maps, without a list of indices that would be copied to the device."""
    return torch.stack([maps[..., column] for column in columns], dim=-1)
