"""Sweeps, attention and masks as pictures: numbers to labelled sheets of pixels.

Knows what the steps of `explain`, `sweep` and `swap` carry; opens and writes no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from understudy.pictures.photo import Pixels
from understudy.pictures.sheet import Curve, Row, Tile, chart, contact_sheet, strip
from understudy.pictures.tensors import to_pixels
from understudy.settings.knobs import option
from understudy.swap.explain import Attention, components
from understudy.swap.sweep import Axis, Cell
from understudy.transfer.schedule import SwapSchedule

Page = UInt8[np.ndarray, "high wide 3"]  # as large as it has to be, whatever it shows

SIDE = 160  # pixels of a tile
COLOURS = ((186, 74, 58), (214, 151, 52), (62, 110, 156))  # of phi, M and A
NAMES = ("self-attention output (phi)", "self-attention map (M)", "cross-attention map (A)")


def heat(
    picture: Float[Tensor, "1 3 h w"], values: Float[Tensor, "gh gw"], strength: float = 0.75
) -> Pixels:
    """A grey picture with `values` (0 to 1) laid over it in colour."""
    size = (int(picture.shape[-2]), int(picture.shape[-1]))
    smooth = F.interpolate(values[None, None].float(), size=size, mode="bicubic").clamp(0, 1)[0, 0]
    grey = np.repeat(to_pixels(picture).mean(2, keepdims=True), 3, 2)
    share = strength * smooth.cpu().numpy()[..., None]
    return np.round(grey * (1 - share) + _coloured(smooth) * share).astype(np.uint8)


def component_pictures(attention: Attention, count: int = 3) -> list[Pixels]:
    """The leading components of a self-attention map, each as a picture of its own."""
    found = components(attention.self_map, attention.size, count)
    large = F.interpolate(found[:, None], size=(SIDE, SIDE), mode="nearest")[:, 0]
    return [np.round(_coloured(one)).astype(np.uint8) for one in large]


def schedule_strip(schedule: SwapSchedule, width: int) -> Pixels:
    """Which steps take what, the noisiest on the left."""
    swaps = [schedule.at(index) for index in range(schedule.steps)]
    rows = (
        (NAMES[0], [s.self_output for s in swaps]),
        (NAMES[1], [s.self_map for s in swaps]),
        (NAMES[2], [s.cross_map for s in swaps]),
    )
    return strip(rows, width, COLOURS)


def attention_sheet(
    picture: Float[Tensor, "1 3 h w"],
    shown: Sequence[tuple[str, Attention]],
    words: Attention,
    title: str,
    *,
    schedule: SwapSchedule | None = None,
    mask: Float[Tensor, "1 1 lh lw"] | None = None,
) -> Page:
    """One page: heat maps a word, components in some steps and averaged, schedule and mask.

    shown: the attention of some steps or averages, each with what is to be written beside it.
    words: whose words' heat maps are drawn.
    """
    first = [Tile(to_pixels(picture), "the picture")]
    if mask is not None:
        first.append(Tile(heat(picture, mask[0, 0].cpu()), "where latents may change"))
    heats = [Tile(heat(picture, values), word) for word, values in words.words.items()]
    rows = [
        Row("", first),
        *_wrapped("cross-attention of each word, average of all steps", heats, 6),
    ]
    for name, attention in shown:
        tiles = [
            Tile(pixels, f"component {number}")
            for number, pixels in enumerate(component_pictures(attention, 6), start=1)
        ]
        rows.append(Row(f"self-attention, {name}", tiles))
    sheet = contact_sheet(rows, side=SIDE, title=title)
    if schedule is None:
        return sheet
    return np.concatenate([sheet, schedule_strip(schedule, sheet.shape[1])])


def sweep_sheet(
    pictures: Sequence[Pixels],
    grid: Sequence[Cell],
    axes: tuple[Axis | None, Axis],
    title: str,
    marks: Mapping[str, Sequence[float]] | None = None,
) -> Page:
    """The cells of a sweep as a grid, each under the number it was made with.

    marks: numbers of the cells by name, written below them; and drawn as curves over each axis,
    averaged over the other one.
    """
    rows, columns = axes
    found: list[Row] = []
    for row in range(1 + max(cell.row for cell in grid)):
        here = [n for n, cell in enumerate(grid) if cell.row == row]
        tiles = [Tile(pictures[n], _label(columns, grid, n, marks or {})) for n in here]
        heading = [f"{_short(rows)} {rows.values[row]}"] if rows else []
        found.append(Row("; ".join([*heading, *filter(None, [", ".join(marks or {})])]), tiles))
    sheet = contact_sheet(found, side=SIDE, title=title)
    charts = [
        chart([_curves(axis, grid, places, marks)], _short(axis), sheet.shape[1])
        for axis, places in (
            (rows, [cell.row for cell in grid]),
            (columns, [cell.column for cell in grid]),
        )
        if marks and axis is not None
    ]
    return np.concatenate([sheet, *charts])


def _label(axis: Axis, grid: Sequence[Cell], n: int, marks: Mapping[str, Sequence[float]]) -> str:
    """What is written below a cell."""
    said = ", ".join(f"{values[n]:.2f}" for values in marks.values())
    return f"{_short(axis)} {axis.values[grid[n].column]}{':  ' if said else ''}{said}"


def _curves(
    axis: Axis, grid: Sequence[Cell], places: Sequence[int], marks: Mapping[str, Sequence[float]]
) -> list[Curve]:
    """Each mark over an axis in steps; places: which of its values each cell has."""
    steps = [v if isinstance(v, int) else v * grid[0].settings.steps for v in axis.values]
    curves: list[Curve] = []
    for name, values in marks.items():
        by_value = [
            [value for value, at in zip(values, places, strict=True) if at == place]
            for place in range(len(axis.values))
        ]
        means = [sum(some) / len(some) for some in by_value]
        curves.append(Curve(name, sorted(zip(steps, means, strict=True))))
    return curves


def _short(axis: Axis) -> str:
    return option(axis.name)[2:].removesuffix("-steps")


def _wrapped(heading: str, tiles: list[Tile], width: int) -> list[Row]:
    return [
        Row(heading if start == 0 else "", tiles[start : start + width])
        for start in range(0, len(tiles), width)
    ]


def _coloured(values: Float[Tensor, "h w"]) -> Float[np.ndarray, "h w 3"]:
    """0 to 1 from dark blue over red to pale yellow, evenly lighter."""
    stops = torch.tensor(
        [[12, 18, 60], [92, 30, 122], [190, 50, 88], [240, 130, 50], [252, 240, 180]]
    ).float()
    place = values.float().cpu().clamp(0, 1) * (len(stops) - 1)
    low = place.floor().long().clamp(max=len(stops) - 2)
    share = (place - low)[..., None]
    return (stops[low] * (1 - share) + stops[low + 1] * share).numpy()
