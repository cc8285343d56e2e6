"""A grid of swaps of one photo over the numbers of swapped steps; all share the source.

The trade-off of Photoswap's Figures 8 and 9 (Gu et al. 2023, arXiv:2305.18286): identity falls and
layout is kept as phi, M and A rise. All cells are targets of one run, and cells are one cell as
long as their schedules agree, so a grid costs a fraction of its swaps.

Knows schedules and latents; knows no pictures' files and draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from understudy.errors import InputError
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.settings.knobs import option
from understudy.settings.swap import COUNTS
from understudy.swap.blending import blend_of
from understudy.swap.photoswap import check, schedule_of
from understudy.transfer.loop import replay_steps
from understudy.transfer.source_target import Sources, Target, source_of, with_negative
from understudy.transfer.step import StochasticNoise, SwapStep


@dataclass(frozen=True)
class Axis:
    """One knob of a sweep and the values it takes, counts or shares."""

    name: str
    values: tuple[int | float, ...]

    def __post_init__(self) -> None:
        if self.name not in COUNTS:
            known = ", ".join(option(name)[2:] for name in COUNTS)
            raise InputError(f"a sweep varies one of {known}. Got {self.name!r}.")
        if not self.values:
            raise InputError(f"{option(self.name)} needs at least one value to vary over.")


@dataclass(frozen=True)
class Cell:
    """One swap of a sweep: its place in the grid, and its settings."""

    row: int
    column: int
    settings: SwapSettings


def cells(settings: SwapSettings, rows: Axis | None, columns: Axis) -> tuple[Cell, ...]:
    """All cells of a grid, row by row; one row where there is no axis for rows."""
    if rows is not None and rows.name == columns.name:
        raise InputError(f"rows and columns both vary {option(rows.name)}. Choose two knobs.")
    fixed = replace(settings, budget=0)
    down = [{rows.name: value} for value in rows.values] if rows else [{}]
    across = [{columns.name: value} for value in columns.values]
    return tuple(
        Cell(r, c, replace(fixed, **{**one, **other}))
        for r, one in enumerate(down)
        for c, other in enumerate(across)
    )


def trade_off(steps: int) -> tuple[Axis, Axis]:
    """Figure 9's grid for a number of steps: five values of phi by five of A."""
    shares = (0.0, 0.1, 0.2, 0.4, 0.8)
    counts = tuple(dict.fromkeys(round(share * steps) for share in shares))
    return Axis("self_output_steps", counts), Axis("cross_map_steps", counts)


def sweep_steps(
    model: DiffusionModel, source: Sources, target: Target | str, grid: Sequence[Cell]
) -> Iterator[SwapStep]:
    """Swap every cell of a grid in one run; targets are the cells, in their order.

    Raises what `swap_steps` raises.
    """
    first, source = grid[0].settings, source_of(source)
    check(model, source.inversion, first)
    targets = with_negative([target] * len(grid), first.negative)
    return replay_steps(
        model,
        source,
        targets,
        [schedule_of(cell.settings) for cell in grid],
        guidance=first.guidance,
        blend=blend_of(model, source, targets, first),
        stochastic=StochasticNoise(first.eta, first.temperature, first.noise_seed),
    )
