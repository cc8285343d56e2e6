"""`understudy drag`: points of a picture go where they should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show
from understudy.cli.options import knobs
from understudy.cli.results import OutOption, show_drag
from understudy.errors import InputError
from understudy.files.atomic import check_writable
from understudy.jobs import results
from understudy.settings import DTYPES
from understudy.settings.drag import DragSettings
from understudy.settings.marks import MarkSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.drag.session import DragSession
    from understudy.drag.tracking import Tracker
    from understudy.generators.interface import ImageGenerator
    from understudy.pictures.photo import Pixels
    from understudy.pictures.recipe import Recipe
    from understudy.project.align import Square
    from understudy.project.latent import Latent

_Tracker = Annotated[str, typer.Option(help="How handles are tracked.", metavar="features|raft")]
_TrackerWeights = Annotated[
    Path | None, typer.Option(help="Weights file for --tracker raft (torchvision's raft_large).")
]


@knobs
def drag(
    *,
    generator: Annotated[str, typer.Option(help="toybox-gan, or a generator's folder.")] = (
        "toybox-gan"
    ),
    settings: DragSettings,
    provenance: MarkSettings,
    points: Annotated[
        str, typer.Option(help='Handles and targets in pixels: "64,80>64,95; 40,60>38,50".')
    ] = "",
    seed: Annotated[int | None, typer.Option(help="Seed of the picture to drag.")] = None,
    latent: Annotated[
        Path | None, typer.Option(help="A projected photo (file of `project`), instead of a seed.")
    ] = None,
    session: Annotated[Path | None, typer.Option(help="A saved drag to continue.")] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="The photo that --latent was made from; the change is pasted into it."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Mask of the same size; white may change.")
    ] = None,
    out: OutOption = Path("dragged.png"),
    film: Annotated[Path | None, typer.Option(help="Also write a film: .gif or .mp4.")] = None,
    marks: Annotated[
        bool, typer.Option("--marks/--no-marks", help="Draw handles and targets in the film.")
    ] = True,
    save: Annotated[
        Path | None, typer.Option(help="Also save the drag, to continue later with --session.")
    ] = None,
    also: Annotated[str, typer.Option(help="Apply the same edit to other seeds, like 4,5,6.")] = "",
    tracker: _Tracker = "features",
    tracker_weights: _TrackerWeights = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Precision of the high-resolution blocks.", metavar="|".join(DTYPES))
    ] = "float32",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Drag points of a picture to new positions (DragGAN).

    The picture comes from a --seed, from the --latent of a photo (see `project`), or from a saved
    --session, which continues with its own settings and, without --points, its own points. A
    session of a projected photo needs its --latent as well.
    """
    _check_places(out, save, film, others := _seeds(also))
    _check_tracker(tracker, tracker_weights)
    begin = _Begin(seed, latent, session, points, mask, tracker_weights, into)
    model, begun = begin.session(generator, settings, device, dtype)
    last = show.last(begun.run(model, tracker=begin.follower(model)), "Dragging")
    done = last.session
    facts = {"points": points, "stop": done.stop, "steps": done.state.step, "tracker": tracker}
    recipe = _recipe(model, done, facts, begin)
    begin.write(out, begin.framed(model, done), recipe, provenance)
    _write_others(model, done, others, out, recipe, provenance)
    if film is not None:
        _write_film(film, done, model, marks)
    if save is not None:
        done.save(save)
    show_drag(out, last, json)


