"""The job `batch row`: one row of a batch in a worker, its outcome as the result.

Inputs of other file systems are fetched first, results are uploaded afterwards. What a row does
wrong becomes its outcome, so that a worker goes on with the next row.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from understudy.batch.places import Place, fetched, is_address, uploaded
from understudy.batch.tasks import PICTURES, Task
from understudy.errors import PictureError, UnderstudyError
from understudy.files.reading import sha256
from understudy.jobs.events import Events, Result
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.jobs.work import Work
from understudy.jobs.worker import placed, resumed
from understudy.pictures.metrics import psnr, ssim
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import read_recipe
from understudy.pictures.tensors import to_tensor

MEASURES = {"psnr": psnr, "ssim": ssim}
Outcome = dict[str, Any]


def batch_row(
    work: Work,
    *,
    task: str,
    out: Path,
    results: str,
    threads: int = 1,
    device: str = "auto",
    scores: list[str] = [],  # noqa: B006
) -> Events[Result]:
    """Do the job of a row, and say what came of it.

    task: as JSON. out: a local folder for results. results: the place they end up in, out itself
    or an address. threads: of torch on a CPU: another number gives other rounding. device: taken
    by jobs that name none.
    """
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    asked, began = Task.from_json(task), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = out if not is_address(results) else Path(scratch) / "made"
        try:
            job = located(placed(asked.job, device), folder, Path(scratch) / "given")
            job = resumed(job)  # a worker that died left checkpoints of a subject it learnt
            made = Result({})
            for event in run(job, work.pool):
                if isinstance(event, Result):
                    made = event
                else:
                    yield event
            outcome = described(made, folder)
            outcome["scores"] = scored(job, made, scores)
            if is_address(results):
                uploaded(folder, Place(results))
        except (UnderstudyError, MemoryError, torch.OutOfMemoryError) as error:
            outcome = failed(error)
    outcome["seconds"] = round(time.monotonic() - began, 3)
    return Result({"index": asked.index, "key": asked.key, **outcome})


def located(job: Job, folder: Path, scratch: Path) -> Job:
    """The job with local inputs, and its result in a folder."""
    inputs = {name: _located(value, scratch) for name, value in job.inputs.items()}
    place = folder / str(job.inputs["out"])
    place.parent.mkdir(parents=True, exist_ok=True)
    return replace(job, inputs={**inputs, "out": str(place)})


def _located(value: Any, scratch: Path) -> Any:
    if isinstance(value, list):
        return [_located(one, scratch) for one in value]  # pyright: ignore
    if isinstance(value, str) and is_address(value):
        return str(fetched(value, scratch))
    return value


def described(made: Result, folder: Path) -> Outcome:
    """What a job wrote: names and digests of its files, its values, and its recipe.

    The digest of a picture is of its pixels: manifests hold times, so files differ byte by byte.
    """
    files = [Path(file) for file in made.files]
    pictures = [file for file in files if file.suffix in PICTURES]
    values = {name: value for name, value in made.values.items() if not _is_path(value, files)}
    return {
        "status": "done",
        "files": [_relative(file, folder) for file in files],
        "digests": [digest(file) for file in files],
        "values": json.dumps(values, sort_keys=True),
        "recipe": _recipe(pictures),
    }


def _recipe(pictures: list[Path]) -> str:
    """The recipe of the first picture; "" where it has none, like the sheets of an evaluation."""
    try:
        return read_recipe(pictures[0]).to_json() if pictures else ""
    except PictureError:
        return ""


def failed(error: BaseException) -> Outcome:
    """The outcome of a row that could not be done."""
    text = " ".join(str(error).split()) or type(error).__name__
    return {"status": "failed", "error": text, "error_kind": type(error).__name__}


def digest(file: Path) -> str:
    """SHA-256 of a picture's pixels, of any other file's bytes; "" for a folder."""
    if file.suffix in PICTURES:
        pixels = read_photo(file).pixels
        return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return sha256(file) if file.is_file() else ""


def scored(job: Job, made: Result, wanted: list[str]) -> str:
    """The wanted scores of the first picture against the photo, as JSON; "" where none applies."""
    pictures = [Path(file) for file in made.files if Path(file).suffix in PICTURES]
    if not wanted or not pictures:
        return ""
    photo = job.inputs.get("photo")
    if photo is None:
        return ""
    before, after = (to_tensor(read_photo(Path(one)).pixels) for one in (str(photo), pictures[0]))
    if before.shape != after.shape:
        return ""
    found = {name: float(MEASURES[name](after, before).mean()) for name in wanted}
    return json.dumps({name: round(value, 4) for name, value in found.items()})


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name


def _is_path(value: Any, files: list[Path]) -> bool:
    """Whether a value only repeats where the results are."""
    names = {str(file) for file in files}
    return value in names if isinstance(value, str) else (
        isinstance(value, list) and bool(value) and all(one in names for one in value)  # pyright: ignore
    )  # fmt: skip
