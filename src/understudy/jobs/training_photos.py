"""Photos of a folder made ready for learning: cropped, fitted to sizes, with captions and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from understudy.errors import InputError, PictureError
from understudy.jobs.work import Work
from understudy.learn import Subject
from understudy.learn.captions import has_writing
from understudy.learn.subject import PhotoGroup
from understudy.masks.find import find_mask
from understudy.masks.selection import Selection
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.pictures import region as regions
from understudy.pictures.folders import Folder, list_folder, read_caption
from understudy.pictures.likeness import copies_of, mark
from understudy.pictures.photo import Pixels, fit, read_photo
from understudy.pictures.shapes import bucket_of, step_of
from understudy.pictures.tensors import mask_doubts, read_mask, to_mask, to_tensor
from understudy.settings import LearnSettings

Box = tuple[int, int, int, int]  # x, y, width, height
Size = tuple[int, int]
NEARLY_ALL = 0.85  # a crop with this share of both sides of its photo is not worth making
UNREAD = ("hiper",)  # methods whose training prompt cannot be a caption


@dataclass(frozen=True)
class LearnWish:
    """A subject as the options name it: its photos, masks and class images are folders."""

    name: str
    class_noun: str
    photos: Path
    identifier: str | None = None
    masks: Path | None = None
    class_images: Path | None = None


def with_class_images(wishes: Sequence[LearnWish], given: Sequence[str]) -> list[LearnWish]:
    """The subjects with the folders of class images: "FOLDER" is for the first subject's class,
    "NOUN=FOLDER" for that noun.

    Raises InputError for a noun that no subject has, and for two folders for one noun.
    """
    found: dict[str, Path] = {}
    nouns = [wish.class_noun for wish in wishes]
    for words in given:
        noun, sign, folder = words.partition("=")
        if not sign or Path(words).is_dir():
            noun, folder = nouns[0], words
        if noun not in nouns or not folder:
            raise InputError(
                f"--class-images must be FOLDER or NOUN=FOLDER, with NOUN one of "
                f"{', '.join(dict.fromkeys(nouns))}. Got {words!r}."
            )
        if noun in found:
            raise InputError(
                f"--class-images is given twice for {noun}. Give one folder per class."
            )
        found[noun] = Path(folder)
    return [replace(wish, class_images=found.get(wish.class_noun)) for wish in wishes]


@dataclass(frozen=True)
class _Ready:
    """A photo and its mask at the size at which they are learnt."""

    photo: UInt8[np.ndarray, "h w 3"]
    mask: Float[np.ndarray, "h w"] | None
    whole: UInt8[np.ndarray, "h2 w2 3"]  # at the model's size, for previews
    whole_mask: Float[np.ndarray, "h2 w2"] | None


def subject_of(
    work: Work, model: DiffusionModel, settings: LearnSettings, wish: LearnWish
) -> Subject:
    """Read the photos of a folder, and the captions and masks beside them.

    Notes say what was cropped, weighted down or left out.
    """
    listing = list_folder(wish.photos)
    work.note(*listing.notes)
    captions = _captions(work, listing, settings)
    masks = _masks(work, listing, wish.masks)
    word = settings.crop_to.strip()
    ready: list[_Ready] = []
    marks: list[np.ndarray] = []
    for file in listing.files:
        opened = read_photo(file)
        work.note(*opened.notes)
        work.used("photos", file)
        pixels = opened.pixels
        marks.append(mark(pixels))
        drawn = _drawn(masks.get(file), opened.size) if masks else None
        work.note(*mask_doubts(masks[file]) if file in masks else ())
        box = crop_of(model, pixels, word, drawn if file in masks else None) if word else None
        if box is not None:
            x, y, width, height = box
            work.note(f"{file.name}: cropped to {x},{y},{width},{height} around the {word}")
            pixels = pixels[y : y + height, x : x + width]
            drawn = None if drawn is None else drawn[y : y + height, x : x + width]
        ready.append(_fitted(pixels, drawn, model, settings.buckets))
    weights = _weights(work, listing, marks, settings.weight_duplicates)
    groups = _groups(ready, captions, weights)
    writing = has_writing(wish.class_noun, captions, settings.writing)
    if settings.flip and writing:
        why = "" if settings.writing == "yes" else "; use --writing no to mirror them"
        work.note(f"photos of {wish.name} are not mirrored: the subject may have writing{why}")
    sizes = [group.size for group in groups]
    return Subject(
        wish.name,
        wish.class_noun,
        torch.cat([to_tensor(one.whole) for one in ready]),
        wish.identifier,
        _stacked([one.whole_mask for one in ready]),
        groups,
        _class_images(work, wish.class_images, sizes) if wish.class_images else {},
        writing,
    )


def crop_of(
    model: DiffusionModel, pixels: Pixels, word: str, mask: np.ndarray | None = None
) -> Box | None:
    """A box around what a word names in a photo, or around a mask, with a margin.

    None where nothing is found, or where the box is nearly the whole photo.
    """
    height, width = pixels.shape[:2]
    if mask is None:
        try:
            mask = find_mask(model, pixels, f"a photo of a {word}", Selection.of([word]))
        except InputError:
            return None
    x, y, wide, tall = regions.mask_box(mask)
    edge = round(regions.MARGIN * max(wide, tall))
    left, top = max(0, x - edge), max(0, y - edge)
    right, bottom = min(width, x + wide + edge), min(height, y + tall + edge)
    least = min(model.picture_size) // 2  # a crop with fewer pixels would be enlarged too much
    if right - left >= NEARLY_ALL * width and bottom - top >= NEARLY_ALL * height:
        return None
    return (
        None if min(right - left, bottom - top) < least else (left, top, right - left, bottom - top)
    )


def crops(photos: Path, model: str, word: str) -> dict[str, Box]:
    """By file name, the crops that `crop_of` makes of the readable photos of a folder."""
    found: dict[str, Box] = {}
    loaded = load(model)
    listing = list_folder(photos)
    for file in listing.files:
        with suppress(PictureError):  # named in the report already
            opened = read_photo(file)
            mask = _drawn(listing.masks.get(file), opened.size) if file in listing.masks else None
            box = crop_of(loaded, opened.pixels, word, mask)
            if box is not None:
                found[file.name] = box
    return found


def _drawn(mask: Path | None, size: Size) -> np.ndarray:
    """The mask of a photo of `size`; all white where only other photos have one."""
    if mask is None:
        return np.ones(size, np.float32)
    return read_mask(mask, size, size)[0, 0].numpy()


def _fitted(
    pixels: Pixels, mask: np.ndarray | None, model: DiffusionModel, buckets: bool
) -> _Ready:
    native = model.picture_size
    step = step_of(native, model.downscale)
    size = bucket_of((pixels.shape[0], pixels.shape[1]), native, step) if buckets else native
    whole = fit(pixels, native)
    photo = whole if size == native else fit(pixels, size)
    if mask is None:
        return _Ready(photo, None, whole, None)
    grey = np.rint(255 * mask).astype(np.uint8)[..., None].repeat(3, axis=2)
    at_size, at_native = (fit(grey, shape)[..., 0] / np.float32(255) for shape in (size, native))
    return _Ready(photo, at_size, whole, at_native)


def _groups(
    ready: Sequence[_Ready], captions: Sequence[str], weights: Sequence[float]
) -> tuple[PhotoGroup, ...]:
    """The photos by size, in the order in which sizes first appear."""
    places: dict[Size, list[int]] = {}
    for place, one in enumerate(ready):
        places.setdefault((one.photo.shape[0], one.photo.shape[1]), []).append(place)
    return tuple(
        PhotoGroup(
            torch.cat([to_tensor(ready[place].photo) for place in some]),
            _stacked([ready[place].mask for place in some]),
            tuple(captions[place] for place in some)
            if any(captions[place] for place in some)
            else (),
            tuple(weights[place] for place in some),
        )
        for some in places.values()
    )


def _stacked(masks: Sequence[np.ndarray | None]) -> Tensor | None:
    found = [to_mask(mask) for mask in masks if mask is not None]
    return torch.cat(found) if found else None


def _captions(work: Work, listing: Folder, settings: LearnSettings) -> list[str]:
    """The caption of each photo, "" where there is none or captions are not to be used."""
    if not listing.captions:
        return [""] * len(listing.files)
    if not settings.captions or settings.method in UNREAD:
        why = (
            "--no-captions"
            if not settings.captions
            else f"--method {settings.method} has one prompt for all photos"
        )
        work.note(f"captions beside the photos are not used: {why}")
        return [""] * len(listing.files)
    found: list[str] = []
    for file in listing.files:
        text = listing.captions.get(file)
        found.append(read_caption(text) if text else "")
        if text:
            work.used("captions", text)
            if not found[-1]:
                work.note(f"{text.name} is empty; --prompt is used for {file.name}")
    work.note(f"captions are used for {sum(map(bool, found))} of {len(found)} photos")
    return found


def _masks(work: Work, listing: Folder, folder: Path | None) -> Mapping[Path, Path]:
    """The mask of each photo that has one: of the folder of masks, else beside the photo.

    Raises PictureError where the folder has no mask that is named like a photo.
    """
    found = dict(listing.masks)
    if folder is not None:
        drawn = {file.stem: file for file in list_folder(folder).files}
        named = {file: drawn[file.stem] for file in listing.files if file.stem in drawn}
        if not named:
            raise PictureError(
                f"No mask in {folder} is named like a photo in {listing.path}, such as "
                f"{listing.files[0].stem}.png."
            )
        both = len(found.keys() & named.keys())
        if both:
            work.note(f"--masks replaces the mask beside the photo for {both} photos")
        found |= named
    elif found:
        work.note(f"masks beside the photos are used for {len(found)} of {len(listing.files)}")
    for file in found.values():
        work.used("mask", file)
    return found


def _weights(work: Work, listing: Folder, marks: Sequence[np.ndarray], wanted: bool) -> list[float]:
    """1 for each photo; near-duplicates share it."""
    if not wanted:
        return [1.0] * len(marks)
    first = copies_of(marks)
    for place, earliest in enumerate(first):
        if earliest != place:
            names = listing.files[place].name, listing.files[earliest].name
            work.note(
                f"{names[0]} is almost the same as {names[1]}; together they count as one photo"
            )
    return [1 / first.count(earliest) for earliest in first]


def _class_images(work: Work, folder: Path, sizes: Sequence[Size]) -> dict[Size, Tensor]:
    """The images of a folder, cropped in the middle to each size."""
    listing = list_folder(folder)
    work.note(*listing.notes)
    found: dict[Size, list[Tensor]] = {size: [] for size in sizes}
    for file in listing.files:
        pixels = read_photo(file).pixels
        work.used("class images", file)
        for size in sizes:
            found[size].append(to_tensor(fit(pixels, size)))
    return {size: torch.cat(some) for size, some in found.items()}