@dataclass(frozen=True)
class _Begin:
    """What a drag begins with: one of a seed, a latent file and a session; points; a mask.

    raft: weights of the network that follows handles; None: their features do. photo: where the
    edit goes in the end.
    """

    seed: int | None
    latent: Path | None
    file: Path | None
    points: str
    mask: Path | None
    raft: Path | None
    photo: Path | None = None

    @cached_property
    def projected(self) -> Latent | None:
        """What --latent holds."""
        from understudy.project.latent import Latent

        return None if self.latent is None else Latent.load(self.latent)

    @cached_property
    def frame(self) -> tuple[Pixels, Square] | None:
        """The photo that the edit goes back into, and which part of it the latent draws.

        Raises InputError for a photo that the latent was not cut from, as far as can be told.
        """
        if self.photo is None:
            return None
        if self.projected is None:
            raise InputError("--into puts a projected photo back: give its --latent too.")
        from understudy.pictures.photo import read_photo

        opened, (square, known) = read_photo(self.photo), self.projected.place()
        if opened.size != known:
            raise InputError(
                f"{self.photo} has {opened.size[1]} x {opened.size[0]} pixels, the photo that was "
                f"projected {known[1]} x {known[0]}. Give the photo itself."
            )
        return opened.pixels, square

    def framed(self, model: ImageGenerator, done: DragSession) -> Tensor:
        """What the drag came to: the generator's picture, or the photo with the edit in it."""
        edited = _picture(model, done.latent)
        if self.frame is None or self.projected is None:
            return edited
        from understudy.pictures.tensors import to_tensor
        from understudy.project.put_back import put_back

        (pixels, square), before = self.frame, _picture(model, self.projected.ws)
        return put_back(to_tensor(pixels), before.cpu(), edited.cpu(), square)

    def write(self, out: Path, picture: Tensor, recipe: Recipe, marks: MarkSettings) -> None:
        """The result with its marks: an edited photo if the latent is a projected one's."""
        if self.latent is None:
            return results.write_generated(out, picture, recipe, marks)
        kept = self.photo is not None
        results.write_edited(out, picture, recipe, marks, photo=self.photo, keeps_photo=kept)

    def follower(self, model: ImageGenerator) -> Tracker | None:
        """What follows the handles, where features do not."""
        if self.raft is None:
            return None
        from understudy.drag.raft import raft_tracker

        return raft_tracker(self.raft, model.device)

    def session(
        self, generator: str, settings: DragSettings, device: str, dtype: str
    ) -> tuple[ImageGenerator, DragSession]:
        """The generator and the drag, ready to run."""
        others = self.latent is not None or self.file is not None
        if (self.seed is not None) == others:
            raise InputError("Give one of --seed, --latent, --session: the picture to drag.")
        if self.file is not None and self.mask is not None:
            raise InputError("A session keeps its own mask. Leave --mask out.")
        _ = self.frame  # or an error, before a model is loaded
        from understudy.drag.points import read_pairs
        from understudy.drag.session import DragSession
        from understudy.generators.folder import load_generator, stylegan2

        pairs = read_pairs(self.points)
        begun = None if self.file is None else DragSession.load(self.file)
        model = load_generator(generator, device=device, dtype=dtype)
        if self.projected is not None:
            model, ws = self.projected.tuned(stylegan2(model)), self.projected.ws
        else:
            ws = model.latents(model.draw_z(self.seed or 0), truncation=settings.truncation)
        if begun is not None:
            return model, begun.with_pairs(pairs) if pairs else begun
        mask = _mask(self.mask)
        return model, DragSession.begin(model, ws, pairs, mask=mask, settings=settings)


def _write_others(
    model: ImageGenerator,
    done: DragSession,
    seeds: list[int],
    out: Path,
    recipe: Recipe,
    marks: MarkSettings,
) -> None:
    """The same edit on other seeds, each beside `out`."""
    for seed in seeds:
        ws = model.latents(model.draw_z(seed), truncation=done.settings.truncation)
        copied = replace(recipe, seed=seed, arguments={**recipe.arguments, "edit_of": recipe.seed})
        picture = _picture(model, done.applied(ws))
        results.write_generated(_beside(out, seed), picture, copied, marks)


def _write_film(film: Path, done: DragSession, model: ImageGenerator, marks: bool) -> None:
    from understudy.drag.film import frames, write_film

    write_film(film, frames(done, model, marks))


def _check_tracker(tracker: str, weights: Path | None) -> None:
    """Raise InputError for a tracker that there is not, or weights that it does not take."""
    if tracker not in ("features", "raft"):
        raise InputError(f"--tracker must be features or raft. Got {tracker!r}.")
    if tracker == "raft" and weights is None:
        raise InputError("--tracker raft wants --tracker-weights: a file of torchvision's weights.")
    if tracker != "raft" and weights is not None:
        raise InputError("--tracker-weights are for --tracker raft alone.")
    if weights is not None and not weights.is_file():
        raise InputError(f"There is no file {weights}. --tracker-weights wants a local file.")


def _check_places(out: Path, save: Path | None, film: Path | None, others: list[int]) -> None:
    """Raise before minutes of work what would be raised after them."""
    if film is not None:
        from understudy.drag.film import check_film_name

        check_film_name(film)
    for path in (out, *(_beside(out, other) for other in others)):
        results.check_place(path)
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
    from understudy.pictures.photo import read_photo
    from understudy.pictures.tensors import read_mask

    size = read_photo(path).size
    return read_mask(path, size, size)


def _picture(model: ImageGenerator, latent: Tensor) -> Tensor:
    from torch import no_grad

    with no_grad():
        return model.pictures(latent.to(model.device)).clamp(-1, 1)


def _recipe(
    model: ImageGenerator, session: DragSession, facts: Mapping[str, object], begin: _Begin
) -> Recipe:
    from understudy.pictures.recipe import Recipe, ingredient

    files = {"mask": begin.mask, "latent": begin.latent, "session": begin.file}
    files |= {"tracker": begin.raft, "photo": begin.photo}
    return Recipe(
        command="drag",
        settings=session.settings.to_dict(),
        arguments=dict(facts),
        ingredients=tuple(ingredient(role, path) for role, path in files.items() if path),
        model=model.name,
        model_fingerprint=model.fingerprint,
        seed=begin.seed,
    )
