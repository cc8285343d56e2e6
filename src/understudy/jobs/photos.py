"""A folder of photos looked over before learning: its faults, and the class noun that fits."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from understudy.errors import PictureError
from understudy.models.registry import here
from understudy.pictures.folders import list_folder
from understudy.pictures.tensors import read_picture
from understudy.preflight import PreflightReport
from understudy.preflight import preflight as look
from understudy.settings.suits import shows_toys
from understudy.vision.encoders import load_clip
from understudy.vision.features import ClipFeatures
from understudy.vision.nouns import propose_noun


def looker(clip: str) -> ClipFeatures:
    """CLIP from a folder or hub id."""
    return ClipFeatures(load_clip(clip))


def nouns(photos: Path, seeing: ClipFeatures) -> list[tuple[str, float]]:
    """The nouns that fit the readable photos of a folder best, with their shares of belief."""
    pictures: list[Tensor] = []
    for file in list_folder(photos).files:
        with suppress(PictureError):  # named in the report already
            pictures.append(read_picture(file))
    return propose_noun(seeing, pictures)


def preflight(
    photos: Path, model: str, method: str, out: Path, buckets: bool = True
) -> PreflightReport:
    """The report of a folder for a model that may be here already, or not."""
    all_weights = method == "dreambooth"
    found = look(
        photos,
        model=here(model),
        trains_all=all_weights,
        out=out,
        buckets=buckets,
        one=method == "hiper",
    )
    more = toys_only(model, found.size, (one.size for one in found.photos))
    return replace(found, warnings=(*more, *found.warnings))


def toys_only(
    model: str, shape: tuple[int, int], sizes: Iterable[tuple[int, int]]
) -> tuple[str, ...]:
    """A line for who gives photographs to a model of the toy world; none otherwise.

    Pictures are taken for photographs where they are far larger than the model's, of shape (height,
    width): the toy world's own pictures are of its size unless asked for.
    """
    if not shows_toys(model) or all(min(size) <= 2 * max(shape) for size in sizes):
        return ()
    other = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    return (f"{model} draws toys only; for photographs use another --model, like {other}",)
