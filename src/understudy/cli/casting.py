"""What swap, sweep and explain share: who plays whom, and the source inverted with its features."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show, stage, wording
from understudy.errors import InputError
from understudy.files.atomic import cache_folder
from understudy.settings import METHODS, InvertSettings, RunSettings, SwapSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.invert.inversion import Inversion
    from understudy.invert.source import Parts, SourceFeatures
    from understudy.models.interface import DiffusionModel
    from understudy.pictures.recipe import Ingredient
    from understudy.swap.schedule_search import Audition
    from understudy.swap.subjects import Role

# The options that all of them have.
PhotoOption = Annotated[Path | None, typer.Argument(help="The photo.", show_default=False)]
SeedOption = Annotated[
    int | None, typer.Option(help="Use the picture of this seed instead of a photo.", min=0)
]
MethodOption = Annotated[str, typer.Option(help="inversion method", metavar="|".join(METHODS))]
SuitedMethodOption = Annotated[
    str | None,
    typer.Option(help="inversion method; default: by preset", metavar="|".join(METHODS)),
]
MaskOption = Annotated[
    Path | None, typer.Option(help="Mask of the same size as the photo; white may change.")
]
PhotosOption = Annotated[
    Path | None, typer.Option(help="Photos of the concept, to score results with.")
]

_SWAP = re.compile(r"\s*([^=#]+?)\s*(?:#\s*([1-9]\d*))?\s*=\s*(.+?)\s*")

DRAWN, DRAWING_STEPS = 2, 20  # pictures of the actor, where no photos of it are given


@dataclass(frozen=True)
class Cast:
    """Roles with the concepts that play them, what they put on, and the prompt they make."""

    roles: tuple[Role, ...] = ()
    dress: stage.Dress = field(default_factory=stage.Dress)
    target: str = ""


@dataclass(frozen=True)
class Source:
    """The picture an edit begins with: given or drawn, its mask, and the files it came from.

    picture "1 3 h w" is None for one that a seed will draw; mask "1 1 h w".
    """

    prompt: str
    picture: Tensor | None
    seed: int | None
    mask: Tensor | None
    ingredients: tuple[Ingredient, ...]


def cast_of(swaps: Sequence[str], prompt: str, photo: Path | None = None) -> Cast:
    """`--swap` options with their concepts loaded; words and photo are looked at before that."""
    from understudy.swap.subjects import Role, cast

    parts = [split(text) for text in swaps]
    cast(prompt, [Role(word, word, place) for word, place, _ in parts])
    wording.note_forms([prompt], [word for word, _, _ in parts])
    if photo is not None:
        stage.open_photo(photo)
    names = list(dict.fromkeys(name for _, _, name in parts))
    dress = stage.load_concepts(names)
    for concept in dress.concepts:
        if concept.tail is not None:
            raise InputError(
                f"--swap: {concept.name} is a learnt tail behind a prompt (hiper), which no word's "
                "place can take. Use it with understudy edit, or learn it by another --method."
            )
    phrases = {name: concept.phrase for name, concept in zip(names, dress.concepts, strict=True)}
    for one in names:
        twin = [other for other in names if phrases[other] == phrases[one] and other != one]
        if twin:
            raise InputError(
                f'{one} and {twin[0]} are both "{phrases[one]}" in prompts, so the model cannot '
                "tell them apart. Learn one of them anew with another --identifier."
            )
    roles = tuple(Role(word, phrases[name], place) for word, place, name in parts)
    return Cast(roles, dress, cast(prompt, roles))


def split(swap: str) -> tuple[str, int | None, str]:
    """ "cat=rex" or "cat#2=rex" -> the word, which of its occurrences (from 0), the concept."""
    match = _SWAP.fullmatch(swap)
    if not match:
        raise InputError(f"--swap must be WORD=CONCEPT, like cat=rex, or cat#2=rex. Got {swap!r}.")
    return match[1], int(match[2]) - 1 if match[2] else None, match[3]


def source_of(
    model: DiffusionModel, photo: Path | None, seed: int | None, prompt: str, mask: Path | None
) -> Source:
    """The source of an edit: a photo, or the picture of a seed."""
    if (photo is None) == (seed is None):
        raise InputError("wanted either a photo or --seed for a picture of the model's own.")
    if photo is None:
        if mask is not None:
            raise InputError("--mask is drawn on a photo; with --seed there is none.")
        return Source(prompt, None, seed, None, ())
    from understudy.pictures.photo import fit
    from understudy.pictures.tensors import to_tensor

    opened, ingredient = stage.open_photo(photo)
    picture = to_tensor(fit(opened.pixels, model.picture_size))
    if mask is None:
        return Source(prompt, picture, None, None, (ingredient,))
    region, drawn = stage.open_mask(mask, opened, model.picture_size)
    return Source(prompt, picture, None, region, (ingredient, drawn))


@contextmanager
def staged(
    model: DiffusionModel,
    cast: Cast,
    source: Source,
    asked: InvertSettings,
    parts: Callable[[int], Parts],
    keep: float,
) -> Generator[tuple[Inversion, SourceFeatures | None]]:
    """Dressed model, inverted source: the inversion, and what is kept of the source.

    keep: gigabytes of features, 0 for none. They are left for the next command afterwards.
    """
    with stage.wearing(model, cast.dress):
        inversion, features = _inverted(model, source, asked, parts, keep)
        yield inversion, features
    if features is not None:
        from understudy.errors import OutputError

        with suppress(OutputError):
            features.save(_folder(inversion, asked.guidance))


def _inverted(
    model: DiffusionModel,
    source: Source,
    asked: InvertSettings,
    parts: Callable[[int], Parts],
    keep: float,
) -> tuple[Inversion, SourceFeatures | None]:
    from understudy.invert import inversion_steps
    from understudy.invert.seeded import seeded_steps
    from understudy.invert.source import GIGABYTE, SourceFeatures

    features = SourceFeatures(room=int(keep * GIGABYTE)) if keep else None
    if source.picture is None:
        assert source.seed is not None, "a source has a picture or a seed"
        steps = seeded_steps(
            model,
            source.prompt,
            source.seed,
            steps=asked.steps,
            guidance=asked.guidance,
            features=features,
            parts=parts,
        )
        inversion = show.last(steps, "Drawing").inversion
    else:
        cache = cache_folder() / "inversions"
        steps = inversion_steps(
            model, source.picture, source.prompt, asked, cache=cache, features=features, parts=parts
        )
        inversion = show.last(steps, "Inverting").inversion
    assert inversion is not None, "the last step carries the inversion"
    if features is not None and not features.nbytes:
        folder = _folder(inversion, asked.guidance)
        features = SourceFeatures.load(folder, inversion, asked.guidance, features.room)
    return inversion, features


def _folder(inversion: Inversion, guidance: float) -> Path:
    """Where a source's features lie."""
    from understudy.invert.source import source_key

    return cache_folder() / "sources" / source_key(inversion, guidance)


