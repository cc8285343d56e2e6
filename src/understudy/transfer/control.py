"""The attention control of one step: what passes from the source's rows to the targets'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionPlan, CrossMix, Recording
from understudy.attention.site import AttentionSite
from understudy.device_copies import chosen
from understudy.invert.source import Parts, SourceFeatures
from understudy.transfer.appearance import AppearanceRows
from understudy.transfer.background import BackgroundRows
from understudy.transfer.batch_layout import BatchLayout, Branch
from understudy.transfer.blend import MapSums
from understudy.transfer.joint import joint_plan


@dataclass(frozen=True)
class SwapControl:
    """The attention control of one step.

    cross_maps: for each target how A mixes source and own maps (its source_row is filled in here),
        None where it keeps its own.
    map_tokens: M leaves layers with more queries than this alone.
    sums: where the maps of the blend's words go; None = no maps are recorded.
    features: where the source's rows come from if they are stored, and go to if not.
    index, parts: of the step, and what of the source it reads.
    appearance: pictures in the call whose tokens the targets read; None = there are none.
    background: rows that read the source's keys and values outside their masks; None = there are
        none. Of flow models only.
    """

    layout: BatchLayout
    branches: tuple[Branch, ...]
    cross_maps: Sequence[CrossMix | None]
    map_tokens: int
    sums: MapSums | None = None
    features: SourceFeatures | None = None
    index: int = 0
    parts: Parts = frozenset()
    appearance: AppearanceRows | None = None
    background: BackgroundRows | None = None

    def plan(self, site: AttentionSite) -> AttentionPlan:
        """What passes between the rows in this layer."""
        plan = self._swaps(site)
        return (
            plan if self.background is None else replace(plan, background=self.background.at(site))
        )

    def _swaps(self, site: AttentionSite) -> AttentionPlan:
        where = self.layout
        # Image and text share a softmax here, so M and A are swaps of logits instead of maps.
        if site.kind == "joint":
            record = self._recording(site)
            return joint_plan(where, self.branches, self.cross_maps, self.map_tokens, site, record)
        plan = self._exchange(site)
        if self.features is not None and where.stored:
            # The source was computed by an earlier edit: only its stored outputs, queries and keys
            # are read.
            return replace(plan, stored=self.features.rows(self.index, site))
        if self.features is None or where.source_cond is None:
            return plan
        request = self.features.request(
            self.index,
            site,
            self.parts,
            cond=where.source_cond,
            uncond=where.source_uncond,
            map_tokens=self.map_tokens,
        )
        return replace(plan, features=request)

    def _exchange(self, site: AttentionSite) -> AttentionPlan:
        if site.kind == "cross":
            return AttentionPlan(cross=self._crossed(), record=self._recording(site))
        where = self.layout
        outputs, maps = dict[int, int | None](), dict[int, int | None]()
        for number, branch in enumerate(self.branches):
            # phi (Algorithm 1 of Photoswap) replaces the output of self-attention in both rows of
            # guidance: its target is the layout, which both rows must share.
            if branch.swaps.self_output:
                outputs[where.target_cond[number]] = where.source_cond
                if where.target_uncond:
                    outputs[where.target_uncond[number]] = where.source_uncond
            # M replaces the map only. The values stay the target's, so its appearance stays, too.
            # Where phi is swapped M would have no effect. Large layers are left alone because their
            # maps hold texture rather than layout.
            elif branch.swaps.self_map and site.cells <= self.map_tokens:
                maps[where.target_cond[number]] = where.source_cond
        plan = AttentionPlan.maps(where.pointing(maps), where.pointing(outputs))
        if self.appearance is None:
            return plan
        return replace(plan, tokens=self.appearance.tokens(site, where, self.index))

    def _crossed(self) -> dict[int, CrossMix]:
        found: dict[int, CrossMix] = {}
        for branch, row in zip(self.branches, self.layout.target_cond, strict=True):
            # A acts on the conditional row: the unconditional prompt is empty and has no words.
            if branch.swaps.cross_map and self.layout.source_cond is not None:
                mix = self.cross_maps[branch.members[0]]
                if mix is not None:
                    found[row] = replace(mix, source_row=self.layout.source_cond)
        return found

    def _recording(self, site: AttentionSite) -> Recording | None:
        sums, source = self.sums, self.layout.source_cond
        if sums is None or source is None or not sums.wants(site):
            return None
        columns = sums.columns
        offset = site.text.start  # in a joint layer, words stand among other keys
        # A branch computes one row for several targets; its maps count for each of them.
        members = [1 + member for branch in self.branches for member in branch.members]
        of = [1 + n for n, branch in enumerate(self.branches) for _ in branch.members]

        def receive(site: AttentionSite, maps: Float[Tensor, "rows heads q columns"]) -> None:
            sums.add(site, chosen(maps, [0, *of]), columns, [0, *members])

        keys = tuple(offset + column for column in columns)
        return Recording((source, *self.layout.target_cond), keys, receive)
