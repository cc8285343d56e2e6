"""The job `sweep`: swaps with a grid of step counts, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, cat

from understudy.concept import applied
from understudy.errors import InputError
from understudy.files.cache import Cache
from understudy.invert.source import Parts
from understudy.jobs.comparison import scorer_of
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.framing import Wanted
from understudy.jobs.results import recipe_of, write_edited
from understudy.jobs.source import (
    InputPicture,
    Inverted,
    inversions,
    inverted,
    source_of,
)
from understudy.jobs.subjects import SwapSubjects, checked_swap
from understudy.jobs.swap import located
from understudy.jobs.words import check_negative_prompt
from understudy.jobs.work import Work, decoded
from understudy.models.interface import DiffusionModel
from understudy.pictures.photo import Pixels
from understudy.pictures.tensors import to_pixels
from understudy.settings import InvertSettings, RunSettings, SwapSettings
from understudy.settings.inputs import SweepInputs
from understudy.settings.knobs import count_or_share
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import sweep_inversion
from understudy.swap.blending import check_background
from understudy.swap.figures import sweep_sheet
from understudy.swap.photoswap import parts_read
from understudy.swap.sweep import Axis, Cell, cells, sweep_steps, trade_off
from understudy.transfer.texts import check_read

MARKS = ("identity", "layout")  # of the concept, of the photo; 1 is all of it


def sweep(
    work: Work,
    settings: SwapSettings,
    run: RunSettings,
    invert: InvertSettings | None = None,
    marks: MarkSettings | None = None,
    *,
    given: SweepInputs,
) -> Events[Result]:
    """Swap with many numbers of steps at once, and draw the grid."""
    if len(given.vary) > 2:
        raise InputError(f"--vary can be given once or twice. Got {len(given.vary)} of them.")
    axes = [_axis(text) for text in given.vary] or list(trade_off(settings.steps))
    rows, columns = (axes[0], axes[1]) if len(axes) == 2 else (None, axes[0])
    grid = cells(settings, rows, columns)
    subjects, selected = checked_swap(work, given)
    asked = invert or sweep_inversion(settings, run.model)
    check_negative_prompt(settings.negative, asked)
    with work.model(run) as model:
        wanted = Wanted(
            given.region, given.prompt, (subjects.target,), subjects.concepts, words=subjects.words
        )
        source = source_of(work, model, given, selected, wanted)
        shown = None if given.photos is None else work.photos(given.photos, model.picture_size)
        cache = inversions(work)
        swept = yield from _swept(
            model, subjects, source, asked, grid, settings.features, shown, cache=cache
        )
        facts = {"prompt": given.prompt, "target_prompt": subjects.target, "swap": given.swap}
        facts |= {"vary": given.vary}
        facts |= swept.marks
        said = {**facts, "cache": swept.inverted.found}
        recipe = recipe_of(work, model, settings, run, asked, facts=said, seed=given.seed)
    out, title = given.out, f'"{given.prompt}"  to  "{subjects.target}"'
    sheet = sweep_sheet(swept.pictures, grid, (rows, columns), title, swept.marks)
    write_edited(out, sheet, recipe, marks, photo=given.photo, keeps_photo=True)
    swept.inverted.save_features(asked.guidance)
    told = f"{out}   {len(grid)} swaps in {swept.nfe['swaps']} network evaluations"
    values = {"picture": str(out), "cells": len(grid), "evaluations": swept.nfe, **facts}
    return Result(values, (told,), (str(out),))


@dataclass(frozen=True)
class Swept:
    """The cells' pictures, the network evaluations they took, their scores, the inverted source."""

    pictures: list[Pixels]
    nfe: dict[str, int]
    marks: dict[str, list[float]]
    inverted: Inverted


def _swept(
    model: DiffusionModel,
    subjects: SwapSubjects,
    source: InputPicture,
    asked: InvertSettings,
    grid: Sequence[Cell],
    room: float,
    photos: Tensor | None,
    *,
    cache: Cache,
) -> Events[Swept]:
    """Invert, swap every cell, and score what came out."""

    def parts(index: int) -> Parts:
        return frozenset(part for cell in grid for part in parts_read(cell.settings, index))

    before, first = model.nfe, grid[0].settings
    check_read(model, first.guidance, first.negative)
    check_background(model, first)
    source = located(model, source, subjects, first)
    with applied(model, *subjects.concepts):
        found = yield from inverted(model, source, asked, cache=cache, parts=parts, room=room)
        spent = model.nfe
        steps = sweep_steps(
            model,
            found.source(source.picture, source.subject),
            subjects.wanted(source.mask),
            grid,
        )
        last = yield from watched(
            steps,
            f"Swapping {len(grid)} ways",
            kept=lambda: found.kept,
            picture=lambda step: decoded(model, step.clean),
        )
        cost = {"inversion": spent - before, "swaps": model.nfe - spent}
        shown = [decoded(model, one).cpu() for one in last.target.split(1)]
        scorer = scorer_of(model, grid[0].settings, source, subjects, photos)
    marks = dict[str, list[float]]()
    if scorer is not None:
        for name, seen in zip(MARKS, scorer.seen(cat(shown)), strict=True):
            marks[name] = [round(value, 3) for value in seen.tolist()]
    return Swept([to_pixels(picture) for picture in shown], cost, marks, found)


def _axis(text: str) -> Axis:
    """ "cross-map=0,10,0.8" as an axis."""
    name, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise InputError(f"--vary must be NAME=V1,V2,.. like cross-map=0,10,20. Got {text!r}.")
    knob = name.strip().removesuffix("-steps").replace("-", "_") + "_steps"
    return Axis(knob, tuple(count_or_share(value.strip()) for value in values.split(",")))
