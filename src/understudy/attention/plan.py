"""Attention plans: what a row of a batch records, or takes from another row.

A control is an argument of one model call, never a patch. It is asked once a layer for a plan;
`attend.py` carries plans out.

"Row" is the batch index of the U-Net call. This file knows neither models nor prompts nor steps: a
control is a value made for ONE step, and it knows which rows it was made for.

A plan may also name rows that are not in the call: `StoredRow`s, kept from an earlier call.

Swaps without maps: A = softmax(q k^T) is linear in the values, so any recombination of the columns
of A moves onto v (Photoswap, Gu et al. 2023, arXiv:2305.18286; prompt-to-prompt, Hertz et al. 2022,
arXiv:2208.01626).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.attention.site import AttentionSite
from understudy.attention.tokens import TokensOf

LEAST = 1e-12  # a factor on a word's attention in a joint layer, in the place of 0
Rows = tuple[int, ...]
"""For each row of the call, the row it points to."""


@dataclass(frozen=True)
class Segments:
    """Row pointers for each kind of token in a joint layer; None = every row its own."""

    image: Rows | None = None
    text: Rows | None = None
    reference: Rows | None = None


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

    @cached_property
    def logits(self) -> LogitMix:
        """The same for a joint layer, where columns are swapped before the softmax.

        A column that takes shares of several source columns (a word of another number of tokens)
        takes the logit of one of them, in order, and the logarithm of their sum as its factor. The
        factor of a column is the sum of what it takes and keeps, so that reweighting carries over.
        Raises ValueError for a negative factor, which no logit expresses.
        """
        shared = self.shared.double().cpu()
        own = shared.new_zeros(len(shared)) if self.own is None else self.own.double().cpu()
        if bool((shared < 0).any() | (own < 0).any()):
            raise ValueError("a factor on a word's attention must not be negative in a joint layer")
        taken = shared.sum(0)
        total = taken + own
        rows: list[list[int]] = [[] for _ in range(len(own))]
        for source, token in shared.nonzero().tolist():
            rows[token].append(source)
        mapper, seen = list[int](), Counter[tuple[int, ...]]()
        for partners in rows:
            place = min(seen[tuple(partners)], len(partners) - 1)
            seen[tuple(partners)] += 1
            mapper.append(partners[place] if partners else -1)
        factors = total.clamp(min=LEAST).log()
        return LogitMix(
            self.source_row,
            tuple(mapper),
            tuple((taken / total.clamp(min=LEAST)).tolist()),
            tuple(factors.tolist()) if bool((factors.abs() > 1e-6).any()) else None,
        )


@dataclass(frozen=True)
class LogitMix:
    """A in a joint layer: image queries read words of this row as the source's read theirs.

    Text and image share one softmax, so columns of logits are swapped before it, and every row of
    the map still sums to 1. Word j gets (1 - weights[j]) * own logit + weights[j] * the source's
    logit of its partner + log_factors[j].

    source_row: the row whose queries and keys give the source's logits.
    mapper: the partner's place among the source's text tokens, for each text token; -1 = none.
    weights: 1 = the source's logit, 0 = the own one; taken as 0 where there is no partner.
    log_factors: logarithm of the factor on a word's attention before normalisation: minus log n for
        each of n tokens that share one source token, log c for reweighting by c; None = all 0.
    """

    source_row: int
    mapper: tuple[int, ...]
    weights: tuple[float, ...]
    log_factors: tuple[float, ...] | None = None

    def of(self, source_row: int, length: int) -> LogitMix:
        """The same from another row, for `length` text tokens: more keep their own attention."""
        more = length - len(self.mapper)
        factors = self.log_factors
        if factors is not None:
            factors = (*factors, *[0.0] * more)[:length]
        return LogitMix(
            source_row,
            (*self.mapper, *[-1] * more)[:length],
            (*self.weights, *[0.0] * more)[:length],
            factors,
        )


@dataclass(frozen=True)
class Background:
    """Image tokens of a row of a joint layer whose keys and values are another row's (KV-Edit, Zhu
    et al. 2025, arXiv:2502.17363). All queries of the row read them.

    source_row: the row they come from. cells: which image tokens, True = background.
    emphasis: added to the logits that image queries of the other cells give to the background.
    """

    source_row: int
    cells: Bool[Tensor, " cells"]
    emphasis: float = 0.0


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
class StoredRow:
    """What was kept of a row of an earlier call at this layer; None = that part was not kept.

    output: what the layer gave, its output projection included (in a joint layer: what attention
    gave, before any projection). query, key, value: before the split into heads, or joined again.
    """

    output: Float[Tensor, "n c"] | None = None
    query: Float[Tensor, "n inner"] | None = None
    key: Float[Tensor, "k inner"] | None = None
    value: Float[Tensor, "k inner"] | None = None


@dataclass(frozen=True)
class FeatureRequest:
    """Which rows of this call are wanted later, which parts of them, and who receives them.

    output, map: rows whose output, whose query and key are wanted. receive(site, kept) is called
    during the forward pass, by row; what it gets are views into the call's tensors: copy them.
    """

    output: tuple[int, ...]
    map: tuple[int, ...]
    receive: Callable[[AttentionSite, Mapping[int, StoredRow]], None]


@dataclass(frozen=True)
class AttentionPlan:
    """What one layer does in one call. Row pointers have one entry for every row of the call.

    Rows of the call are 0, 1, ..; after them the rows of `stored` are counted on. They may be
    pointed to like any other row. None = every row its own.

    In a joint layer a pointer may be given for each segment of tokens: `Segments`. For queries the
    segment is the one that is read: query_from.text says whose image queries score the words. A
    plan governs what image tokens read; text and reference tokens attend plainly unless
    all_queries is set.

    Attributes:
        output_from: row r's output is row output_from[r]'s (phi of a U-Net); only rows with
            output_from[r] == r are computed, and a row that is pointed to must be one of those.
        query_from, key_from: whose queries and keys give row r's map (M).
        value_from: whose values row r reads.
        cross: row -> CrossMix (A of a U-Net's cross-attention); such a row ignores query_from and
            key_from.
        words: row -> LogitMix (A of a joint layer).
        background: row -> Background (KV-Edit, in a joint layer), under any other swap.
        hidden: row -> image tokens that image queries of other cells do not read (the same).
        identity: rows whose image tokens read no other image token: their map among image tokens is
            the identity matrix (perturbed-attention guidance). Words and references are read on.
        all_queries: whether text and reference queries of a joint layer follow the plan, too.
        record: maps wanted from this layer, or None.
        stored: rows of earlier calls; features: rows wanted later, or None.
        tokens: which tokens of a self-attention layer read other rows' in the end, or None.
    """

    output_from: Rows | Segments | None = None
    query_from: Rows | Segments | None = None
    key_from: Rows | Segments | None = None
    value_from: Rows | Segments | None = None
    cross: Mapping[int, CrossMix] = field(default_factory=dict[int, CrossMix])
    words: Mapping[int, LogitMix] = field(default_factory=dict[int, LogitMix])
    background: Mapping[int, Background] = field(default_factory=dict[int, Background])
    hidden: Mapping[int, Bool[Tensor, " cells"]] = field(default_factory=dict[int, Tensor])
    identity: Rows = ()
    all_queries: bool = False
    record: Recording | None = None
    stored: tuple[StoredRow, ...] = ()
    features: FeatureRequest | None = None
    tokens: TokensOf | None = None

    @classmethod
    def maps(cls, map_from: Rows | None, output_from: Rows | None = None) -> AttentionPlan:
        """Row r has the map (queries and keys) of row map_from[r] and its own values."""
        return cls(output_from, map_from, map_from)


@runtime_checkable
class AttentionControl(Protocol):
    """Decides, layer by layer, what attention does in ONE call of the model."""

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        """The plan for this layer; None = plain attention for all rows."""
        ...
