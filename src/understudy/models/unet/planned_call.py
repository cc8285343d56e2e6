"""The attention plans of one call of the network, made before the network runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from understudy.attention.plan import AttentionControl, AttentionPlan, StoredRow
from understudy.attention.site import NOWHERE, AttentionSite
from understudy.cuda_graphs.tensor_tree import ignored


class PlannedCall:
    """The plans of one call, made before the network runs, and what its layers hand over.

    Inside the network a plan is a constant and nothing but arithmetic happens, so that the network
    compiles as one graph; recorded maps and kept rows reach their receivers after the call.
    """

    def __init__(
        self,
        layers: Sequence[tuple[AttentionSite, AttentionPlan | None]],
        size: tuple[int, int],
    ) -> None:
        self.layers, self.size = layers, size
        self.heard: list[int] = []
        self.received: list[tuple[int, bool, Any]] = []  # layer, whether recorded, what
        self.plans = [
            (site, plan if plan is None else self._deferred(number, plan))
            for number, (site, plan) in enumerate(self.layers)
        ]

    @classmethod
    def made(
        cls,
        control: AttentionControl,
        sites: Sequence[AttentionSite],
        levels: Sequence[int],
        size: tuple[int, int],
        tokens: int,
    ) -> PlannedCall:
        """The call of a control. size: of the latents; tokens: of the text."""
        placed = [
            _placed(site, level, size, tokens) for site, level in zip(sites, levels, strict=True)
        ]
        return cls([(site, control.plan(site)) for site in placed], size)

    @property
    def bare_plans(self) -> tuple[AttentionPlan | None, ...]:
        """The layers' plans without their receivers: nothing but tensors and constants."""
        return tuple(plan if plan is None else _bare(plan) for _, plan in self.layers)

    def with_plans(self, plans: Sequence[AttentionPlan | None]) -> PlannedCall:
        """A call of its own for the same layers."""
        sites = (site for site, _ in self.layers)
        return PlannedCall(list(zip(sites, plans, strict=True)), self.size)

    def _deferred(self, number: int, plan: AttentionPlan) -> AttentionPlan:
        """The plan with its receivers called after the network has run."""
        record, keep = plan.record, plan.features
        if record is None and keep is None:
            return plan

        def recorded(site: AttentionSite, maps: Tensor) -> None:
            self.received.append((number, True, maps))

        def kept(site: AttentionSite, rows: Mapping[int, StoredRow]) -> None:
            self.received.append((number, False, rows))

        return replace(
            plan,
            record=record and replace(record, receive=recorded),
            features=keep and replace(keep, receive=kept),
        )

    def hand_over(self) -> None:
        """Give what was recorded and kept to whoever asked for it, in order of execution."""
        for number, recorded, found in self.received:
            site, plan = self.layers[number]
            asked = plan and (plan.record if recorded else plan.features)
            assert asked is not None
            asked.receive(site, found)


def _bare(plan: AttentionPlan) -> AttentionPlan:
    record, keep = plan.record, plan.features
    if record is None and keep is None:
        return plan
    return replace(
        plan,
        record=record and replace(record, receive=ignored),
        features=keep and replace(keep, receive=ignored),
    )


def _placed(site: AttentionSite, level: int, size: tuple[int, int], tokens: int) -> AttentionSite:
    """The site with a call's grid: sides are halved and rounded up at every level."""
    height, width = size
    for _ in range(level):
        height, width = -(-height // 2), -(-width // 2)
    if site.kind == "self":
        image, text = slice(0, height * width), NOWHERE
    else:
        image, text = NOWHERE, slice(0, tokens)
    return replace(site, grid=(height, width), image=image, text=text)
