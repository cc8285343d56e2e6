"""Generators as folders: `generator.json` (what it is) and `generator.safetensors` (its weights).

The only layout that is loaded. Checkpoints of other programs are converted to it first; tensors
bear the names of the module's own state dictionary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from understudy.errors import ModelError, OutputError
from understudy.files import replacing
from understudy.models.registry import device_of, dtype_of, generator_folder
from understudy.models.stylegan2 import StyleGAN2
from understudy.models.stylegan2_config import StyleGAN2Config

FORMAT, KIND = "understudy generator 1", "stylegan2"
MANIFEST, WEIGHTS = "generator.json", "generator.safetensors"


def save_generator(
    folder: Path | str,
    config: StyleGAN2Config,
    tensors: Mapping[str, Tensor],
    source: Mapping[str, Any] | None = None,
) -> Path:
    """Write a generator, whole or not at all; source: where it came from, plain JSON data.

    Raises ModelError where tensors and configuration do not fit, OutputError.
    """
    StyleGAN2.from_tensors(config, tensors, name=str(folder))
    kept = {n: t.contiguous() for n, t in tensors.items() if not n.endswith(".resample_filter")}
    return write_folder(Path(folder), KIND, config.to_dict(), kept, source or {})


def write_folder(
    target: Path,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: Mapping[str, Any],
) -> Path:
    """Write the two files of a generator of any kind, whole or not at all. Raises OutputError."""
    with replacing(target / WEIGHTS) as staged:
        try:
            save_file(dict(tensors), staged)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OutputError(f"Cannot write {target / WEIGHTS}: {error}.") from error
        digest = _digest(staged)
        body = {
            "format": FORMAT,
            "kind": kind,
            "config": dict(config),
            "sha256": digest,
            "source": dict(source),
        }
    with replacing(target / MANIFEST) as staged:
        staged.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    return target


def load_generator(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
) -> StyleGAN2:
    """Load a generator by the name of a built-in one ("toybox-gan") or from its folder, frozen.

    device: "auto" takes a GPU if there is one. dtype: float16 and bfloat16 hold for the higher
    blocks, as published. Raises ModelError for anything that is no generator folder of ours.
    """
    where, precision = device_of(device), dtype_of(dtype)
    folder = generator_folder(name)
    manifest = read_manifest(folder)
    if manifest["kind"] != KIND:
        raise ModelError(f"{folder} holds a {manifest['kind']}; only a {KIND} can be run here.")
    tensors = weights_of(folder, manifest)
    config = StyleGAN2Config.from_dict(manifest["config"])
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    identity = json.dumps([config.to_dict(), manifest["sha256"]], sort_keys=True).encode()
    fingerprint = hashlib.sha256(identity).hexdigest()
    found = StyleGAN2.from_tensors(config, wide, name=str(name), fingerprint=fingerprint)
    return found.to(where).compute_in(precision)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What generator.json says. Raises ModelError for anything that is no generator's folder."""
    path = folder / MANIFEST
    if folder.is_file():
        raise ModelError(
            f"{folder} is a single file. Convert the checkpoint to a folder first: "
            f"understudy models convert {folder}"
        )
    if not path.is_file():
        raise ModelError(
            f"{folder} is no generator: there is no {MANIFEST} in it. Wanted toybox-gan, or a "
            "folder made by: understudy models convert"
        )
    try:
        body: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Convert it again.") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ModelError(f"{path} is no generator of the format {FORMAT!r}. Convert it again.")
    for key, kind in (("kind", str), ("config", dict), ("sha256", str)):
        if not isinstance(body.get(key), kind):
            raise ModelError(f"{path} is damaged: it lacks {key}. Convert it again.")
    return body


def weights_of(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors, if they are those that the manifest tells of. Raises ModelError."""
    weights = folder / WEIGHTS
    try:
        digest = _digest(weights)
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{weights} is missing or damaged: {error}. Convert it again.") from error
    if digest != manifest["sha256"]:
        raise ModelError(f"{weights} is not the file that {MANIFEST} tells of. Convert it again.")
    return tensors


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
