"""`understudy sweep`: what each number of swapped steps does, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import casting, results, show, stage
from understudy.cli.options import count_or_share, knobs
from understudy.errors import InputError
from understudy.settings import RunSettings, SwapSettings
from understudy.settings.marks import MarkSettings

if TYPE_CHECKING:
    from understudy.invert.source import Parts
    from understudy.models.interface import DiffusionModel
    from understudy.pictures.photo import Pixels
    from understudy.settings import InvertSettings
    from understudy.swap.sweep import Axis, Cell

MARKS = ("identity", "layout")  # of the actor, of the photo; 1 is all of it


@knobs
def sweep(
    prompt: Annotated[
        str, typer.Option(help="Prompt that describes the photo, subjects included.")
    ],
    swap: Annotated[list[str], typer.Option(help="WORD=CONCEPT, like cat=rex; may be repeated.")],
    settings: SwapSettings,
    run: RunSettings,
    provenance: MarkSettings,
    photo: casting.PhotoOption = None,
    seed: casting.SeedOption = None,
    vary: Annotated[
        list[str],
        typer.Option(
            help="KNOB=V1,V2,.. of self-output, self-map, cross-map; once for a row, twice for a "
            "grid (rows, then columns). Without it: self-output by cross-map."
        ),
    ] = [],  # noqa: B006
    method: casting.MethodOption = "null-text",
    mask: casting.MaskOption = None,
    photos: casting.PhotosOption = None,
    out: results.OutOption = Path("sweep.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Swap with a grid of step counts.

    The cells share the source and all steps for which their schedules agree. If a scorer is
    available for the model, identity and layout are drawn as curves as well.
    """
    results.check_place(out)
    if len(vary) > 2:
        raise InputError(f"--vary can be given once or twice. Got {len(vary)} of them.")
    cast = casting.cast_of(swap, prompt, photo)
    from understudy.swap.figures import sweep_sheet
    from understudy.swap.sweep import cells, trade_off

    axes = [_axis(text) for text in vary] or list(trade_off(settings.steps))
    rows, columns = (axes[0], axes[1]) if len(axes) == 2 else (None, axes[0])
    grid = cells(settings, rows, columns)
    model = stage.load_model(run)
    source = casting.source_of(model, photo, seed, prompt, mask)
    asked = casting.asked_inversion(method, settings, run)
    swept = _swept(model, cast, source, asked, grid, settings.keep, photos)
    facts: dict[str, object] = {"prompt": prompt, "target_prompt": cast.target, "swap": swap}
    facts |= {"vary": vary, **swept.marks}
    files = (*source.ingredients, *cast.dress.ingredients)
    recipe = stage.made_by(
        "sweep", model, (settings, run), arguments=facts, ingredients=files, seed=seed
    )
    title = f'"{prompt}"  to  "{cast.target}"'
    sheet = sweep_sheet(swept.pictures, grid, (rows, columns), title, swept.marks)
    results.write_edited(out, sheet, recipe, provenance, photo=photo, keeps_photo=True)
    told = f"{out}   {len(grid)} swaps in {swept.rows['swaps']} rows"
    show.result({"picture": str(out), "cells": len(grid), "rows": swept.rows, **facts}, json, told)


@dataclass(frozen=True)
class Swept:
    """The cells' pictures, the U-Net rows they took, and how they were judged, if they were."""

    pictures: list[Pixels]
    rows: dict[str, int]
    marks: dict[str, list[float]]


def _swept(
    model: DiffusionModel,
    cast: casting.Cast,
    source: casting.Source,
    asked: InvertSettings,
    grid: Sequence[Cell],
    keep: float,
    photos: Path | None,
) -> Swept:
    """Invert, swap every cell, and judge what came out."""
    from torch import cat

    from understudy.pictures.tensors import to_pixels
    from understudy.swap.photoswap import parts_read
    from understudy.swap.sweep import sweep_steps

    def parts(index: int) -> Parts:
        return frozenset(part for cell in grid for part in parts_read(cell.settings, index))

    before = model.rows
    with casting.staged(model, cast, source, asked, parts, keep) as (inversion, features):
        spent = model.rows
        steps = sweep_steps(
            model,
            inversion,
            source.prompt,
            cast.target,
            grid,
            words=cast.roles,
            mask=source.mask,
            features=features,
        )
        last = show.last(steps, f"Swapping {len(grid)} ways")
        cost = {"inversion": spent - before, "swaps": model.rows - spent}
        shown = [stage.decoded(model, one).cpu() for one in last.target.split(1)]
        jury = casting.jury(model, asked.guidance, source, cast, photos)
    marks = dict[str, list[float]]()
    if jury is not None:
        for name, seen in zip(MARKS, jury.seen(cat(shown)), strict=True):
            marks[name] = [round(value, 3) for value in seen.tolist()]
    return Swept([to_pixels(picture) for picture in shown], cost, marks)


def _axis(text: str) -> Axis:
    """ "cross-map=0,10,0.8" as an axis."""
    from understudy.swap.sweep import Axis

    name, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise InputError(f"--vary must be KNOB=V1,V2,.. like cross-map=0,10,20. Got {text!r}.")
    knob = name.strip().removesuffix("-steps").replace("-", "_") + "_steps"
    return Axis(knob, tuple(count_or_share(value.strip()) for value in values.split(",")))
