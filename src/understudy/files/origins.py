"""What an entry of the cache was made from, as a small JSON file beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from understudy.errors import InputError
from understudy.files.atomic import replacing
from understudy.files.reading import read_json

FORMAT = 1


@dataclass(frozen=True, order=True)
class Origin:
    """A file that an entry was made from: its role, its bare name, its SHA-256 ("" if unknown)."""

    role: str
    name: str
    sha256: str = ""


def read_record(path: Path) -> tuple[Origin, ...]:
    """What an entry was made from; nothing where the record is missing or damaged."""
    try:
        body: Any = read_json(path)
        return tuple(Origin(**one) for one in cast(list[Any], body["made_from"]))
    except (InputError, KeyError, TypeError):
        return ()


def write_record(path: Path, made_from: Iterable[Origin]) -> None:
    """The reverse of `read_record`. Raises OutputError."""
    body = {"format": FORMAT, "made_from": [asdict(one) for one in made_from]}
    with replacing(path) as staged:
        staged.write_text(json.dumps(body, ensure_ascii=False) + "\n", encoding="utf-8")
