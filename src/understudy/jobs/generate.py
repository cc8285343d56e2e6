"""The job `generate`: a prompt, and concepts in it, to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from understudy.concept import applied, spelled, with_articles, with_strengths
from understudy.errors import InputError
from understudy.files.atomic import check_folder_writable
from understudy.generate import generate_steps
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.results import check_place, recipe_of, write_edited, write_generated
from understudy.jobs.words import check_concepts, check_plain
from understudy.jobs.work import Work, decoded
from understudy.models.interface import DiffusionModel
from understudy.pictures.photo import fit
from understudy.pictures.recipe import Recipe
from understudy.pictures.tensors import to_tensor
from understudy.settings import GenerateSettings, RunSettings
from understudy.settings.inputs import GenerateInputs
from understudy.settings.marks import MarkSettings

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of one picture; anything else is a folder
AT_ONCE = 4  # pictures in a batch; the batch never changes a picture


def generate(
    work: Work,
    settings: GenerateSettings,
    run: RunSettings,
    marks: MarkSettings | None = None,
    *,
    given: GenerateInputs,
) -> Events[Result]:
    """Make pictures of consecutive seeds from a prompt."""
    prompt, out, count, seed, init = given.prompt, given.out, given.count, given.seed, given.init
    files = _names(work, out, count, seed)
    asked = with_articles(prompt)
    concepts = with_strengths(work.concepts(given.concept), [asked])
    text = spelled(asked, *concepts)
    if not text.strip():
        work.note("the prompt is empty, so the pictures show anything that the model may draw")
    check_plain("--negative", settings.negative)
    check_concepts(work, [asked], concepts)
    _check_unused(settings, count, init)
    usual = GenerateSettings.filled({}, run.model).pag_layers
    if not settings.pag_scale and settings.pag_layers not in (usual, GenerateSettings.pag_layers):
        work.note("--pag-layers changes nothing without --pag-scale")
    with work.model(run) as model:
        begin = None if init is None else _begin(work, model, init)
        recipe = recipe_of(work, model, settings, run, facts={"prompt": prompt})
        with applied(model, *concepts):
            kept = ""
            for some in _batches(list(files)):
                steps = generate_steps(
                    model,
                    [asked] * len(some),
                    some,
                    settings,
                    concepts=concepts,
                    init=begin,
                    variation=(seed, settings.variations) if settings.variations else None,
                )
                last = yield from watched(
                    steps,
                    _title([one - seed + 1 for one in some], count),
                    kept=partial(str, kept),
                    picture=lambda step: decoded(model, step.latents),
                )
                pictures = decoded(model, last.latents)
                for one, picture in zip(some, pictures.split(1), strict=True):
                    whole = replace(recipe, seed=one, output=one - seed)
                    _write(files[one], picture, whole, marks, init)
                kept = f"{some[-1] - seed + 1} of {count} pictures are in {out}."
    written = tuple(str(file) for file in files.values())
    return Result({"pictures": list(written), "prompt": text}, written, written)


def _title(numbers: Sequence[int], count: int) -> str:
    """What is done now: pictures of these numbers, computed together, of so many in all."""
    if count == 1:
        return "Generating"
    if len(numbers) == count:
        return f"Generating {count} pictures"
    many = f"s {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f" {numbers[0]}"
    return f"Generating picture{many} of {count}"


def _begin(work: Work, model: DiffusionModel, init: Path) -> Tensor:
    """The photo of --init at the model's size; a line says what was cut off."""
    photo, (height, width) = work.photo(init, "init"), model.picture_size
    if photo.size[0] * width != photo.size[1] * height:
        work.note(
            f"{init.name} is cropped to the model's shape: of {photo.size[1]} x {photo.size[0]} "
            f"pixels the middle is used, at {width} x {height}"
        )
    return to_tensor(fit(photo.pixels, (height, width)))


def _write(
    file: Path, picture: Tensor, recipe: Recipe, marks: MarkSettings | None, init: Path | None
) -> None:
    """A picture drawn from noise alone, or from a photo."""
    if init is None:
        write_generated(file, picture, recipe, marks)
    else:
        write_edited(file, picture, recipe, marks, photo=init, keeps_photo=False)


def _batches(seeds: list[int]) -> Iterator[list[int]]:
    for first in range(0, len(seeds), AT_ONCE):
        yield seeds[first : first + AT_ONCE]


def _check_unused(settings: GenerateSettings, count: int, init: Path | None) -> None:
    """Raise InputError for a setting that would change nothing."""
    if init is None and settings.strength != GenerateSettings.strength:
        raise InputError("--strength needs --init: it sets how much of that photo is changed.")
    if settings.variations and count == 1:
        raise InputError("--variations needs a --count above 1: it changes the further pictures.")


def _names(work: Work, out: Path, count: int, seed: int) -> dict[int, Path]:
    """The file of each seed, checked to be writable before minutes of work."""
    if count < 1:
        raise InputError(f"--count must be at least 1. Got {count}.")
    if seed < 0:
        raise InputError(f"--seed must be at least 0. Got {seed}.")
    if out.suffix.lower() in SUFFIXES:
        if count > 1:
            raise InputError(f"--out {out} is one file for {count} pictures. Give a folder.")
        check_place(out, work)
        return {seed: out}
    check_folder_writable(out)
    files = {one: out / f"seed-{one:04d}.png" for one in range(seed, seed + count)}
    work.writes(*files.values())
    return files
