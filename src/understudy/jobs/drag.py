"""The job `drag`: points of a picture are moved to where they should be (DragGAN)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor, no_grad

from understudy.drag.film import check_film_name, frames, write_film
from understudy.drag.points import read_pairs
from understudy.drag.raft import raft_tracker
from understudy.drag.session import DragSession, DragStep
from understudy.drag.tracking import Tracker
from understudy.errors import InputError
from understudy.files.atomic import check_writable
from understudy.generators.folder import stylegan2
from understudy.generators.interface import ImageGenerator
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.results import check_place, recipe_of, write_edited, write_generated
from understudy.jobs.work import Work
from understudy.pictures.photo import Pixels, read_photo
from understudy.pictures.recipe import Recipe
from understudy.pictures.tensors import read_mask, to_tensor
from understudy.project.align import Square
from understudy.project.latent import Latent
from understudy.project.put_back import put_back
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
    _check_places(out, save, film, others := _seeds(given.also))
    _check_tracker(given.tracker, given.tracker_weights)
    begin = _Begin(given)
    model, begun = begin.session(work, settings)
    steps = begun.run(model, tracker=begin.follower(model))
    last = yield from _followed(model, steps, save)
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


def _followed(
    model: ImageGenerator, steps: Iterator[DragStep], save: Path | None
) -> Events[DragStep]:
    """Drag to the end; a drag that is stopped before is saved, where it is to be saved."""
    seen: list[DragStep] = []

    def look(step: DragStep) -> None:
        seen[:] = [step]

    def picture(step: DragStep) -> Tensor:
        return _picture(model, step.latent)

    kept = "A drag is only saved with --save FILE."
    if save is not None:
        kept = f"The drag so far is saved in {save}. To continue, use --session {save}."
    try:
        return (yield from watched(steps, "Dragging", look, kept=lambda: kept, picture=picture))
    except (KeyboardInterrupt, GeneratorExit):
        if save is not None and seen:
            seen[0].session.save(save)
        raise


def _told(out: Path, last: DragStep, files: list[Path]) -> Result:
    """How the drag went."""
    left, stop = sum(last.left) / len(last.left), last.session.stop
    told = {"picture": str(out), "stop": stop, "steps": last.index, "left": left}
    told |= {"points": [list(point) for point in last.points]}
    line = f"{out}   {DRAG_ENDS[stop].format(steps=last.index)}, {left:.1f} px left"
    others = [str(file) for file in files if file != out]
    return Result(told, (line, *others), tuple(map(str, files)))


@dataclass(frozen=True)
class _Begin:
    """What a drag starts from: a seed, a latent file or a session; points; a mask."""

    given: DragInputs

    @cached_property
    def projected(self) -> Latent | None:
        """The content of --latent."""
        return None if self.given.latent is None else Latent.load(self.given.latent)

    @cached_property
    def frame(self) -> tuple[Pixels, Square] | None:
        """The photo that the edit goes back into, and which part of it the latent draws.

        Raises InputError for a photo that the latent was not cut from, as far as can be told.
        """
        if self.given.into is None:
            return None
        if self.projected is None:
            raise InputError("--into needs the --latent of the projected photo.")
        opened, (square, known) = read_photo(self.given.into), self.projected.place()
        if opened.size != known:
            raise InputError(
                f"{self.given.into} has {opened.size[1]} x {opened.size[0]} pixels, the photo that "
                f"was projected {known[1]} x {known[0]}. Give the photo itself."
            )
        return opened.pixels, square

    def framed(self, model: ImageGenerator, done: DragSession) -> Tensor:
        """The result: the generator's picture, or the photo with the edit in it."""
        edited = _picture(model, done.latent)
        if self.frame is None or self.projected is None:
            return edited
        (pixels, square), before = self.frame, _picture(model, self.projected.ws)
        return put_back(to_tensor(pixels), before.cpu(), edited.cpu(), square)

    def write(self, out: Path, picture: Tensor, recipe: Recipe, marks: MarkSettings | None) -> None:
        """The result with its marks: an edited photo if the latent is a projected one's."""
        if self.given.latent is None:
            return write_generated(out, picture, recipe, marks)
        kept = self.given.into is not None
        write_edited(out, picture, recipe, marks, photo=self.given.into, keeps_photo=kept)

    def follower(self, model: ImageGenerator) -> Tracker | None:
        """The tracker of the handles; None = nearest features."""
        if self.given.tracker_weights is None:
            return None
        return raft_tracker(self.given.tracker_weights, model.device)

    def read(self, work: Work) -> None:
        """Put the files into the recipe."""
        files = {
            "mask": self.given.mask,
            "latent": self.given.latent,
            "session": self.given.session,
        }
        files |= {"tracker": self.given.tracker_weights, "photo": self.given.into}
        for role, path in files.items():
            if path is not None:
                work.used(role, path)

    def session(self, work: Work, settings: DragSettings) -> tuple[ImageGenerator, DragSession]:
        """The generator and the drag, ready to run."""
        given = self.given
        others = self.given.latent is not None or self.given.session is not None
        if (self.given.seed is not None) == others:
            raise InputError("Give one of --seed, --latent, --session: the picture to drag.")
        if self.given.session is not None and self.given.mask is not None:
            raise InputError("A session has its own mask. Leave out --mask.")
        _ = self.frame  # or an error, before a model is loaded
        pairs = read_pairs(self.given.points)
        begun = None if self.given.session is None else DragSession.load(self.given.session)
        model: ImageGenerator = work.generator(given.generator, given.device, given.dtype)
        if self.projected is not None:
            model, ws = self.projected.tuned(stylegan2(model)), self.projected.ws
        else:
            ws = model.latents(model.draw_z(self.given.seed or 0), truncation=settings.truncation)
        if begun is not None:
            return model, begun.with_pairs(pairs) if pairs else begun
        mask = _mask(self.given.mask)
        return model, DragSession.begin(model, ws, pairs, mask=mask, settings=settings)


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
        write_generated(file, _picture(model, done.applied(ws)), copied, marks)
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


def _check_places(out: Path, save: Path | None, film: Path | None, others: list[int]) -> None:
    """Raise before minutes of work what would be raised after them."""
    if film is not None:
        check_film_name(film)
    for path in (out, *(_beside(out, other) for other in others)):
        check_place(path)
    for path in (save, film):
        if path is not None:
            check_writable(path)


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


def _mask(path: Path | None) -> Tensor | None:
    """A mask as it was drawn, at its own size, "1 1 h w"."""
    if path is None:
        return None
    size = read_photo(path).size
    return read_mask(path, size, size)


def _picture(model: ImageGenerator, latent: Tensor) -> Tensor:
    with no_grad():
        return model.pictures(latent.to(model.device)).clamp(-1, 1)
