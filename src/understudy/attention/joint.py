"""Joint attention by a plan: image and text in one sequence and one softmax, no map materialised.

The adapter of a network hands over queries, keys and values after QK-norm and positions, heads
first. Rows without a swap run as plain fused attention. Photoswap's swaps (Gu et al. 2023,
arXiv:2305.18286) become swaps of logits, because text and image share one softmax: swapping blocks
of a finished map would break its row sums.

One fused call does them all. Where logits of one query come from two rows, queries are placed side
by side in a head of twice the width, and each key has zeros where it must not be read:
[q_a ; q_b] . [k ; 0] = q_a . k. A factor on a word's attention is one more channel: 1 in the query,
log(factor) / scale in the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.attention.attend import check_pointers, columns_of
from understudy.attention.background import biases, check_background, exchanged
from understudy.attention.identity import own_and_others
from understudy.attention.plan import AttentionPlan, LogitMix, Rows, Segments, StoredRow
from understudy.attention.projections import Projected, join_heads, split_heads
from understudy.attention.site import AttentionSite
from understudy.device_copies import chosen, on_device, put_rows

CHUNK = 1024  # queries whose maps are materialised at once while recording
SEGMENTS = ("image", "text", "reference")


def attend_joint(
    given: Projected, site: AttentionSite, plan: AttentionPlan | None = None
) -> Float[Tensor, "r h n d"]:
    """Attention's result for every row and token, before any output projection.

    Raises ValueError for a plan that does not fit the rows or the layer.
    """
    if plan is None:
        return _plain(given, tuple(range(len(given.query))))
    work = _Work(given, site, plan)
    out = work.outputs()
    if plan.record is not None:
        columns = plan.record.columns
        maps = [work.map_of(row, columns) for row in plan.record.rows]
        plan.record.receive(site, torch.stack(maps))
    if plan.features is not None:
        rows = dict.fromkeys((*plan.features.output, *plan.features.map))
        plan.features.receive(site, {row: work.stored(row, out) for row in rows})
    return out


def _plain(
    given: Projected, rows: Rows, queries: slice = slice(None), bias: Tensor | None = None
) -> Tensor:
    """Fused attention of some rows, of all or some of their queries. bias: on the logits "n n"."""
    mask = None if given.mask is None else chosen(given.mask, rows)[:, None, None, :]
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    return F.scaled_dot_product_attention(
        chosen(given.query, rows)[:, :, queries],
        chosen(given.key, rows),
        chosen(given.value, rows),
        attn_mask=mask,
        scale=given.scale,
    )


class _Work:
    """A plan being carried out in one layer of one call."""

    def __init__(self, given: Projected, site: AttentionSite, plan: AttentionPlan) -> None:
        self.given, self.site, self.plan = given, site, plan
        self.rows, self.heads = given.query.shape[0], given.query.shape[1]
        self.slices = [(name, getattr(site, name)) for name in SEGMENTS]
        self.slices = [(name, s) for name, s in self.slices if s.stop > s.start]
        # Segments in the order of the sequence, so that keys are joined as they came.
        self.slices.sort(key=lambda item: item[1].start)
        self._check()
        self.biases = biases(plan, site, given.key)
        if plan.background:
            key, value = (exchanged(x, site, plan.background) for x in (given.key, given.value))
            self.given = replace(given, key=key, value=value)

    def outputs(self) -> Tensor:
        """The result of all rows: plain ones in one call, swapped ones in another."""
        given, image = self.given, self.site.image
        copied = self._pointers("output_from", "image")
        everyone = range(self.rows)
        computed = [row for row in everyone if copied[row] == row]
        swapped = [row for row in computed if self._swaps(row)]
        queries = slice(None) if self.plan.all_queries else image
        out = torch.empty_like(given.value)
        alone = [row for row in self.plan.identity if row not in swapped]
        still = [row for row in everyone if row not in (*swapped, *alone)]
        whole = [row for row in still if copied[row] == row]
        plain = [row for row in whole if row not in self.biases]
        if plain:
            put_rows(out, plain, slice(None), _plain(given, tuple(plain)))
        for row in self.biases:
            out[row] = _plain(given, (row,), bias=self.biases[row])[0]
        partly = [row for row in everyone if row not in whole]
        partly = alone if self.plan.all_queries else partly
        for part in (self.site.text, self.site.reference) if partly else ():
            if part.stop > part.start:
                put_rows(out, partly, part, _plain(given, tuple(partly), part))
        if alone:
            put_rows(out, alone, image, own_and_others(given, image, tuple(alone)))
        for group in self._alike(swapped):
            put_rows(out, group, queries, self._fused(group, queries))
        for row in everyone:
            if copied[row] != row:
                found = (
                    out[copied[row]]
                    if copied[row] < self.rows
                    else self._part(copied[row], "output")
                )
                out[row, :, queries] = found[:, queries]
        return out

    def _alike(self, rows: Sequence[int]) -> list[list[int]]:
        """Swapped rows whose heads become equally wide: each group is one fused call."""
        groups: dict[tuple[int, bool], list[int]] = {}
        for row in rows:
            mix = self.plan.words.get(row)
            biased = mix is not None and mix.log_factors is not None
            groups.setdefault((len(self._query_rows(row)), biased), []).append(row)
        return list(groups.values())

    def _fused(self, rows: Sequence[int], queries: slice) -> Tensor:
        parts = [self._widened(row) for row in rows]
        q, k, v = (torch.stack([part[i] for part in parts]) for i in range(3))
        d = v.shape[-1]
        v = F.pad(v, (0, q.shape[-1] - d))  # fused kernels want one width for all three
        masks = [self._mask(row) for row in rows]
        mask = None
        if self.given.mask is not None:
            mask = torch.stack([m for m in masks if m is not None])[:, None, None, :]
        mixed = F.scaled_dot_product_attention(
            q[:, :, queries], k, v, attn_mask=mask, scale=self.given.scale
        )
        return mixed[..., :d]

    def _query_rows(self, row: int) -> list[int]:
        """The rows whose queries give logits of this row, its first segment's first."""
        named = [self._pointers("query_from", name)[row] for name, _ in self.slices]
        mix = self.plan.words.get(row)
        return list(dict.fromkeys(named if mix is None else [*named, mix.source_row]))

    def _widened(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a row, such that one plain attention gives the swaps."""
        sources = self._query_rows(row)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        mix = self.plan.words.get(row)
        for name, part in self.slices:
            key = self._part(self._pointers("key_from", name)[row], "key")[:, part]
            place = sources.index(self._pointers("query_from", name)[row])
            placed = {place: key}
            if name == "text" and mix is not None:
                placed = self._mixed_words(mix, placed, place, sources)
            blocks = [placed.get(n, torch.zeros_like(key)) for n in range(len(sources))]
            keys.append(torch.cat(blocks, dim=-1))
            values.append(self._part(self._pointers("value_from", name)[row], "value")[:, part])
        q = torch.cat([self._part(source, "query") for source in sources], dim=-1)
        k, v = torch.cat(keys, dim=1), torch.cat(values, dim=1)
        if mix is not None and mix.log_factors is not None:
            factors = k.new_zeros(k.shape[1])
            logs = on_device(mix.log_factors, k.device, k.dtype)
            factors[self.site.text] = logs / self.given.scale
            k = torch.cat([k, factors.expand(self.heads, -1)[..., None]], dim=-1)
            q = F.pad(q, (0, 1), value=1.0)
        width = -(-q.shape[-1] // 8) * 8  # fused kernels want a multiple of 8
        return F.pad(q, (0, width - q.shape[-1])), F.pad(k, (0, width - k.shape[-1])), v

    def _mixed_words(
        self, mix: LogitMix, placed: dict[int, Tensor], own: int, sources: list[int]
    ) -> dict[int, Tensor]:
        """Keys of the words: each word's own key and its partner's, by their weights."""
        key = placed[own]
        shares = tuple(w if p >= 0 else 0.0 for p, w in zip(mix.mapper, mix.weights, strict=True))
        weights = on_device(shares, key.device, key.dtype)[:, None]
        partners = tuple(max(partner, 0) for partner in mix.mapper)
        partners = on_device(partners, key.device, torch.int64)
        theirs = self._part(mix.source_row, "key")[:, self.site.text][:, partners]
        found = {own: (1 - weights) * key}
        place = sources.index(mix.source_row)
        found[place] = found.get(place, 0) + weights * theirs
        return found

    def _mask(self, row: int) -> Tensor | None:
        """Which keys a row may read: those of the rows they come from."""
        if self.given.mask is None:
            return None
        found = self.given.mask[row].clone()
        for name, part in self.slices:
            source = self._pointers("key_from", name)[row]
            if source < self.rows:
                found[part] = self.given.mask[source][part]
        return found

    def map_of(self, row: int, columns: tuple[int, ...] | None) -> Tensor:
        """Attention of a row's image queries to some keys, materialised in chunks of queries."""
        shown = self._pointers("output_from", "image")[row] if row < self.rows else row
        if shown < self.rows:
            q, k, _ = self._widened(shown)
        else:
            q, k = self._part(shown, "query"), self._part(shown, "key")
        mask = self._mask(shown) if shown < self.rows else None
        chunks: list[Tensor] = []
        for some in q[:, self.site.image].split(CHUNK, dim=1):
            logits = some @ k.mT * self.given.scale
            if mask is not None:
                logits = logits.masked_fill(~mask, float("-inf"))
            found = logits.softmax(-1)
            chunks.append(found if columns is None else columns_of(found, columns))
        return torch.cat(chunks, dim=1)

    def stored(self, row: int, out: Tensor) -> StoredRow:
        """The parts of a row that are to be kept."""
        features = self.plan.features
        assert features is not None
        output = join_heads(out[row : row + 1])[0] if row in features.output else None
        if row not in features.map:
            return StoredRow(output)
        parts = (self.given.query, self.given.key, self.given.value)
        query, key, value = (join_heads(part[row : row + 1])[0] for part in parts)
        return StoredRow(output, query, key, value)

    def _part(self, row: int, part: str) -> Float[Tensor, "h n d"]:
        """Queries, keys, values or outputs of a row of this call, or of an earlier one."""
        if row < self.rows:
            return getattr(self.given, part)[row]
        found: Tensor | None = getattr(self.plan.stored[row - self.rows], part)
        if found is None:
            raise ValueError(f"stored row {row - self.rows} was kept without its {part}.")
        return split_heads(found[None].to(self.given.query), self.heads)[0]

    def _pointers(self, what: str, segment: str) -> Rows:
        """Where each row takes a part from, for one segment."""
        asked: Rows | Segments | None = getattr(self.plan, what)
        found: Rows | None = getattr(asked, segment) if isinstance(asked, Segments) else asked
        return tuple(range(self.rows)) if found is None else found

    def _swaps(self, row: int) -> bool:
        """Whether anything of a row's logits or values is another's."""
        kinds = ("query_from", "key_from", "value_from")
        named = (self._pointers(kind, name)[row] for kind in kinds for name, _ in self.slices)
        return row in self.plan.words or any(source != row for source in named)

    def _check(self) -> None:
        plan, known = self.plan, self.rows + len(self.plan.stored)
        if self.site.kind == "cross" or plan.cross:
            raise ValueError(f"{self.site.name}: a CrossMix needs a cross-attention layer.")
        for what in ("output_from", "query_from", "key_from", "value_from"):
            for name, _ in self.slices:
                check_pointers(what, self._pointers(what, name), self.rows, known)
        output = self._pointers("output_from", "image")
        if any(output[r] != r for r in output if r < self.rows):
            raise ValueError(f"output_from must point to computed rows. Got {output}.")
        check_background(plan, self.site, self.rows)
        emphasised = [row for row, kept in plan.background.items() if kept.emphasis]
        kept = () if plan.record is None else plan.record.rows
        for row in plan.identity:
            if row in (*emphasised, *plan.hidden, *kept):
                raise ValueError(f"row {row} has the identity for a map: no bias, no recording.")
        for row in (*emphasised, *plan.hidden, *plan.identity):
            if self._swaps(row) or output[row] != row:
                raise ValueError(
                    f"row {row} cannot both swap and have biased logits or an identity."
                )
        length = self.site.text.stop - self.site.text.start
        for row, mix in plan.words.items():
            if not 0 <= row < self.rows or not 0 <= mix.source_row < known:
                raise ValueError(f"a LogitMix names row {mix.source_row}; there are {known} rows.")
            if not length == len(mix.mapper) == len(mix.weights):
                raise ValueError(f"a LogitMix wants {length} words. Got {len(mix.mapper)}.")
