"""One step of a swap as one model call: which rows it needs, and what passes between them.

A row is one latent with one embedding. The plain way costs four rows a step and target: source
and target, each unconditional and conditional. Rows that nothing reads are left out, and rows
that would be equal are computed once, so the target's result is the same up to rounding:

* the source's unconditional row is read by phi alone, and by the source's own guidance where its
  path is not known; its conditional row by phi, M, A and the blend's maps;
* in the first step source and targets start from one latent, so their unconditional rows are one,
  and none where the inversion has kept that noise;
* where the unconditional embedding is the source's own prompt, the source's two rows are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention import AttentionPlan, AttentionSite, CrossMix, Recording
from understudy.swap.blend import MapSums
from understudy.swap.schedule import Swaps


@dataclass(frozen=True)
class Needs:
    """Which rows a step's call must have; the targets' conditional rows are always there."""

    source_uncond: bool
    source_cond: bool
    target_uncond: bool


@dataclass(frozen=True)
class Texts:
    """Embeddings of one step: unconditional, the source prompt's, the targets' prompts'."""

    uncond: Float[Tensor, "1 tokens width"]
    source: Float[Tensor, "1 tokens width"]
    targets: Float[Tensor, "k tokens width"]


@dataclass(frozen=True)
class Layout:
    """Where each row of a call is. None or () stands for a row that is not in it.

    source_uncond may be source_cond, and target_uncond may be source_uncond: one row for both.
    """

    source_uncond: int | None
    source_cond: int | None
    target_uncond: tuple[int, ...]
    target_cond: tuple[int, ...]
    latents: Float[Tensor, "rows c h w"]
    text: Float[Tensor, "rows tokens width"]

    @property
    def rows(self) -> int:
        """Rows of the call."""
        return len(self.latents)

    def pointing(self, pairs: dict[int, int | None]) -> tuple[int, ...]:
        """Every row pointing to itself, but these to others."""
        pointers = list(range(self.rows))
        for row, other in pairs.items():
            pointers[row] = row if other is None else other
        return tuple(pointers)


def lay_out(
    needs: Needs,
    texts: Texts,
    source: Float[Tensor, "1 c h w"] | None,
    targets: Float[Tensor, "k c h w"],
    *,
    first: bool,
) -> Layout:
    """Put the rows a step needs into one batch.

    Args:
        source: the source's latents; may be None where no source row is needed.
        first: source and targets still share one latent.
    """
    latents, text = list[Tensor](), list[Tensor]()

    def add(latent: Tensor, embedding: Tensor) -> int:
        latents.append(latent)
        text.append(embedding)
        return len(latents) - 1

    source_cond = source_uncond = None
    if needs.source_cond and source is not None:
        source_cond = add(source[0], texts.source[0])
    if needs.source_uncond and source is not None:
        same = source_cond is not None and torch.equal(texts.uncond, texts.source)
        source_uncond = source_cond if same else add(source[0], texts.uncond[0])
    target_uncond: tuple[int, ...] = ()
    if needs.target_uncond:
        if first:
            shared = add(targets[0], texts.uncond[0]) if source_uncond is None else source_uncond
            target_uncond = (shared,) * len(targets)
        else:
            target_uncond = tuple(add(target, texts.uncond[0]) for target in targets)
    target_cond = tuple(add(*pair) for pair in zip(targets, texts.targets, strict=True))
    return Layout(
        source_uncond,
        source_cond,
        target_uncond,
        target_cond,
        torch.stack(latents),
        torch.stack(text),
    )


@dataclass(frozen=True)
class SwapControl:
    """The attention control of one step.

    mixes: for each target how A mixes source and own maps (its source_row is filled in here),
        None where it keeps its own.
    map_tokens: M leaves layers with more queries than this alone.
    sums: where the maps of the blend's words go; None = no maps are recorded.
    """

    layout: Layout
    swaps: Swaps
    mixes: Sequence[CrossMix | None]
    map_tokens: int
    sums: MapSums | None = None

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        """What passes between the rows in this layer."""
        if site.is_cross:
            return AttentionPlan(cross=self._crossed(), record=self._recording(site))
        where = self.layout
        halves = dict.fromkeys(where.target_cond, where.source_cond)
        if self.swaps.self_output:
            halves |= dict.fromkeys(where.target_uncond, where.source_uncond)
            return AttentionPlan(output_from=where.pointing(halves))
        if self.swaps.self_map and site.tokens <= self.map_tokens:
            return AttentionPlan(map_from=where.pointing(halves))
        return None

    def _crossed(self) -> dict[int, CrossMix]:
        source = self.layout.source_cond
        if not self.swaps.cross_map or source is None:
            return {}
        rows = zip(self.layout.target_cond, self.mixes, strict=True)
        return {row: replace(mix, source_row=source) for row, mix in rows if mix is not None}

    def _recording(self, site: AttentionSite) -> Recording | None:
        sums, source = self.sums, self.layout.source_cond
        if sums is None or source is None or not sums.wants(site):
            return None
        columns = sums.columns

        def receive(site: AttentionSite, maps: Float[Tensor, "rows heads q columns"]) -> None:
            sums.add(site, maps, columns, range(len(sums.places)))

        return Recording((source, *self.layout.target_cond), columns, receive)


def rows_of(noise: Float[Tensor, "rows c h w"], rows: Sequence[int]) -> Float[Tensor, "k c h w"]:
    """Some rows of the call's result."""
    return torch.stack([noise[row] for row in rows])
