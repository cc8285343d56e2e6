"""Converts an untrusted checkpoint to a generator folder; the file is read in a child process
with limits.

The child (`quarantine`) reads; this side never opens the file but for its hash. What the child
leaves is safetensors and JSON, checked like anybody's: the tensors must fit the network strictly.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import understudy
from understudy.errors import ModelError, NoSuchModel
from understudy.files import spec
from understudy.files.atomic import check_folder_writable
from understudy.files.reading import parse_json, read_json, sha256
from understudy.files.tensors import load_tensors
from understudy.generators.folder import (
    MANIFEST,
    STYLEGAN2,
    STYLEGAN3,
    misfit,
    read_manifest,
    weights_of,
    write_folder,
)
from understudy.generators.quarantine import FOUND, REFUSED, WEIGHTS, processor_seconds

DECLARED = spec.Record(  # of what the child found
    {
        "kind": spec.Text(choices=(STYLEGAN2, STYLEGAN3)),
        "config": spec.Table(spec.Data(), most=1_000),
        "written_by": spec.Text(),
    }
)
MAX_BYTES = 8 * 2**30
MAX_ANSWER = 1_000_000  # characters of JSON
HARMLESS = ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP", "LANG", "LC_ALL")  # of our environment


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """A generator found in a file.

    kind: "stylegan2" or "stylegan3". config: that of `StyleGAN2Config` or `StyleGAN3Config`.
    sha256: of the file.
    """

    kind: str
    written_by: str
    sha256: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def convert(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> ConvertedCheckpoint:
    """Read a checkpoint, write `generator.json` and `generator.safetensors`, whole or not at all.

    Raises ModelError in one line that names the file, OutputError.
    """
    check_folder_writable(folder)
    found = read_checkpoint(path)
    source = {"file": Path(path).name, "sha256": found.sha256, "written_by": found.written_by}
    write_folder(Path(folder), found.kind, found.config, found.tensors, source)
    return found


def read_checkpoint(path: str | os.PathLike[str]) -> ConvertedCheckpoint:
    """Find the generator in a file of another program without running anything in it.

    Read: NVIDIA's .pkl (stylegan2-ada, stylegan3, StyleGAN-Human, TensorFlow), modules and
    state_dicts saved by torch.save (PTI), rosinality's .pt. Raises ModelError.
    """
    file = Path(path)
    _check_file(file)
    with tempfile.TemporaryDirectory(prefix="understudy-") as scratch:
        _read_apart(file, Path(scratch))
        try:
            described: dict[str, Any] = read_json(Path(scratch) / FOUND)
            DECLARED.check(described, "it")
            tensors, _ = load_tensors(Path(scratch) / WEIGHTS)
            spec.check_finite(tensors)
        except (OSError, ValueError) as error:
            raise _refusal(
                file, f"the process that reads it returned nothing usable ({error})"
            ) from error
    kind, config = described["kind"], described["config"]
    _check_fits(file, kind, config, tensors)
    return ConvertedCheckpoint(kind, described["written_by"], _digest(file), config, tensors)


def check_folder(folder: str | os.PathLike[str]) -> ConvertedCheckpoint:
    """A converted folder: whole, its weights those of its hash, and fitting the network.

    Raises ModelError.
    """
    manifest = read_manifest(Path(folder))
    tensors = weights_of(Path(folder), manifest)
    kind, config = str(manifest["kind"]), dict(manifest["config"])
    _check_fits(Path(folder) / MANIFEST, kind, config, tensors)
    source = manifest.get("source") or {}
    return ConvertedCheckpoint(
        kind, str(source.get("written_by", "understudy")), manifest["sha256"], config, tensors
    )


def _check_fits(
    file: Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Every tensor of the network is there in its shape, and no other."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        problem = misfit(kind, config, shapes)
    except ModelError as error:
        raise _refusal(file, str(error)) from error
    if problem:
        raise _refusal(file, problem)


def _check_file(file: Path) -> None:
    if not file.exists():
        raise NoSuchModel(f"There is no file {file}. Check the path.")
    if not file.is_file():
        raise ModelError(f"{file} is not an ordinary file. Give a generator's .pkl or .pt file.")
    if not os.access(file, os.R_OK):
        raise ModelError(f"{file} may not be read. Change its permissions.")
    if file.stat().st_size > MAX_BYTES:
        raise ModelError(f"{file} has more than {MAX_BYTES // 2**30} GB, more than any generator.")


def _read_apart(file: Path, scratch: Path) -> None:
    """Run the child to its end, or end it. Raises ModelError with the child's reason, or ours."""
    home = str(Path(understudy.__file__).resolve().parent.parent)
    kept = {name: os.environ[name] for name in HARMLESS if name in os.environ}
    environment = {**kept, "PYTHONPATH": home, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-s", "-B", "-m", "understudy.generators.quarantine"]
    seconds = 2 * processor_seconds(file.stat().st_size)
    try:
        done = subprocess.run(
            [*command, str(file.resolve()), str(scratch)],
            env=environment,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refusal(file, f"reading it took more than {seconds} seconds") from None
    if done.returncode == 0:
        return
    if done.returncode == REFUSED and len(done.stdout) < MAX_ANSWER:
        answer = parse_json(done.stdout, str(file), error=ModelError)
        refusal = _refusal(file, str(answer["refused"]))
        raise NoSuchModel(str(refusal)) if answer.get("foreign") else refusal
    if done.returncode < 0:  # ended by a signal: a limit, or the system
        raise _refusal(file, "reading it takes more time or memory than its size explains")
    raise _refusal(file, f"the process that reads it ended with code {done.returncode}")


def _refusal(file: Path, reason: str) -> ModelError:
    return ModelError(f"{file} cannot be read as a generator: {reason}. No code in it was run.")


def _digest(file: Path) -> str:
    return sha256(file, most=MAX_BYTES, error=ModelError)
