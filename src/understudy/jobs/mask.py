"""The job `mask`: what a selection finds in a photo, as a mask and as a picture of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from understudy.errors import InputError
from understudy.jobs.events import Events, Progress, Result
from understudy.jobs.results import UNSIGNED, check_place, recipe_of
from understudy.jobs.selecting import Selected, as_pixels, found
from understudy.jobs.work import Work
from understudy.masks.selection import Selection
from understudy.pictures import xmp
from understudy.pictures.marks import Origin, write_result
from understudy.pictures.photo import Pixels
from understudy.pictures.region import mask_box
from understudy.settings import RunSettings

DIMMED = 0.25  # brightness of what is not selected


def mask(
    work: Work,
    run: RunSettings,
    *,
    photo: Path,
    select: list[str],
    out: Path,
    prompt: str | None = None,
    sam: Path | None = None,
    view: Path | None = None,
) -> Events[Result]:
    """Write the mask of a selection, and with `view` the photo with all else dimmed."""
    check_place(out, work)
    if view is not None:
        check_place(view, work)
    if not select:
        raise InputError("--select must name a word, a point X,Y or a box X,Y,W,H.")
    selected = Selected(None, select, sam).checked(photo)
    selection = Selection.of(select)
    said = prompt or f"a photo of a {' and a '.join(selection.words)}".removesuffix(" a ")
    opened = work.photo(photo)
    yield Progress("Finding the subject", 0, 1)
    with work.model(run) as model:
        shape = found(work, model, opened, said, selected)
        facts = {"prompt": said, "select": select}
        recipe = recipe_of(work, model, run, facts=facts)
    origin = Origin(xmp.COMPOSITE, photo, True)
    write_result(out, as_pixels(shape), recipe, origin, UNSIGNED)
    files = (str(out),)
    if view is not None:
        write_result(view, dimmed(opened.pixels, shape), recipe, origin, UNSIGNED)
        files = (*files, str(view))
    x, y, width, height = mask_box(shape)
    share = float((shape > 0.5).mean())
    values = {"mask": str(out), "box": [x, y, width, height], "share": round(share, 4)}
    line = f"{out}   {share:.1%} of the photo, in the box {x},{y},{width},{height}"
    return Result({**values, "select": select, "prompt": said}, (line, *files[1:]), files)


def dimmed(pixels: Pixels, shape: np.ndarray) -> Pixels:
    """The photo with all outside the mask darkened."""
    level = DIMMED + (1 - DIMMED) * shape[..., None]
    return np.rint(pixels * level).astype(np.uint8)
