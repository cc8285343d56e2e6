"""Where a command writes its pictures: places checked before the work, marks applied at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.files.atomic import check_writable
from understudy.settings.marks import MarkSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.pictures.photo import Pixels
    from understudy.pictures.recipe import Recipe

OutOption = Annotated[Path, typer.Option(help="The picture to write: .png, .jpg or .webp.")]
UNSIGNED = MarkSettings(watermark="off", c2pa="off")  # of files that are the same byte for byte


def check_place(path: Path) -> None:
    """Raise InputError for a name that is no .png, .jpg or .webp, OutputError for a bad place."""
    from understudy.pictures.encode import check_result_name

    check_writable(check_result_name(path))


def write_generated(path: Path, picture: Tensor, recipe: Recipe, marks: MarkSettings) -> None:
    """A picture "1 3 h w" that a model drew without a photo."""
    from understudy.pictures.marks import Origin, write_result
    from understudy.pictures.tensors import finite_pixels

    write_result(path, finite_pixels(picture, path), recipe, Origin(), marks)


def write_edited(
    path: Path,
    picture: Tensor | Pixels,
    recipe: Recipe,
    marks: MarkSettings,
    *,
    photo: Path | None,
    keeps_photo: bool,
) -> None:
    """A picture "1 3 h w", or pixels, made by a model from a photo.

    keeps_photo: its pixels are the photo's outside the change, or it is a figure about the photo.
    """
    from understudy.pictures import xmp
    from understudy.pictures.marks import Origin, write_result
    from understudy.pictures.tensors import finite_pixels

    pixels = finite_pixels(picture, path)
    write_result(path, pixels, recipe, Origin(xmp.COMPOSITE, photo, keeps_photo), marks)


def write_rendered(path: Path, pixels: Pixels, recipe: Recipe) -> None:
    """A picture that the toy world drew: the same seed gives the same bytes, so it is unsigned."""
    from understudy.pictures import xmp
    from understudy.pictures.marks import Origin, write_result

    write_result(path, pixels, recipe, Origin(xmp.RENDERED), UNSIGNED)
