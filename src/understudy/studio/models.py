"""Models and generators that a page can choose, by name: built in, in given folders, in the cache
of the hub. A name that is not in the list is refused, so that no page makes the server open a path.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.errors import InputError, ModelError, listed, one_line
from understudy.files.builtin import BUILT_IN, WEIGHTS
from understudy.models.registry import KNOWN, generators, here, models_in
from understudy.settings.suits import shows_toys
from understudy.studio.config import Config

MODEL, GENERATOR = "model", "generator"
CHECK_SECONDS = 120
CONVERTIBLE = (".pkl", ".pt", ".pth", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class Known:
    """A model of the list. wanted: what `--model` or `--generator` takes; folder: its files."""

    id: str
    kind: str
    source: str
    wanted: str
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """The model as a page sees it: without its path."""
        size = sum(one.stat().st_size for one in self.folder.rglob("*") if one.is_file())
        toys = self.kind == GENERATOR or shows_toys(self.wanted)
        body = {"id": self.id, "kind": self.kind, "source": self.source, "bytes": size}
        return {**body, "toys": toys and self.source == "built-in"}


class Models:
    """The models of one server."""

    def __init__(self, config: Config) -> None:
        self.folders = (config.data / "models", *config.models)

    def all(self) -> list[Known]:
        """Every model and generator, the built-in ones first; of equal names the first counts."""
        found: dict[tuple[str, str], Known] = {}
        for one in self._found():
            found.setdefault((one.kind, one.id), one)
        return list(found.values())

    def wanted(self, name: str, kind: str) -> str:
        """What the library calls a model of the list. Raises InputError for any other name."""
        known = {one.id: one.wanted for one in self.all() if one.kind == kind}
        if name not in known:
            raise InputError(f"There is no {kind} {name[:200]!r}. There are: {listed(known)}.")
        return known[name]

    def files(self) -> list[Path]:
        """Checkpoint files in the model folders that can be converted."""
        found: list[Path] = []
        for folder in self.folders:
            if folder.is_dir():
                files = (one for one in sorted(folder.iterdir()) if one.is_file())
                found += [one for one in files if one.suffix.lower() in CONVERTIBLE]
        return found

    def file(self, name: str) -> Path:
        """A checkpoint file by its name. Raises InputError for any other name."""
        known = {one.name: one for one in reversed(self.files())}
        if name not in known:
            raise InputError(
                f"There is no checkpoint {name[:200]!r}. Put files into {self.folders[0].name}/ of "
                f"the studio's data folder. There are: {listed(known) or 'none'}."
            )
        return known[name]

    def _found(self) -> Iterator[Known]:
        for name, folder in BUILT_IN.items():
            if (WEIGHTS / folder).is_dir():
                yield Known(name, MODEL, "built-in", name, WEIGHTS / folder)
        for name in generators():
            yield Known(name, GENERATOR, "built-in", name, WEIGHTS / name)
        for place in self.folders:
            if not place.is_dir():
                continue
            for folder, option in models_in(place):
                kind = MODEL if option == "--model" else GENERATOR
                yield Known(folder.name, kind, "folder", str(folder), folder)
        for name in KNOWN:
            try:
                folder = here(name)
            except ModelError:
                continue
            if folder is not None:
                yield Known(name, MODEL, "hub cache", name, folder)


def checked(wanted: str) -> tuple[bool, str]:
    """Whether a model is complete, and one line about it, by the command line in a process."""
    words = [sys.executable, "-m", "understudy.cli", "models", "check", "--", wanted]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        return False, f"The check took more than {CHECK_SECONDS} s. Check it on the command line."
    if done.returncode:
        return False, one_line(done.stderr.removeprefix("understudy: "))
    return True, one_line(done.stdout.rpartition("   ")[2]) or "complete"
