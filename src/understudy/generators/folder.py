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
from torch import Tensor

from understudy.errors import ModelError, NoSuchModel, sentence
from understudy.files import spec
from understudy.files.atomic import replacing, write_json
from understudy.files.reading import read_json, sha256
from understudy.files.tensors import headers, load_tensors, write_tensors
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.generators.stylegan3.config import StyleGAN3Config
from understudy.generators.stylegan3.generator import StyleGAN3
from understudy.models.registry import device_of, dtype_of, generator_folder

FORMAT = "understudy generator 1"
STYLEGAN2, STYLEGAN3 = "stylegan2", "stylegan3"
MANIFEST, WEIGHTS = "generator.json", "generator.safetensors"
DECLARED = spec.Record(
    {
        "format": spec.Text(choices=(FORMAT,)),
        "kind": spec.Text(100),
        "config": spec.Table(spec.Data(), most=1_000),  # checked by the kind's own class
        "sha256": spec.Text(64),
    },
    {
        "source": spec.Record(
            {},
            {name: spec.Text(4096) for name in ("file", "sha256", "written_by")},
            others=spec.Data(),
        )
    },
)


def save_generator(
    folder: Path | str,
    config: StyleGAN2Config | StyleGAN3Config,
    tensors: Mapping[str, Tensor],
    source: Mapping[str, Any] | None = None,
) -> Path:
    """Write a generator, whole or not at all; source: where it came from, plain JSON data.

    Raises ModelError where tensors and configuration do not fit, OutputError.
    """
    kind = STYLEGAN2 if isinstance(config, StyleGAN2Config) else STYLEGAN3
    built(kind, config.to_dict(), tensors, name=str(folder))
    kept = {n: t.contiguous() for n, t in tensors.items() if not n.endswith(".resample_filter")}
    return write_folder(Path(folder), kind, config.to_dict(), kept, source or {})


def write_folder(
    target: Path,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: Mapping[str, Any],
) -> Path:
    """Write the two files of a generator of any kind, whole or not at all. Raises OutputError."""
    with replacing(target / WEIGHTS) as staged:
        write_tensors(staged, tensors)
        digest = _digest(staged)
        body = {
            "format": FORMAT,
            "kind": kind,
            "config": dict(config),
            "sha256": digest,
            "source": dict(source),
        }
    write_json(target / MANIFEST, body)
    return target


def load_generator(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
) -> StyleGAN2 | StyleGAN3:
    """Load a generator by the name of a built-in one ("toybox-gan") or from its folder, frozen.

    device: "auto" takes a GPU if there is one. dtype: float16 and bfloat16 hold for the higher
    blocks, as published. Raises ModelError for anything that is no generator folder of ours.
    """
    where, precision = device_of(device), dtype_of(dtype)
    folder = generator_folder(name)
    manifest = read_manifest(folder)
    tensors = weights_of(folder, manifest)  # they fit the configuration: nothing is built before
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    found = built(manifest["kind"], manifest["config"], wide, name=str(name))
    identity = json.dumps([found.config.to_dict(), manifest["sha256"]], sort_keys=True).encode()
    found.fingerprint = hashlib.sha256(identity).hexdigest()
    return found.to(where).compute_in(precision)


def built(
    kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str
) -> StyleGAN2 | StyleGAN3:
    """A generator of either kind from what a folder holds. Raises ModelError."""
    if kind == STYLEGAN2:
        return StyleGAN2.from_tensors(StyleGAN2Config.from_dict(config), tensors, name=name)
    if kind == STYLEGAN3:
        return StyleGAN3.from_tensors(StyleGAN3Config.from_dict(config), tensors, name=name)
    raise ModelError(
        f"{name} holds a {kind[:40]!r}; only a {STYLEGAN2} or a {STYLEGAN3} can be run here."
    )


def stylegan2(generator: StyleGAN2 | StyleGAN3) -> StyleGAN2:
    """The generator, where it has to be of the second generation. Raises ModelError otherwise."""
    if isinstance(generator, StyleGAN2):
        return generator
    raise ModelError(
        f"{generator.name} is a StyleGAN3, which supports only dragging. Use a StyleGAN2 "
        "here: toybox-gan, or a folder of one."
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What generator.json says. Raises ModelError for anything that is no generator's folder."""
    path = folder / MANIFEST
    if folder.is_file():
        raise ModelError(
            f"{folder} is a single file. Convert the checkpoint to a folder first: "
            f"understudy models convert {folder}"
        )
    if not folder.exists():
        raise NoSuchModel(
            f"There is no generator {str(folder)!r}: no built-in name and no folder. Expected "
            "toybox-gan, or a folder made by: understudy models convert"
        )
    if not path.is_file():
        raise ModelError(
            f"{folder} is not a generator: it has no {MANIFEST}. Expected toybox-gan, or a "
            "folder made by: understudy models convert"
        )
    body: Any = read_json(path, error=ModelError)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ModelError(f"{path} is not a generator of format {FORMAT!r}. Convert it again.")
    try:
        DECLARED.check(body, "it")
    except spec.Unfit as problem:
        raise ModelError(f"{path} is damaged: {problem}. Convert it again.") from None
    return body


def weights_of(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors, if they are those that the manifest tells of. Raises ModelError.

    The configuration is bounded and compared with the file's header before a tensor is read.
    """
    weights = folder / WEIGHTS
    try:
        if _digest(weights) != manifest["sha256"]:
            raise ModelError(
                f"{weights} does not match its checksum in {MANIFEST}. Convert it again."
            )
        told, _ = headers(weights)
        shapes = {name: shape for name, (_, shape) in told.items()}
        if problem := misfit(manifest["kind"], manifest["config"], shapes):
            raise ModelError(f"{weights} does not fit {MANIFEST}: {problem}. Convert it again.")
        spec.check_headers(told, (spec.Tensors(".+", "...", empty=True),))
        tensors, _ = load_tensors(weights)
        spec.check_finite(tensors)
    except (OSError, spec.Unfit) as error:
        raise ModelError(
            f"{weights} is missing or damaged: {sentence(error)} Convert it again."
        ) from error
    return tensors


def misfit(
    kind: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> str | None:
    """How tensors of these shapes differ from those of the network; None where they fit.

    The network is laid out without memory for its weights. Raises ModelError for a configuration
    that is none.
    """
    with torch.device("meta"):
        if kind == STYLEGAN3:
            wanted = StyleGAN3(StyleGAN3Config.from_dict(config)).state_dict()
        elif kind == STYLEGAN2:
            wanted = StyleGAN2(StyleGAN2Config.from_dict(config)).state_dict()
        else:
            return None  # `built` refuses it by name
    for name in sorted(wanted.keys() | shapes.keys()):
        want = tuple(wanted[name].shape) if name in wanted else None
        got = shapes.get(name)
        if want != got:
            return f"its tensor {spec.shown(name)} has the shape {got}, expected {want}"
    return None


def _digest(path: Path) -> str:
    return sha256(path, error=ModelError)
