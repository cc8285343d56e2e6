"""Inversions kept on disk, so that several edits of one photo never invert it twice.

The key names everything an inversion depends on; the cache never decides that something is close
enough. Entries appear whole or not at all, two processes that want the same one make it once, and
a damaged entry counts as missing. A folder that cannot be written is no error: nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from understudy.errors import InputError, OutputError
from understudy.files.cache import Cache
from understudy.invert.inversion import Inversion, InvertStep
from understudy.models.interface import DiffusionModel

Setting = bool | int | float | str


def cache_key(
    model: DiffusionModel, picture: str, prompt: str, settings: Mapping[str, Setting]
) -> str:
    """A file name for one inversion.

    Args:
        model: its weights as they are now (applied concepts included), schedule and precision.
        picture: SHA-256 of the picture's tensor.
        settings: method, steps, guidance and whatever else the method listens to.
    """
    parts = {
        "model": model.fingerprint,
        "precision": str(model.dtype),
        "schedule": model.schedule.identity,
        "picture": picture,
        "prompt": prompt,
        "settings": dict(settings),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_steps(
    cache: Cache, key: str, model: DiffusionModel, make: Callable[[], Iterator[InvertStep]]
) -> Iterator[InvertStep]:
    """The steps of `make`, its inversion kept under `key`; a single step where it is kept already.

    While one process makes an entry, others that want it wait.
    """
    name = f"{key}.safetensors"
    file = cache.folder / name
    # Two processes that invert the same photo would both spend minutes on it.
    with cache.making(name):
        kept = _recall(file, model)
        if kept is not None:
            cache.used(name)
            yield InvertStep(0, 1, kept.times[0], kept.noise, inversion=kept, cached="found")
            return
        for step in make():
            if step.inversion is not None:
                # A full disk must not cost the user an inversion that is already made.
                with suppress(OutputError):
                    step.inversion.save(file)
                    step = replace(step, cached="saved")
                    cache.kept(name)
            yield step


def _recall(file: Path, model: DiffusionModel) -> Inversion | None:
    """The kept inversion; None where there is none that can be read and replayed."""
    try:
        kept = Inversion.load(file, model.device)
        kept.check(model)
    except InputError:
        return None
    # An entry of an interrupted machine may be readable and yet hold garbage.
    return kept if bool(kept.trajectory.isfinite().all()) else None
