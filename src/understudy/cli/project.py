"""`understudy project`: a photo to a latent of a generator."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show, stage
from understudy.cli.options import knobs
from understudy.errors import InputError
from understudy.files.atomic import check_writable
from understudy.jobs import results
from understudy.settings.marks import MarkSettings
from understudy.settings.project import ProjectSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.generators.stylegan2.generator import StyleGAN2
    from understudy.pictures.photo import Photo
    from understudy.pictures.recipe import Ingredient, Recipe
    from understudy.project.align import Square
    from understudy.project.latent import Latent
    from understudy.project.project import ProjectStep

SUFFIX = ".latent.safetensors"
TITLES = {"project": "Projecting", "tune": "Tuning", "done": "Tuning"}


@knobs
def project(
    photo: Annotated[Path, typer.Argument(help="The photo to project.")],
    *,
    generator: Annotated[str, typer.Option(help="toybox-gan, or a generator's folder.")] = (
        "toybox-gan"
    ),
    settings: ProjectSettings,
    provenance: MarkSettings,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default=f"PHOTO{SUFFIX}")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also write the picture of the latent.")
    ] = None,
    crop: Annotated[str, typer.Option(help='Part of the photo: "x0,y0,x1,y1".')] = "",
    eyes: Annotated[str, typer.Option(help='To align a face: "x,y; x,y", left and right.')] = "",
    mouth: Annotated[str, typer.Option(help='Its mouth\'s corners: "x,y; x,y".')] = "",
    landmarks: Annotated[
        Path | None, typer.Option(help="dlib's 68-point model, to align a face automatically.")
    ] = None,
    measure: Annotated[str, typer.Option(help="Perceptual distance: recogniser or lpips.")] = (
        "recogniser"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew instead of continuing a stopped run.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the latent of a photo, then tune the generator on it (pivotal tuning inversion).

    A stopped run continues from its last checkpoint when the command is repeated.
    """
    file = out or Path(photo.stem + SUFFIX)
    if file.suffix != ".safetensors":
        raise InputError(f"--out must end in .safetensors. Got {file.name!r}.")
    if picture is not None:
        results.check_place(picture)
    check_writable(file)
    opened, ingredient = stage.open_photo(photo)
    from understudy.generators.folder import load_generator, stylegan2

    model = stylegan2(load_generator(generator, device=device))
    target, square = _target(opened, model, crop, eyes, mouth, landmarks)
    last = _followed(model, target, measure, settings, file, fresh)
    latent = last.latent
    assert latent is not None, "the last step has the latent"
    latent = latent.placed(square, opened.size)
    latent.save(file)
    _progress_file(file).unlink(missing_ok=True)  # not before: the disk may have been full
    if picture is not None:
        recipe = _recipe(latent, model, settings, ingredient)
        drawn = _drawn(latent, model)
        results.write_edited(picture, drawn, recipe, provenance, photo=photo, keeps_photo=False)
    told = {"latent": str(file), "psnr": round(last.psnr, 2), measure: round(last.perceptual, 4)}
    told |= {"tuned": bool(latent.changes), "bytes": file.stat().st_size}
    show.result(told, json, f"{file}   {last.psnr:.1f} dB, {measure} {last.perceptual:.4f}")


def _drawn(latent: Latent, model: StyleGAN2) -> Tensor:
    """What the latent draws, "1 3 h w"."""
    from torch import no_grad

    with no_grad():
        return latent.tuned(model).pictures(latent.ws)


def _recipe(
    latent: Latent, model: StyleGAN2, settings: ProjectSettings, photo: Ingredient
) -> Recipe:
    from understudy.pictures.recipe import Recipe

    return Recipe(
        command="project",
        settings=settings.to_dict(),
        ingredients=(photo,),
        model=model.name,
        model_fingerprint=latent.tuned_fingerprint,
    )


def _followed(
    model: StyleGAN2,
    target: Tensor,
    measure: str,
    settings: ProjectSettings,
    file: Path,
    fresh: bool,
) -> ProjectStep:
    """Run to the end, saving progress beside the result."""
    from understudy.project import Progress, project_steps
    from understudy.vision.perceptual import measure as measure_by_name

    note = _progress_file(file)
    kept = None if fresh or not note.is_file() else Progress.load(note)
    seen = measure_by_name(measure, model.device)
    steps = project_steps(model, target, seen, settings, progress=kept)
    last: ProjectStep | None = None
    for last in show.follow(steps, lambda step: TITLES[step.phase]):
        if last.progress is not None:
            last.progress.save(note)
    assert last is not None
    return last


def _progress_file(file: Path) -> Path:
    """Where the progress towards the result `file` is kept until the result is saved."""
    return file.with_name(f".{file.name}.progress")


def _target(
    opened: Photo, model: StyleGAN2, crop: str, eyes: str, mouth: str, landmarks: Path | None
) -> tuple[Tensor, Square]:
    """The picture to project: a face made upright, a part of the photo, or its middle; and which
    part of the photo that is."""
    from understudy.pictures.photo import fit
    from understudy.pictures.tensors import to_tensor
    from understudy.project.align import crop_square, cut, face_square, find_face, middle

    given = [
        name
        for name, value in zip(
            ("--crop", "--eyes and --mouth", "--landmarks"),
            (crop, eyes or mouth, landmarks),
            strict=True,
        )
        if value
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other. Give one of them.")
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
        raise InputError(f"{option} wants {count} numbers such as 40,60; 80,60. Got {text!r}.")
    return found
