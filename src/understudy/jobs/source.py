"""The source picture of swap, sweep, explain and edit: read or generated, then inverted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError, OutputError
from understudy.files.cache import Cache
from understudy.invert import inversion_steps
from understudy.invert.inversion import Inversion
from understudy.invert.keeping import nothing
from understudy.invert.seeded import seeded_steps
from understudy.invert.source import GIGABYTE, Parts, SourceFeatures, source_key
from understudy.jobs.events import Events, watched
from understudy.jobs.framing import EditRegion, Wanted, frame_of
from understudy.jobs.selecting import Selected
from understudy.jobs.work import Work
from understudy.models.interface import DiffusionModel
from understudy.pictures.photo import Photo
from understudy.pictures.tensors import to_tensor
from understudy.settings import InvertSettings
from understudy.settings.inputs import EditInputs, InvertInputs, MaskInputs, PhotoInputs
from understudy.transfer.source_target import Source

IN_CACHE = "The inversion is cached; running the same command again reuses it."


@dataclass(frozen=True)
class InputPicture:
    """The picture an edit begins with, and what it shows.

    picture is None for one that the seed will draw. frame: where in the photo the picture lies;
    None where it is the whole photo at its own size. subject: see `Source.subject`.
    """

    prompt: str
    picture: Float[Tensor, "1 3 h w"] | None
    seed: int | None = None
    mask: Float[Tensor, "1 1 h w"] | None = None
    frame: EditRegion | None = None
    subject: Float[Tensor, "1 1 h w"] | None = None


@dataclass(frozen=True)
class Inverted:
    """An inverted source, and what is kept of it for this edit and later ones.

    found: of a source whose features are kept, what was in the cache: "nothing", the "inversion",
    or its "features" besides. Results differ by rounding between these, because other rows are
    evaluated together. Without features they do not differ, and it is "nothing".
    """

    inversion: Inversion
    features: SourceFeatures | None = None
    found: Literal["nothing", "inversion", "features"] = "nothing"
    kept: str = ""  # what a stop after it leaves behind; see `Progress`
    sources: Cache | None = None  # where the features are kept

    def source(
        self,
        photo: Float[Tensor, "1 3 h w"] | None = None,
        subject: Float[Tensor, "1 1 h w"] | None = None,
    ) -> Source:
        """The inverted source as swaps and edits take it. photo: what was inverted, if known.
        subject: see `Source.subject`."""
        return Source(self.inversion, self.features, photo, subject)

    def save_features(self, guidance: float) -> None:
        """Keep the features for the next edit. Call it after the result is written: a run that is
        killed before that leaves the cache as it was, so its repetition gives the same pixels.

        A full disk loses nothing but the features.
        """
        if self.features is not None and self.sources is not None:
            name = source_key(self.inversion, guidance)
            with suppress(OutputError):
                self.features.save(self.sources.folder / name)
                (self.sources.kept if self.features.nbytes else self.sources.used)(name)


def check_source(given: PhotoInputs) -> Selected:
    """Where the source may change. Raises InputError unless there is either a photo or a seed, and
    for a mask without a photo."""
    if (given.photo is None) == (given.seed is None):
        raise InputError("give either a photo, or --seed for a picture drawn by the model.")
    masked = isinstance(given, MaskInputs)
    selected = Selected.of(given) if masked else Selected()
    if given.photo is None and selected.file is not None:
        raise InputError("--mask needs a photo. Leave out --mask or --seed.")
    return selected.checked(given.photo)


def source_of(
    work: Work,
    model: DiffusionModel,
    given: PhotoInputs | EditInputs | InvertInputs,
    selected: Selected,
    wanted: Wanted,
) -> InputPicture:
    """The source of an edit: a photo, or the region of it that is edited; or a seed's picture.

    wanted: how the region is found; its mask is the one of `selected`, found once.
    """
    prompt = given.prompt
    if isinstance(given, PhotoInputs) and given.photo is None:
        return InputPicture(prompt, None, given.seed)
    assert given.photo is not None, "a photo or a seed was given"
    return source_in(work, model, prompt, work.photo(given.photo), selected, wanted)


def source_in(
    work: Work,
    model: DiffusionModel,
    prompt: str,
    opened: Photo,
    selected: Selected,
    wanted: Wanted,
) -> InputPicture:
    """The source of an edit of a photo that is open."""
    drawn = selected.mask(work, model, opened, prompt)
    frame = frame_of(work, model, opened, drawn, wanted)
    if frame is None:
        return InputPicture(prompt, to_tensor(opened.pixels), mask=drawn)
    size = model.picture_size
    cut = None if drawn is None else frame.mask(drawn, size)
    return InputPicture(prompt, frame.picture(size), mask=cut, frame=frame)


def inverted(
    model: DiffusionModel,
    source: InputPicture,
    asked: InvertSettings,
    *,
    cache: Cache | None,
    parts: Callable[[int], Parts] = nothing,
    room: float = 0,
) -> Events[Inverted]:
    """Invert a source by the model as it is now, concepts applied.

    cache: of inversions, with features beside them; None keeps nothing. keep: gigabytes of
    features, 0 for none.
    """
    features = SourceFeatures(room=int(room * GIGABYTE)) if room else None
    if source.picture is None:
        assert source.seed is not None, "a source has a picture or a seed"
        drawn = seeded_steps(
            model,
            source.prompt,
            source.seed,
            steps=asked.steps,
            guidance=asked.guidance,
            features=features,
            parts=parts,
        )
        step = yield from watched(drawn, "Drawing")
    else:
        steps = inversion_steps(
            model, source.picture, source.prompt, asked, cache=cache, features=features, parts=parts
        )
        step = yield from watched(steps, "Inverting")
    inversion = step.inversion
    assert inversion is not None, "the last step carries the inversion"
    before: Literal["inversion", "nothing"] = "nothing"
    if features is None or cache is None:
        return Inverted(inversion, features, before, IN_CACHE if step.cached else "")
    before = "inversion" if step.cached == "found" else "nothing"
    sources = replace(cache, folder=cache.folder.parent / "sources")
    found = Inverted(inversion, features, before, IN_CACHE if step.cached else "", sources)
    name = source_key(inversion, asked.guidance)
    sources.borrow(name)
    if features.nbytes:
        return found
    stored = SourceFeatures.load(sources.folder / name, inversion, asked.guidance, features.room)
    return replace(found, features=stored, found="features" if stored.stored else found.found)


def inversions(work: Work) -> Cache:
    """Where inversions are kept, made from what the job has read so far."""
    return Cache.user("inversions", work.origins, work.until_done)
