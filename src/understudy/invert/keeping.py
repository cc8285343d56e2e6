"""Keeps a source's features in network calls that are made anyway: while inverting or sampling."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.attention.plan import AttentionPlan
from understudy.attention.site import AttentionSite
from understudy.invert.source import MAP_TOKENS, NOTHING, Parts, SourceFeatures


def nothing(index: int) -> Parts:
    """No part of any step."""
    return NOTHING


def keeping(
    features: SourceFeatures | None,
    index: int,
    parts: Parts,
    *,
    cond: int | None = None,
    uncond: int | None = None,
) -> KeepingControl | None:
    """The control that keeps `parts` of a step in a call that is made anyway; None for nothing."""
    if features is None or not parts:
        return None
    return KeepingControl(features, index, parts, cond, uncond)


@dataclass(frozen=True)
class KeepingControl:
    """Plain attention whose source features are kept: for a call that is made anyway.

    cond, uncond: the row that is the source's conditional or unconditional one, or None.
    """

    features: SourceFeatures
    index: int
    parts: Parts
    cond: int | None
    uncond: int | None
    map_tokens: int = MAP_TOKENS

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        """Nothing is changed; what edits read is handed over."""
        request = self.features.request(
            self.index,
            site,
            self.parts,
            cond=self.cond,
            uncond=self.uncond,
            map_tokens=self.map_tokens,
        )
        return None if request is None else AttentionPlan(features=request)
