"""Before a subject is learnt: what its photos are, and whether disk and memory will do.

Quick, because it decodes to few pixels and loads no model; it knows nothing of torch. A finding
is a warning with its reason; only a file that cannot be read stops learning.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, UInt8

from understudy.errors import ExtraMissing, PictureError, listed
from understudy.files.reading import sha256
from understudy.models.folder import native_size, parameter_counts
from understudy.pictures.folders import list_folder
from understudy.pictures.likeness import NEAR, grey_of, mark
from understudy.pictures.photo import Glance, glance
from understudy.pictures.shapes import bucket_of, cut_share, step_of

FEW, MANY = 3, 30  # photos: the paper's 3 to 5 suffice, beyond 30 no gain is published
USUAL_SIZE = (512, 512)
LOOK = 256  # pixels of the shorter side that is looked at
BLURRED = 0.12  # of `sharpness`: photos have 0.3 and more, blurred by 1% of their width 0.1
DARK, BRIGHT, FLAT = 25.0, 235.0, 6.0  # grey levels of 0 to 255: means, and a deviation
DOWNSCALE = 8  # pixels a latent cell, as of nearly all models
CUT = 0.3  # share of a photo that cropping to the model's shape may take
GB = 10**9
# Bytes a trained weight needs in memory: its copy, gradient and Adam's two moments in float32; and
# on disk: the concept in float16, and three checkpoints (two kept, one being written) of all that.
FLOAT32, TRAINING, LEARNT = 4, 16, 2 + 3 * (2 + 12)


@dataclass(frozen=True)
class Finding:
    """One photo: size (height, width) in pixels, upright; cut: the share of it that cropping takes;
    sharpness: see there. error: why it cannot be used, if so."""

    file: str
    size: tuple[int, int] = (0, 0)
    cut: float = 0.0
    sharpness: float = 0.0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Requirements:
    """Bytes learning needs, and those there are; None: not known. Activations come on top."""

    memory: int
    disk: int
    memory_free: int | None
    disk_free: int | None


@dataclass(frozen=True)
class PreflightReport:
    """What was found in a folder, in the order of the files' names."""

    folder: Path
    size: tuple[int, int]
    photos: tuple[Finding, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    needs: Requirements | None = None

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Of the folder, then of each photo with its name."""
        of_photos = (f"{one.file}: {word}" for one in self.photos for word in one.warnings)
        return (*self.warnings, *of_photos)

    def refuse(self) -> None:
        """Raise PictureError where there are photos that cannot be used, naming the first ones."""
        bad = [one for one in self.photos if one.error]
        count = f"{len(bad)} of {len(self.photos)} photos cannot be used"
        if len(bad) > 3:
            names = listed([one.file for one in bad])
            raise PictureError(f"{count}: {names}. understudy check {self.folder} says why.")
        if bad:
            told = f"{count}: " if len(bad) > 1 else ""
            raise PictureError(told + "; ".join(str(one.error) for one in bad))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "folder": str(self.folder)}


def preflight(
    folder: Path | str,
    *,
    model: Path | None = None,
    trains_all: bool = True,
    out: Path = Path("."),
    buckets: bool = True,
    one: bool = False,
) -> PreflightReport:
    """Look at all photos of a folder.

    model: the folder of the model that will learn, for its picture size and its needs. trains_all:
    whether all its weights are trained (DreamBooth) or few. out: where the concept will be written.
    buckets: whether photos are trained at the nearest aspect ratio, or cropped to the model's.
    one: whether one photo is enough for the method (HiPer).
    Raises PictureError where there is no folder, or no picture in it.
    """
    listing = list_folder(folder)
    size = native_size(model) if model else USUAL_SIZE
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        looks = list(pool.map(partial(_look, size=size, buckets=buckets), listing.files))
    copies = _copies(looks)
    photos = tuple(
        _finding(look, (*look.warnings, *copies.get(i, ()))) for i, look in enumerate(looks)
    )
    usable = [one for one in photos if not one.error]
    needs = _needs(model, trains_all, out) if model else None
    warnings = (*_of_the_set(usable, buckets, one), *_of_the_machine(needs))
    return PreflightReport(Path(folder), size, photos, warnings, listing.notes, needs)


# One photo


@dataclass(frozen=True)
class _Look:
    file: Path
    seen: Glance | None
    digest: str = ""
    mark: UInt8[np.ndarray, " bits"] | None = None
    cut: float = 0.0
    sharpness: float = 0.0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None


def _look(file: Path, size: tuple[int, int], buckets: bool) -> _Look:
    try:
        seen = glance(file, LOOK)
    except (PictureError, ExtraMissing) as error:
        return _Look(file, None, error=str(error))
    digest = sha256(file, error=PictureError)
    grey = grey_of(seen.photo.pixels)
    shape = bucket_of(seen.size, size, step_of(size, DOWNSCALE)) if buckets else size
    cut, sharp = cut_share(seen.size, shape), sharpness(grey)
    notes = [note.removeprefix(f"{file.name} ") for note in seen.photo.notes]
    notes += ["is rotated as its EXIF orientation says."] if seen.turned else []
    notes += (
        ["has a GPS position in its metadata, which results never have."] if seen.located else []
    )
    warnings = tuple(_objections(seen, size, cut, sharp, grey))
    return _Look(file, seen, digest, mark(seen.photo.pixels), cut, sharp, warnings, tuple(notes))


def _finding(look: _Look, warnings: tuple[str, ...]) -> Finding:
    seen, name = look.seen, look.file.name
    if seen is None:
        return Finding(name, error=look.error)
    cut, sharp = round(look.cut, 3), round(look.sharpness, 4)
    return Finding(name, seen.size, cut, sharp, warnings, look.notes)


def _objections(
    seen: Glance,
    size: tuple[int, int],
    cut: float,
    sharp: float,
    grey: Int16[np.ndarray, "h w"],
) -> list[str]:
    found: list[str] = []
    if seen.size[0] < size[0] or seen.size[1] < size[1]:
        found.append(f"smaller than the model's {size[0]} x {size[1]}, so it is enlarged")
    if cut > CUT:
        found.append(f"cropping to the middle removes {cut:.0%} of it; crop it yourself")
    if grey.std() < FLAT:
        found.append("shows almost one colour only")
    elif grey.mean() < DARK or grey.mean() > BRIGHT:
        found.append("is very dark" if grey.mean() < DARK else "is very bright")
    elif sharp < BLURRED:
        found.append("looks blurred")
    return found


def sharpness(grey: Int16[np.ndarray, "h w"]) -> float:
    """How much of a picture's contrast lies between neighbouring pixels: 0 for fog, near 1 for a
    drawing. The steepest slopes (99.5th percentile) over the range of greys, of 0 to 255."""
    dark, light = _percentiles(grey, (0.01, 0.99))
    slopes = [np.abs(np.diff(grey, axis=axis)).ravel() for axis in (0, 1)]
    (steepest,) = _percentiles(np.concatenate(slopes), (0.995,))
    return steepest / max(light - dark, 1)


def _percentiles(values: Int16[np.ndarray, ...], shares: Sequence[float]) -> list[int]:
    """By counting, which is quicker than sorting where there are 256 values only."""
    counted = np.cumsum(np.bincount(values.ravel(), minlength=256))
    return [int(np.searchsorted(counted, share * counted[-1])) for share in shares]


def _copies(looks: Sequence[_Look]) -> dict[int, tuple[str]]:
    """A warning, by its place, for each photo that is an earlier one again."""
    found: dict[int, tuple[str]] = {}
    known: list[tuple[_Look, UInt8[np.ndarray, " bits"]]] = []
    for place, look in enumerate(looks):
        if look.mark is None:
            continue
        same = next((other for other, _ in known if other.digest == look.digest), None)
        if same:
            found[place] = (f"is the same file as {same.file.name}",)
        elif known:
            marks = np.stack([one for _, one in known])
            apart = np.bitwise_count(marks ^ look.mark).mean(1) / 8
            if apart.min() <= NEAR:
                other = known[int(apart.argmin())][0]
                found[place] = (f"is almost the same picture as {other.file.name}",)
        known.append((look, look.mark))
    return found


# All photos


def _of_the_set(photos: Sequence[Finding], buckets: bool, one: bool) -> list[str]:
    found: list[str] = []
    if one and len(photos) > 1:
        found.append(f"{len(photos)} photos for a method that is made for one photo")
    elif not one and len(photos) == 1:
        found.append("one photo only, which overfits to that view; 3 to 5 are better")
    elif not one and 0 < len(photos) < FEW:
        found.append(f"{len(photos)} photos only; 3 to 5 are better")
    if len(photos) > MANY:
        found.append(f"{len(photos)} photos: more than {MANY} improve little")
    shapes = {_shape(one.size) for one in photos}
    if len(shapes) > 1 and not buckets:
        named = ", ".join(sorted(shapes))
        found.append(f"several aspect ratios ({named}): each is cropped to its middle")
    return found


def _shape(size: tuple[int, int]) -> str:
    """The nearest usual aspect ratio, width : height."""
    usual = ("1:1", "5:4", "4:3", "3:2", "16:9", "2:1", "3:1")
    ratio = size[1] / size[0]

    def distance(name: str) -> float:
        w, h = map(int, name.split(":"))
        return abs(np.log(max(ratio, 1 / ratio) * h / w))

    best = min(usual, key=distance)
    return best if ratio >= 1 else ":".join(reversed(best.split(":")))


def _needs(model: Path, trains_all: bool, out: Path) -> Requirements:
    counts = parameter_counts(model)
    trained = sum(count for part, count in counts.items() if part != "vae") if trains_all else 0
    there = next(p for p in (out.resolve(), *out.resolve().parents) if p.exists())
    return Requirements(
        memory=sum(counts.values()) * FLOAT32 + trained * TRAINING,
        disk=trained * LEARNT,
        memory_free=_memory_free(),
        disk_free=shutil.disk_usage(there).free,
    )


def _of_the_machine(needs: Requirements | None) -> list[str]:
    found: list[str] = []
    if needs and needs.disk_free is not None and needs.disk > needs.disk_free:
        found.append(
            f"learning takes {needs.disk / GB:.1f} GB of disk, which has {needs.disk_free / GB:.1f}"
        )
    if needs and needs.memory_free is not None and needs.memory > needs.memory_free:
        found.append(
            f"learning takes more than {needs.memory / GB:.1f} GB of memory; this computer has "
            f"{needs.memory_free / GB:.1f} free (a GPU's memory is not counted)"
        )
    return found


def _memory_free() -> int | None:
    """Bytes of memory that programs may still take, where the system tells it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration, ValueError):
        return None
