"""The job `project`: a photo to a latent of a generator."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor, no_grad

from understudy.errors import InputError
from understudy.files.atomic import check_writable
from understudy.generators.folder import stylegan2
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.results import check_place, recipe_of, write_edited
from understudy.jobs.work import Work
from understudy.pictures.photo import Photo, fit
from understudy.pictures.tensors import to_tensor
from understudy.project import ProjectProgress, project_steps
from understudy.project.align import Square, crop_square, cut, face_square, find_face, middle
from understudy.project.project import ProjectStep
from understudy.settings.inputs import LATENT, ProjectInputs
from understudy.settings.marks import MarkSettings
from understudy.settings.project import ProjectSettings
from understudy.vision.perceptual import measure as measure_by_name

TITLES = {"project": "Projecting", "tune": "Tuning", "done": "Tuning"}


def project(
    work: Work,
    settings: ProjectSettings,
    marks: MarkSettings | None = None,
    *,
    given: ProjectInputs,
) -> Events[Result]:
    """Find the latent that draws a photo, then tune the generator to it."""
    photo, picture, measure = given.photo, given.picture, given.measure
    file = given.out or Path(photo.stem + LATENT)
    if file.suffix != ".safetensors":
        raise InputError(f"--out must end in .safetensors. Got {file.name!r}.")
    if picture is not None:
        check_place(picture, work)
    check_writable(file)
    work.writes(file)
    opened = work.photo(photo)
    model = stylegan2(work.generator(given.generator, given.device))
    if given.landmarks is not None:
        work.used("landmarks", given.landmarks)
    target, square = _target(opened, model, given)
    last = yield from _followed(model, target, measure, settings, file, given.fresh)
    latent = last.latent
    assert latent is not None, "the last step has the latent"
    latent = latent.placed(square, opened.size)
    latent.save(file)
    _progress_file(file).unlink(missing_ok=True)  # not before: the disk may have been full
    files = [file]
    if picture is not None:
        with no_grad():
            drawn = latent.tuned(model).pictures(latent.ws)
        recipe = recipe_of(work, model, settings, facts={})
        recipe = replace(recipe, model_fingerprint=latent.tuned_fingerprint, output=1)
        write_edited(picture, drawn, recipe, marks, photo=photo, keeps_photo=False)
        files.append(picture)
    told = {"latent": str(file), "psnr": round(last.psnr, 2), measure: round(last.perceptual, 4)}
    told |= {"tuned": bool(latent.changes), "bytes": file.stat().st_size}
    line = f"{file}   PSNR {last.psnr:.1f} dB, {measure} distance {last.perceptual:.4f}"
    names = tuple(map(str, files))
    return Result(told, (line, *names[1:]), names)


def _followed(
    model: StyleGAN2,
    target: Tensor,
    measure: str,
    settings: ProjectSettings,
    file: Path,
    fresh: bool,
) -> Events[ProjectStep]:
    """Run to the end, saving progress beside the result."""
    note = _progress_file(file)
    kept = None if fresh or not note.is_file() else ProjectProgress.load(note)
    seen = measure_by_name(measure, model.device)

    def save(step: ProjectStep) -> None:
        if step.progress is not None:
            step.progress.save(note)

    def left() -> str:
        saved = f"Progress is saved in {note}. To continue, run the same command again."
        return saved if note.is_file() else ""

    steps = project_steps(model, target, seen, settings, progress=kept)
    return (yield from watched(steps, lambda step: TITLES[step.phase], save, kept=left))


def _progress_file(file: Path) -> Path:
    """Where the progress towards the result `file` is kept until the result is saved."""
    return file.with_name(f".{file.name}.progress")


def _target(opened: Photo, model: StyleGAN2, given: ProjectInputs) -> tuple[Tensor, Square]:
    """The picture to project: a face made upright, a part of the photo, or its middle; and which
    part of the photo that is."""
    crop, eyes, mouth, landmarks = given.crop, given.eyes, given.mouth, given.landmarks
    ways = [
        name
        for name, value in zip(
            ("--crop", "--eyes and --mouth", "--landmarks"),
            (crop, eyes or mouth, landmarks),
            strict=True,
        )
        if value
    ]
    if len(ways) > 1:
        raise InputError(f"{' and '.join(ways)} cannot be combined. Give one of them.")
    if crop:
        box = numbers("--crop", crop, 4)
        square = crop_square((box[0], box[1], box[2], box[3]), opened.size)
    elif eyes or mouth:
        e, m = numbers("--eyes", eyes, 4), numbers("--mouth", mouth, 4)
        square = face_square((e[0], e[1]), (e[2], e[3]), (m[0], m[1]), (m[2], m[3]))
    elif landmarks:
        square = find_face(opened.pixels, landmarks)
    else:
        size = model.picture_size
        return to_tensor(fit(opened.pixels, size)), middle(opened.size, size)
    return cut(to_tensor(opened.pixels), square, model.picture_size).clamp(-1, 1), square


def numbers(option: str, text: str, count: int) -> list[float]:
    """Numbers between commas and semicolons. Raises InputError that names the option."""
    try:
        found = [float(part) for part in re.split(r"[,;]", text)]
    except ValueError:
        found = []
    if len(found) != count or not all(abs(value) < 1e6 for value in found):
        raise InputError(f"{option} needs {count} numbers, like 40,60; 80,60. Got {text!r}.")
    return found
