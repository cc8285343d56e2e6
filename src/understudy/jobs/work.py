"""The state of a running job: its notes, its input files, its model.

Every file that a verb reads is opened here, so that its hash is in the recipe of the results.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.errors import InputError, NoSuchConcept, listed, sentence
from understudy.files.builtin import BUILT_IN_CONCEPTS, builtin_concept
from understudy.files.origins import Origin
from understudy.jobs.events import Note
from understudy.jobs.execution import running, suited
from understudy.jobs.outputs import check_not_read, files_read
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.settings import RunSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.concept import Concept
    from understudy.generators.stylegan2.generator import StyleGAN2
    from understudy.generators.stylegan3.generator import StyleGAN3
    from understudy.models.interface import DiffusionModel
    from understudy.pictures.photo import Photo
    from understudy.pictures.recipe import Ingredient

STORE = Path("concepts")
MANIFEST = "concept.json"


class Work:
    """What a verb's function is given beside settings and inputs.

    ingredients: the files read so far, each once, in the order of reading. notes: lines that
    the runner will report with the next event. paths: names of the inputs that are paths.
    """

    def __init__(self, job: Job, pool: Pool, paths: Collection[str] = ()) -> None:
        self.job, self.pool, self.paths = job, pool, paths
        self.notes: list[str] = []
        self._noted, self._written = set[str](), set[str]()
        self.ingredients: list[Ingredient] = []
        self._photos: dict[Path, Photo] = {}
        self.until_done = ExitStack()  # closed by the runner: uses of the cache

    def note(self, *lines: str) -> None:
        """Things worth knowing; said once, however often a file is read."""
        new = [line for line in lines if line not in self._noted]
        self._noted |= set(new)
        self.notes += new

    def reported(self) -> Iterator[Note]:
        """The notes that were not reported yet, as events."""
        lines, self.notes = self.notes, []
        yield from map(Note, lines)

    def writes(self, *files: Path) -> None:
        """Files that will be written at the end: a note says which are replaced.

        Raises InputError for an input of this job, and for a file that is named twice.
        """
        read = list(files_read(self.job.verb, self.job.inputs, self.paths))
        for file in files:
            check_not_read(file, read)
            place = os.path.abspath(file)
            if place in self._written:
                raise InputError(f"{file} is named for two results. Give each its own file.")
            self._written.add(place)
        there = [file for file in files if file.is_file()]
        if len(there) == 1:
            self.note(f"{there[0]} exists and will be replaced")
        elif there:
            first, last = there[0], there[-1].name
            self.note(f"{len(there)} files exist and will be replaced: {first} to {last}")

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The files read so far, as the cache records what an entry was made from."""
        return tuple(Origin(one.role, one.name, one.sha256) for one in self.ingredients)

    @contextmanager
    def model(self, run: RunSettings) -> Generator[DiffusionModel]:
        """The model of `--model` on `--device` in `--dtype`, until the block ends."""
        from understudy.models.registry import told

        with (
            self.pool.model(suited(run, self.job)) as model,
            running(model, run, self.job) as runner,
        ):
            self.note(*told(run.model))
            yield model
            if runner is not None and runner.failure:
                self.note(f"The network ran {runner.without}: {sentence(runner.failure)}")

    def generator(self, name: str, device: str, dtype: str = "float32") -> StyleGAN2 | StyleGAN3:
        """A StyleGAN generator by name or folder, until the job is done."""
        return self.until_done.enter_context(self.pool.generator(name, device, dtype))

    def used(self, role: str, path: Path, name: str = "") -> None:
        """Put a file into the recipe. Raises PictureError where it cannot be read."""
        from dataclasses import replace

        from understudy.pictures.recipe import ingredient

        found = ingredient(role, path)
        found = replace(found, name=name) if name else found
        if found not in self.ingredients:
            self.ingredients.append(found)

    def photo(self, path: Path, role: str = "photo") -> Photo:
        """A photo of the user's, decoded once, its notes reported."""
        from understudy.pictures.photo import read_photo

        if path not in self._photos:
            self._photos[path] = read_photo(path)
            self.note(*self._photos[path].notes)
        self.used(role, path)
        return self._photos[path]

    def mask(self, path: Path, photo: Photo, size: tuple[int, int], grow: int = 0) -> Tensor:
        """A mask "1 1 h w" drawn on a photo, fitted as the photo is. grow: see `read_mask`."""
        from understudy.pictures.tensors import mask_doubts, read_mask

        drawn = read_mask(path, photo.size, size, grow)
        self.note(*mask_doubts(path))
        self.used("mask", path)
        return drawn

    def photos(self, folder: Path, size: tuple[int, int]) -> Tensor:
        """The photos "n 3 h w" of a folder."""
        from understudy.pictures.tensors import read_folder

        pictures, listing = read_folder(folder, size)
        for file in listing.files:
            self.used("photos", file)
        return pictures

    def concepts(self, names: Iterable[str]) -> tuple[Concept, ...]:
        """Concepts by name or folder."""
        from understudy.concept import Concept

        folders = [concept_folder(name) for name in names]
        for folder in folders:
            self.used("concept", folder / MANIFEST, folder.name)
        return tuple(Concept.load(folder) for folder in folders)


def concept_folder(name: str) -> Path:
    """Where the concept `--concept NAME` lies: that folder, concepts/NAME, or a built-in one.

    Raises NoSuchConcept that lists what there is.
    """
    shipped = builtin_concept(name)
    for folder in (Path(name), STORE / name, *([shipped] if shipped else [])):
        if (folder / MANIFEST).is_file():
            return folder
    learnt = {entry.parent.name for entry in STORE.glob(f"*/{MANIFEST}")}
    known = f"There are: {listed(sorted(learnt | {*BUILT_IN_CONCEPTS}))}."
    raise NoSuchConcept(
        f"There is no concept {name!r}: neither {name} nor {STORE / name} holds one. {known} "
        f"Make it with: understudy learn PHOTOS/ --class NOUN --name {Path(name).name}"
    )


def own_concept_folder(name: str) -> Path:
    """Likewise, for a concept that will be removed. Raises InputError for one that is built in."""
    folder = concept_folder(name)
    if folder == builtin_concept(name):
        raise InputError(f"{name} is built in and cannot be removed.")
    return folder


def decoded(model: DiffusionModel, latents: Tensor) -> Tensor:
    """Pictures "b 3 h w" of latents "b c h w"."""
    from torch import no_grad

    with no_grad():
        return model.decode(latents)
