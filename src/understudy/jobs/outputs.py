"""What a job will write: never over one of its inputs, and said where it replaces a file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from understudy.errors import InputError

OUTPUTS = ("out", "film", "save", "view")  # inputs that say where results go
IN_PLACE = ("session",)  # a drag that goes on may be saved where it was
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def files_read(verb: str, inputs: Mapping[str, Any], paths: Collection[str]) -> Iterator[Path]:
    """The files and folders that a job reads, of its inputs that are paths."""
    written = (*OUTPUTS, *IN_PLACE, *(("picture",) if verb == "project" else ()))
    for name in sorted(paths):
        if name not in written:
            value = inputs.get(name)
            given = cast("list[Any]", value) if isinstance(value, list) else [value]
            yield from (Path(str(one)) for one in given if one)


def check_not_read(file: Path, read: Collection[Path]) -> None:
    """Raise InputError where writing `file` would replace one of `read`, or a photo in it."""
    for path in read:
        if _same(file, path):
            raise InputError(
                f"{file} is an input of this command and would be replaced. Give another place."
            )
        if file.suffix.lower() in PICTURES and file.is_file() and _same(file.parent, path):
            raise InputError(
                f"{file} is one of the photos in {path} and would be replaced. Give another place."
            )


def _same(one: Path, other: Path) -> bool:
    """Whether both are there and the same file or folder, by whatever names."""
    with suppress(OSError, ValueError):
        return os.path.samefile(one, other)
    return False