def asked_inversion(method: str, settings: SwapSettings, run: RunSettings) -> InvertSettings:
    """The inversion that a swap with these settings wants."""
    given = {"method": method, "steps": settings.steps, "guidance": settings.guidance}
    return InvertSettings.filled(given, run.model)


def jury(
    model: DiffusionModel, guidance: float, source: Source, cast: Cast, photos: Path | None
) -> Audition | None:
    """Who compares results with pictures of the concept and with the photo; None where nobody can.

    Without photos of the concept the model draws it, so it must be dressed by now.
    """
    from understudy.swap.scorer import judge_for

    judge = judge_for(model)
    if judge is None or source.picture is None or len(cast.roles) != 1:
        return None
    from understudy.swap.schedule_search import Audition

    pictures = _of_the_actor(model, guidance, str(cast.roles[0].actor), photos)
    return Audition(judge, judge.identity(pictures), source.picture)


def _of_the_actor(
    model: DiffusionModel, guidance: float, phrase: str, photos: Path | None
) -> Tensor:
    """Pictures of the concept: the photos given, or what the model draws of it."""
    if photos is not None:
        from understudy.pictures.tensors import read_folder

        return read_folder(photos, model.picture_size)[0]
    from understudy.generate import generate
    from understudy.settings import GenerateSettings

    drawing = GenerateSettings(steps=DRAWING_STEPS, guidance=guidance)
    return generate(model, [f"a photo of a {phrase}"] * DRAWN, list(range(DRAWN)), drawing).cpu()
