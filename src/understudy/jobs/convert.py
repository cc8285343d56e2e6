"""The job `convert`: a checkpoint file to a model folder, without running any code of it."""

from __future__ import annotations

from pathlib import Path

from understudy.files.atomic import check_folder_writable
from understudy.generators.convert import convert as convert_generator
from understudy.jobs.events import Events, Note, Result
from understudy.jobs.work import Work
from understudy.models.check import check_any
from understudy.models.registry import find
from understudy.models.write_folder import copy_folder

DIFFUSION = (".safetensors", ".ckpt")  # of a diffusion or flow model in a single file


def convert(work: Work, *, file: Path, out: Path) -> Events[Result]:
    """Convert a checkpoint; a generator or a diffusion model is told by the ending of its name."""
    for kind, manifest in (("generator", "generator.json"), ("model", "model_index.json")):
        if (out / manifest).is_file():  # by an earlier attempt: it is written whole or not at all
            return Result({"folder": str(out), "kind": kind}, (f"{out}   converted already",))
    check_folder_writable(out)
    yield Note(f"converting {file.name}; no code in it is run.")
    if file.suffix.lower() in DIFFUSION:
        made = find(str(file))
        kind = check_any(made, str(file))["kind"]
        copy_folder(made, out)
    else:
        kind = convert_generator(file, out).kind
    return Result({"folder": str(out), "kind": kind}, (f"{out}   {kind}",), ())
