"""A folder of photos, and what lies beside them: captions and masks.

NAME.txt is the caption of the photo NAME.jpg (or .png, ...). NAME.mask.png, NAME-mask.png or
NAME_mask.png is its mask, white where the subject is; a mask is not a photo. Free of torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from understudy.errors import InputError, PictureError
from understudy.files.reading import check_place, read_bytes
from understudy.pictures.photo import READABLE, SUFFIXES

CAPTION = ".txt"
MASKS = (".mask", "-mask", "_mask")  # ends of a mask's name, after the name of its photo
MAX_CAPTION = 10_000  # bytes


@dataclass(frozen=True)
class Folder:
    """The pictures of a folder, sorted by name, and a note for each entry left out.

    captions, masks: by photo, the files beside those photos that have one.
    """

    path: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    captions: Mapping[Path, Path] = field(default_factory=dict[Path, Path])
    masks: Mapping[Path, Path] = field(default_factory=dict[Path, Path])


def list_folder(path: str | os.PathLike[str]) -> Folder:
    """The pictures directly in a folder, and what lies beside them.

    Hidden files and sub-folders are left out, with notes. Raises PictureError where there is no
    folder, or no picture in it.
    """
    folder = Path(path)
    check_place(folder, error=PictureError)
    if not folder.exists():
        raise PictureError(f"There is no folder {folder}. Check the path.")
    if not folder.is_dir():
        raise PictureError(f"{folder} is a file. Give the folder that holds the photos.")
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    pictures = [e for e in entries if e.suffix.lower() in SUFFIXES and not e.is_dir()]
    masks = _masks(pictures)
    files = tuple(file for file in pictures if file not in masks.values())
    if not files:
        raise PictureError(f"{folder} holds no picture. Expected at least one of: {READABLE}.")
    captions = {file: file.with_suffix(CAPTION) for file in files}
    captions = {file: text for file, text in captions.items() if text in entries}
    known = {*pictures, *captions.values()}
    notes = [_left_out(entry, folder) for entry in entries if entry not in known]
    if hidden := sum(entry.name.startswith(".") for entry in folder.iterdir()):
        notes.append(f"hidden files were skipped: {hidden}.")
    return Folder(folder, files, tuple(notes), captions, masks)


def read_caption(path: Path) -> str:
    """The text of a caption file, on one line; "" for an empty file.

    Raises InputError, naming the file: unreadable, too long, or not UTF-8.
    """
    data = read_bytes(path, most=MAX_CAPTION, error=InputError)
    try:
        return " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text. Save the caption as UTF-8.") from None


def _masks(pictures: list[Path]) -> dict[Path, Path]:
    """The masks among the pictures, by the photo that each is named like."""
    stems = {file.stem: file for file in pictures}
    found: dict[Path, Path] = {}
    for photo in pictures:
        for end in MASKS:
            drawn = stems.get(photo.stem + end)
            if drawn is not None:
                found.setdefault(photo, drawn)
    return found


def _left_out(entry: Path, folder: Path) -> str:
    if entry.is_dir():
        return f"{entry.name}/ is a folder inside {folder} and was skipped."
    if entry.suffix.lower() == CAPTION:
        return f"{entry.name} is a caption without a photo and was skipped."
    return f"{entry.name} is not a picture and was skipped."
