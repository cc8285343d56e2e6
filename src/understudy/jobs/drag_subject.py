"""One subject of a drag: what it starts from, the drag itself, and the photo it goes back into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, no_grad

from understudy.drag.points import read_pairs
from understudy.drag.raft import raft_tracker
from understudy.drag.session import DragSession, DragStep
from understudy.drag.tracking import Tracker
from understudy.errors import InputError, sentence
from understudy.generators.folder import stylegan2
from understudy.generators.interface import ImageGenerator
from understudy.jobs.events import Events, watched
from understudy.jobs.results import write_edited, write_generated
from understudy.jobs.work import Work
from understudy.pictures.photo import Pixels, read_photo
from understudy.pictures.recipe import Recipe
from understudy.pictures.tensors import mask_doubts, read_mask, to_tensor
from understudy.project.align import Square
from understudy.project.latent import Latent
from understudy.project.put_back import put_back
from understudy.settings.drag import DragSettings
from understudy.settings.inputs import DragInputs
from understudy.settings.marks import MarkSettings


@dataclass(frozen=True)
class Begin:
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

    def checked(self) -> None:
        """Raise before a model is loaded what photo, latent and points are to blame for."""
        _ = self.frame
        read_pairs(self.given.points)

    def dragged(
        self, work: Work, settings: DragSettings
    ) -> Events[tuple[ImageGenerator, DragStep]]:
        """Drag to the end: the generator, and the last step."""
        model, begun = self.session(work, settings)
        steps = begun.run(model, tracker=self.follower(model))
        last = yield from _followed(model, steps, self.given.save)
        if last.note:
            work.note(f"The drag ran without a CUDA graph: {sentence(last.note)}")
        return model, last

    def framed(
        self, model: ImageGenerator, done: DragSession, photo: Tensor | None = None
    ) -> Tensor:
        """The result: the generator's picture, or the photo with the edit in it.

        photo: with the edits of other subjects; None = as it is in its file.
        """
        edited = picture_of(model, done.latent)
        if self.frame is None or self.projected is None:
            return edited
        (pixels, square), before = self.frame, picture_of(model, self.projected.ws)
        whole = to_tensor(pixels) if photo is None else photo
        return put_back(whole, before.cpu(), edited.cpu(), square)

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
        self.checked()
        pairs = read_pairs(self.given.points)
        begun = None if self.given.session is None else DragSession.load(self.given.session)
        model: ImageGenerator = work.generator(given.generator, given.device, given.dtype)
        if self.projected is not None:
            model, ws = self.projected.tuned(stylegan2(model)), self.projected.ws
        else:
            ws = model.latents(model.draw_z(self.given.seed or 0), truncation=settings.truncation)
        if begun is not None:
            return model, begun.with_pairs(pairs) if pairs else begun
        mask = _mask(work, self.given.mask)
        return model, DragSession.begin(model, ws, pairs, mask=mask, settings=settings)


def _followed(
    model: ImageGenerator, steps: Iterator[DragStep], save: Path | None
) -> Events[DragStep]:
    """Drag to the end; a drag that is stopped before is saved, where it is to be saved."""
    seen: list[DragStep] = []

    def look(step: DragStep) -> None:
        seen[:] = [step]

    def picture(step: DragStep) -> Tensor:
        return picture_of(model, step.latent)

    kept = "A drag is only saved with --save FILE."
    if save is not None:
        kept = f"The drag so far is saved in {save}. To continue, use --session {save}."
    try:
        return (yield from watched(steps, "Dragging", look, kept=lambda: kept, picture=picture))
    except (KeyboardInterrupt, GeneratorExit):
        if save is not None and seen:
            seen[0].session.save(save)
        raise


def _mask(work: Work, path: Path | None) -> Tensor | None:
    """A mask as it was drawn, at its own size, "1 1 h w"."""
    if path is None:
        return None
    size = read_photo(path).size
    work.note(*mask_doubts(path))
    return read_mask(path, size, size)


def picture_of(model: ImageGenerator, latent: Tensor) -> Tensor:
    with no_grad():
        return model.pictures(latent.to(model.device)).clamp(-1, 1)
