"""`understudy check`: checks a folder of photos before learning."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show
from understudy.cli.results import JsonOption
from understudy.errors import InputError, one_line
from understudy.jobs.work import STORE
from understudy.settings import LEARN_METHODS

if TYPE_CHECKING:
    from understudy.preflight import Finding, PreflightReport, Requirements

GB = 10**9


def check(
    photos: Annotated[Path, typer.Argument(help="A folder with photos of the subject.")],
    model: Annotated[str, typer.Option(help="The model to learn with.")] = "toybox",
    method: Annotated[str, typer.Option(help="The learning method.")] = "dreambooth",
    clip_model: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of a CLIP model, which proposes the class noun."),
    ] = None,
    crop_to: Annotated[
        str | None,
        typer.Option(
            help="Propose crops around the subject of this word, like those of learn --crop-to."
        ),
    ] = None,
    buckets: Annotated[
        bool, typer.Option(help="Whether learning trains each photo at its own aspect ratio.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Check photos before learning from them.

    Reads every file and warns of what would harm learning. In the table, cut is the share of a
    photo that is cropped away, and sharp its sharpness; below 0.12 it is called blurred. Loads no
    model except CLIP, if given, and the model that finds crops.
    """
    if method not in LEARN_METHODS:
        raise InputError(f"--method must be one of {', '.join(LEARN_METHODS)}. Got {method!r}.")
    from understudy.jobs.photos import looker, nouns, preflight

    report = preflight(photos, model, method, STORE, buckets)
    show.note(*report.notes)
    found, told = report.to_dict(), lines(report)
    if clip_model and any(one.error is None for one in report.photos):
        proposed = nouns(photos, looker(clip_model))
        found |= {"nouns": dict(proposed)}
        told.append("class: " + ", ".join(f"{noun} {share:.0%}" for noun, share in proposed))
    if crop_to:
        from understudy.jobs.training_photos import crops

        proposed = crops(photos, model, crop_to)
        found |= {"crops": {name: list(box) for name, box in proposed.items()}}
        told += [f"crop {name} to {','.join(map(str, box))}" for name, box in proposed.items()]
        if proposed:
            told.append(f"learn --crop-to {shlex.quote(crop_to)} makes these crops")
        else:
            told.append(f"no photo would benefit from a crop around the {crop_to}")
    show.result(found, json, *told)
    report.refuse()


def lines(report: PreflightReport) -> list[str]:
    """The report as a table, and below it what speaks against learning from these photos."""
    width = max([len(one_line(one.file)) for one in report.photos] + [5])
    head = f"{'photo':<{width}}  {'width':>5} {'height':>6}  {'cut':>4}  {'sharp':>5}  remarks"
    rows = [head, *(_row(one, width) for one in report.photos), ""]
    rows += [f"warning: {word}" for word in report.warnings]
    rows += _needs(report.needs) if report.needs else []
    bad = sum(one.error is not None for one in report.photos)
    count, doubts = len(report.photos), len(report.all_warnings)
    return [*rows, f"{count} photos, {bad} of them unusable, {doubts} warnings"]


def _row(one: Finding, width: int) -> str:
    name = one_line(one.file)
    if one.error:
        return f"{name:<{width}}  {'':>25}  UNUSABLE: {one.error}"
    height, across = one.size
    sizes = f"{across:>5} {height:>6}  {one.cut:>4.0%}  {one.sharpness:>5.2f}"
    remarks = one_line("; ".join((*one.warnings, *one.notes)))
    return f"{name:<{width}}  {sizes}  {remarks}".rstrip()


def _needs(needs: Requirements) -> list[str]:
    def among(free: int | None) -> str:
        return "" if free is None else f" of {free / GB:.1f} GB free"

    return [
        f"memory: at least {needs.memory / GB:.2f} GB{among(needs.memory_free)}: weights and "
        "optimiser (activations not counted)",
        f"disk: {needs.disk / GB:.2f} GB{among(needs.disk_free)} for concept and checkpoints",
    ]
