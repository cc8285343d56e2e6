"""toybox-flow as a whole model folder: its own files, and two parts of toybox-diffusion.

The autoencoder and the first text encoder of toybox-flow are those of toybox-diffusion (the text
encoder as a CLIPTextModelWithProjection, whose projection is the identity), and so are its class
latents, up to their scale. The package holds these once. The whole folder, which any program for
diffusers models loads, is put together in the user's cache when it is first asked for, and again
where it was changed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy._version import __version__
from understudy.errors import InputError, ModelError, OutputError, sentence
from understudy.files.atomic import remove_folder, staging, unwritable, write_json
from understudy.files.cache import Cache
from understudy.files.origins import Origin
from understudy.files.reading import read_json, sha256

if TYPE_CHECKING:
    from torch import Tensor

FILE = "shared_parts.json"  # beside the model's own files: which weights of the other one it needs
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
CLASS_LATENTS = "class_latents.safetensors"
SHARED = (VAE, TEXT_ENCODER, CLASS_LATENTS)


def has_shared_parts(folder: Path) -> bool:
    """Whether the folder lacks weights that another built-in model holds."""
    return (folder / FILE).is_file()


def whole_folder(name: str, own: Path, other: Path) -> Path:
    """The whole folder of the model `name` in the user's cache; made if it is missing or changed.

    own: the model's own files, in the package. other: the folder of toybox-diffusion. Raises
    ModelError where a file of the package is missing or `other` is not the model that this one was
    trained with, OutputError where the cache cannot be written.
    """
    sources = _sources(name, own, other)
    key = hashlib.sha256(__version__.encode())
    for path, source in {**{path: other / path for path in SHARED}, **sources}.items():
        key.update(f"{path} {sha256(source, error=ModelError)}\n".encode())
    entry = f"{name}-{key.hexdigest()[:24]}"
    cache = Cache.user("models", [Origin("model", name)])
    folder = cache.folder / entry
    with cache.making(entry):
        if _is_whole(folder, sources, own, other):
            cache.used(entry)
            return folder
        try:
            remove_folder(folder)
            with staging(folder) as staged:
                _write(staged, sources, own, other)
        except (OSError, OutputError) as error:
            told = unwritable(folder, error) if isinstance(error, OSError) else error
            raise OutputError(
                f"The files of {name} are put together in the cache. {told} "
                "UNDERSTUDY_CACHE=FOLDER names another place for the cache."
            ) from error
        cache.kept(entry)
    return folder


def take_out(folder: Path, other: Path, package: Path) -> None:
    """Write the own files of a whole model folder to `package`, in the place of what is there.

    Raises ModelError where the shared parts in `folder` are not those of `other`.
    """
    if not _is_whole(folder, {VAE: other / VAE}, folder, other):
        raise ModelError(
            f"{folder} has another autoencoder, text encoder or class latents than {other}. Train "
            "it with those."
        )
    digests = {path: sha256(other / path) for path in SHARED}
    with staging(package.with_name(f"{package.name}.new")) as staged:
        shutil.copytree(folder, staged, dirs_exist_ok=True)
        for path in SHARED:
            (staged / path).unlink()
        write_json(staged / FILE, digests)
    remove_folder(package)
    package.with_name(f"{package.name}.new").rename(package)


def made_files(own: Path, other: Path) -> dict[str, tuple[dict[str, Tensor], dict[str, str]]]:
    """The tensors and notes of files made from those of toybox-diffusion, by their paths.

    own: folder with the model's vae/config.json. Raises ModelError for a damaged file.
    """
    return {TEXT_ENCODER: _with_projection(other), CLASS_LATENTS: _rescaled(own, other)}


def _with_projection(other: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The text encoder under the names of CLIPTextModelWithProjection."""
    import torch

    plain, notes = _loaded(other / TEXT_ENCODER)
    found = {f"text_model.{key.removeprefix('text_model.')}": one for key, one in plain.items()}
    norm = found["text_model.final_layer_norm.weight"]
    projection = torch.eye(len(norm), dtype=norm.dtype)
    return {**found, "text_projection.weight": projection}, notes


def _rescaled(own: Path, other: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The class latents in the scale of the model's own autoencoder configuration."""
    latents, notes = _loaded(other / CLASS_LATENTS)
    scale = _scaling_factor(own) / _scaling_factor(other)
    return {noun: (one.double() * scale).to(one.dtype) for noun, one in latents.items()}, notes


def _scaling_factor(folder: Path) -> float:
    config: Any = read_json(folder / "vae" / "config.json", error=ModelError)
    return float(config["scaling_factor"])


def _loaded(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from understudy.files.tensors import load_tensors

    try:
        return load_tensors(file)
    except OSError as error:
        raise ModelError(f"{file} is damaged: {sentence(error)}") from error


def _sources(name: str, own: Path, other: Path) -> dict[str, Path]:
    """The files that are copied, by their path in the whole folder."""
    digests: Any = read_json(own / FILE, error=ModelError)
    for path in SHARED:
        if sha256(other / path, error=ModelError) != digests.get(path):
            raise ModelError(
                f"{name} was trained with another version of {other / path}. Install understudy "
                "again."
            )
    files = (file for file in sorted(own.rglob("*")) if file.is_file() and file.name != FILE)
    found = {file.relative_to(own).as_posix(): file for file in files}
    return {**found, VAE: other / VAE}


def _is_whole(folder: Path, sources: Mapping[str, Path], own: Path, other: Path) -> bool:
    """Whether the folder holds the files as they would be written now."""
    try:
        copied = all(sha256(folder / path) == sha256(one) for path, one in sources.items())
        return copied and all(
            _equal(folder / path, tensors) for path, (tensors, _) in made_files(own, other).items()
        )
    except (InputError, OSError):  # missing, damaged or not readable
        return False


def _equal(file: Path, expected: Mapping[str, Tensor]) -> bool:
    import torch

    from understudy.files.tensors import load_tensors

    found, _ = load_tensors(file)
    return found.keys() == expected.keys() and all(
        found[name].dtype == one.dtype and torch.equal(found[name], one)
        for name, one in expected.items()
    )


def _write(folder: Path, sources: Mapping[str, Path], own: Path, other: Path) -> None:
    for path, source in sources.items():
        (folder / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / path)
    write_made(folder, own, other)


def write_made(folder: Path, own: Path, other: Path) -> None:
    """Write the files of `made_files` into a folder. Whatever the disk refuses is an OSError."""
    from understudy.files.tensors import write_tensors

    for path, (tensors, notes) in made_files(own, other).items():
        (folder / path).parent.mkdir(exist_ok=True)
        write_tensors(folder / path, tensors, notes)
