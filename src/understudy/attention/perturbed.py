"""Which attention layers perturbed-attention guidance perturbs, and the control that does so.

Ahn et al. 2024, arXiv:2403.17377. Knows sites and rows only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from understudy.attention.plan import AttentionPlan, Rows
from understudy.attention.site import AttentionSite
from understudy.errors import InputError

_ENTRY = re.compile(r"([a-z]+)(?:\.(\d+)(?:-(\d+))?)?")


@dataclass(frozen=True)
class PerturbedRows:
    """A control: in these layers (`AttentionSite.index`) image tokens of these rows read no other
    image token."""

    rows: Rows
    layers: frozenset[int]

    def plan(self, site: AttentionSite) -> AttentionPlan | None:
        """The identity for the rows in a perturbed layer; plain attention in the others."""
        return AttentionPlan(identity=self.rows) if site.index in self.layers else None


def perturbed_layers(
    sites: Sequence[AttentionSite], wanted: str, name: str = "this model"
) -> frozenset[int]:
    """The layers that `wanted` names, by their index.

    wanted: entries separated by commas: a kind of block ("mid", "down", "up"; "double", "single",
    "refiner" of a transformer), some of its blocks ("up.1", "double.7-9"), or "all". In a
    transformer "mid" is the middle block of those where image and text are joined.

    Raises InputError for an entry that names no block with self-attention, or no entry at all.
    """
    reads = [site for site in sites if site.kind != "cross"]
    blocks = list(dict.fromkeys(f"{site.block}.{site.block_index}" for site in reads))
    if not reads:
        raise InputError(
            f"{name} has no self-attention that could be perturbed. Use --pag-scale 0."
        )
    found = frozenset[int]()
    for entry in (part.strip() for part in wanted.split(",")):
        layers = _named(reads, entry)
        if not layers:
            raise InputError(
                f"--pag-layers must name blocks with self-attention. Got {entry!r}; {name} has: "
                f"{', '.join(blocks)}; or give mid or all."
            )
        found |= layers
    return found


def _named(sites: Sequence[AttentionSite], entry: str) -> frozenset[int]:
    """The layers of one entry; none where it names none."""
    if entry == "all":
        return frozenset(site.index for site in sites)
    joint = [site for site in sites if site.kind == "joint"]
    if entry == "mid" and joint:
        middle = joint[len(joint) // 2]
        entry = f"{middle.block}.{middle.block_index}"
    said = _ENTRY.fullmatch(entry)
    if said is None:
        return frozenset()
    block, first, last = said.group(1), said.group(2), said.group(3)
    numbers = range(10**6) if first is None else range(int(first), int(last or first) + 1)
    return frozenset(
        site.index for site in sites if site.block == block and site.block_index in numbers
    )
