"""The job `drag`: points of a picture, or of several subjects of a photo, are moved (DragGAN)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from understudy.drag.film import check_film_name, frames, write_film
from understudy.drag.session import DragSession, DragStep
from understudy.errors import InputError
from understudy.files.atomic import check_writable
from understudy.generators.interface import ImageGenerator
from understudy.jobs.drag_subject import Begin, picture_of
from understudy.jobs.events import Events, Result
from understudy.jobs.results import check_place, recipe_of, write_generated
from understudy.jobs.work import Work
from understudy.pictures.recipe import Recipe
from understudy.pictures.tensors import to_tensor
from understudy.settings.drag import DragSettings
from understudy.settings.inputs import DragInputs
from understudy.settings.marks import MarkSettings

DRAG_ENDS = {  # by `Session.stop`
    "reached": "arrived after {steps} steps",
    "cap": "ended at the limit of {steps} steps (--steps)",
    "stalled": "stopped after {steps} steps without progress",
    "stopped": "stopped after {steps} steps",
}


def drag(
    work: Work,
    settings: DragSettings,
    provenance: MarkSettings | None = None,
    *,
    given: DragInputs,
) -> Events[Result]:
    """Drag points of the picture of a seed, of a projected photo, or of a saved session."""
    out, save, film = given.out, given.save, given.film
    _check_places(work, given, others := _seeds(given.also))
    _check_tracker(given.tracker, given.tracker_weights)
    if given.other_latent or given.other_points:
        return (yield from _several(work, settings, provenance, given))
    begin = Begin(given)
    model, last = yield from begin.dragged(work, settings)
    done = last.session
    begin.read(work)
    facts: dict[str, object] = {"points": given.points, "tracker": given.tracker}
    facts |= {"stop": done.stop, "steps": done.state.step}
    recipe = recipe_of(work, model, settings, facts=facts, seed=given.seed)
    recipe = replace(recipe, settings=done.settings.to_dict())
    begin.write(out, begin.framed(model, done), recipe, provenance)
    files = [out, *_write_others(model, done, others, out, recipe, provenance)]
    if film is not None:
        write_film(film, frames(done, model, given.marks))
        files.append(film)
    if save is not None:
        done.save(save)
        files.append(save)
    return _told(out, last, files)


def _several(
    work: Work, settings: DragSettings, provenance: MarkSettings | None, given: DragInputs
) -> Events[Result]:
    """Drag several projected subjects of a photo one after the other, each by its own points, and
    put each into the photo with those before it."""
    photo, begins, out = *_subjects(given), given.out
    picture, ends = to_tensor(work.photo(photo).pixels), list[DragStep]()
    for begin in begins:
        model, last = yield from begin.dragged(work, settings)
        picture = begin.framed(model, last.session, picture)
        ends.append(last)
    begins[0].read(work)
    for path in given.other_latent:
        work.used("other_latent", path)
    told = {"stop": [one.session.stop for one in ends], "steps": [one.index for one in ends]}
    facts = {"points": given.points, "other_points": given.other_points, "tracker": given.tracker}
    model = work.generator(given.generator, given.device, given.dtype)
    recipe = recipe_of(work, model, settings, facts={**facts, **told})
    begins[0].write(out, picture, recipe, provenance)
    left = [sum(one.left) / len(one.left) for one in ends]
    lines = [
        f"subject {n}: {DRAG_ENDS[one.session.stop].format(steps=one.index)}, {far:.1f} px left"
        for n, (one, far) in enumerate(zip(ends, left, strict=True), start=1)
    ]
    return Result({"picture": str(out), **told, "left": left}, (str(out), *lines), (str(out),))


def _subjects(given: DragInputs) -> tuple[Path, list[Begin]]:
    """The photo, and what each of several drags starts from.

    Raises InputError for options that go with one drag, and for a latent of another photo.
    """
    if given.into is None or given.latent is None:
        raise InputError("--other-latent needs --latent and --into: the photo of all subjects.")
    if len(given.other_latent) != len(given.other_points):
        raise InputError(
            "Each --other-latent needs its own --other-points. Got "
            f"{len(given.other_latent)} latents and {len(given.other_points)} lists of points."
        )
    single = {"--film": given.film, "--save": given.save, "--session": given.session}
    single |= {"--also": given.also}
    if extra := [name for name, value in single.items() if value]:
        raise InputError(f"{extra[0]} is for one subject. Leave it out, or --other-latent.")
    others = zip(given.other_latent, given.other_points, strict=True)
    begins = [Begin(given)]
    begins += [Begin(replace(given, latent=file, points=text, mask=None)) for file, text in others]
    for begin in begins:
        begin.checked()
    return given.into, begins


def _told(out: Path, last: DragStep, files: list[Path]) -> Result:
    """How the drag went."""
    left, stop = sum(last.left) / len(last.left), last.session.stop
    told = {"picture": str(out), "stop": stop, "steps": last.index, "left": left}
    told |= {"points": [list(point) for point in last.points]}
    line = f"{out}   {DRAG_ENDS[stop].format(steps=last.index)}, {left:.1f} px left"
    others = [str(file) for file in files if file != out]
    return Result(told, (line, *others), tuple(map(str, files)))


def _write_others(
    model: ImageGenerator,
    done: DragSession,
    seeds: list[int],
    out: Path,
    recipe: Recipe,
    marks: MarkSettings | None,
) -> list[Path]:
    """The same edit on other seeds, each beside `out`; the files."""
    files = [_beside(out, seed) for seed in seeds]
    for number, (file, seed) in enumerate(zip(files, seeds, strict=True), start=1):
        ws = model.latents(model.draw_z(seed), truncation=done.settings.truncation)
        facts = {**recipe.arguments, "edit_of": recipe.seed}
        copied = replace(recipe, seed=seed, arguments=facts, output=number)
        write_generated(file, picture_of(model, done.applied(ws)), copied, marks)
    return files


def _check_tracker(tracker: str, weights: Path | None) -> None:
    """Raise InputError for a tracker that there is not, or weights that it does not take."""
    if tracker not in ("features", "raft"):
        raise InputError(f"--tracker must be features or raft. Got {tracker!r}.")
    if tracker == "raft" and weights is None:
        raise InputError("--tracker raft needs --tracker-weights: a file of torchvision's weights.")
    if tracker != "raft" and weights is not None:
        raise InputError("--tracker-weights needs --tracker raft.")
    if weights is not None and not weights.is_file():
        raise InputError(f"There is no file {weights}. --tracker-weights must be a local file.")


def _check_places(work: Work, given: DragInputs, others: list[int]) -> None:
    """Raise before minutes of work what would be raised after them."""
    out, save, film = given.out, given.save, given.film
    if film is not None:
        check_film_name(film)
    for path in (out, *(_beside(out, other) for other in others)):
        check_place(path, work)
    for path in (save, film):
        if path is not None:
            check_writable(path)
            work.writes(path)


def _seeds(text: str) -> list[int]:
    """ "4,5,6" -> the seeds."""
    try:
        seeds = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"--also must be seeds like 4,5,6. Got {text!r}.") from error
    if any(not 0 <= seed < 2**32 for seed in seeds):
        raise InputError(f"--also: a seed is from 0 to {2**32 - 1}. Got {text!r}.")
    return seeds


def _beside(out: Path, seed: int) -> Path:
    return out.with_name(f"{out.stem}-{seed}{out.suffix}")
