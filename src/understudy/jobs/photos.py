"""A folder of photos looked over before learning: its faults, and the class noun that fits."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import Tensor

from understudy.errors import PictureError
from understudy.models.registry import here
from understudy.pictures.folders import list_folder
from understudy.pictures.tensors import read_picture
from understudy.preflight import PreflightReport
from understudy.preflight import preflight as look
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
    return look(photos, model=here(model), trains_all=all_weights, out=out, buckets=buckets)
