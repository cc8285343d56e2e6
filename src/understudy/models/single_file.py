"""A single checkpoint file -> a model folder in the cache.

Such a file holds the weights under their first names (CompVis, Stability) and nothing else. The
shapes tell the networks' configurations, diffusers renames the weights of Stable Diffusion 1.x, 2.x
and XL; files of flow transformers are converted in transformer/single_file.py. The folder that
results is kept, and loaded and checked as any other.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from understudy.errors import InputError, ModelError, sentence
from understudy.files.atomic import write_json
from understudy.files.cache import Cache
from understudy.files.origins import Origin
from understudy.files.reading import read_json
from understudy.files.tensors import save_tensors
from understudy.models.family import tokenizer_of
from understudy.models.parts import check_model
from understudy.models.pipeline_index import config_of, index_of
from understudy.models.single_file_marks import scaling_factor_of, scheduler_of, sidecar
from understudy.models.single_file_shapes import (
    CONFIGS,
    UNET,
    VAE,
    family_of,
    refuse_unused,
    unplaced,
)
from understudy.models.tokenizer_files import check_tokenizer
from understudy.models.transformer.load import check_flow_model
from understudy.models.transformer.single_file import FindPart, flow_layout, write_flow_folder
from understudy.models.transformer.single_file_shapes import Layout
from understudy.untrusted.checkpoint_file import read_file

FORMAT = 4
PARTS = ("vae", "scheduler", "text_encoder", "text_encoder_2", "text_encoder_3")
LEFT_OUT = "left-out.json"  # in the folder: a line on tensors that are not used


def as_folder(file: Path, find_tokenizer: Callable[[], Path], find_part: FindPart) -> Path:
    """The file's model folder, made when it is first asked for.

    find_tokenizer gives a folder with CLIP's tokenizer, which no such file holds; find_part one
    with a part that a flow model's file lacks. Raises ModelError for a file that is damaged, not a
    whole model, or of another family.
    """
    cache, name = _place(file)
    folder = cache.folder / name
    with cache.making(name):
        if (folder / "model_index.json").is_file():
            cache.used(name)
            return folder
        try:
            layout = flow_layout(file)
            if layout is None:
                _convert(file, folder, find_tokenizer)
            else:
                _convert_flow(file, folder, layout, find_part)
        except BaseException:  # Ctrl-C too: half a model takes gigabytes
            shutil.rmtree(folder, ignore_errors=True)
            raise
        cache.kept(name)
    return folder


def left_out(file: Path) -> tuple[str, ...]:
    """One line on the tensors of a converted file that belong to no part of its model; or none."""
    cache, name = _place(file)
    try:
        found: Any = read_json(cache.folder / name / LEFT_OUT)
    except InputError:  # there is no such file: everything was used
        return ()
    return (str(found),) if isinstance(found, str) else ()


def _place(file: Path) -> tuple[Cache, str]:
    """The cache, and the name of the file's folder in it, made or not."""
    status = file.resolve().stat()
    parts = (str(file.resolve()), status.st_size, status.st_mtime_ns, sidecar(file), FORMAT,
             _beside(file))  # fmt: skip
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    name = f"{file.stem[:60]}-{key}"
    return Cache.user("models", [Origin("model", file.name)]), name


def _beside(file: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the files in the parts of a model beside a checkpoint file."""
    parts = [file.parent / name for name in (*PARTS, *map(tokenizer_of, PARTS))]
    inside = [one for part in parts if part.is_dir() for one in sorted(part.iterdir())]
    known = [(f"{one.parent.name}/{one.name}", one.stat()) for one in inside if one.is_file()]
    return [(name, told.st_size, told.st_mtime_ns) for name, told in known]


def _convert_flow(file: Path, folder: Path, layout: Layout, find_part: FindPart) -> None:
    """The same as _convert for a flow transformer."""
    line = write_flow_folder(file, folder, layout, find_part)
    _check(file, folder, check_flow_model)
    if line:
        write_json(folder / LEFT_OUT, line)


def _check(file: Path, folder: Path, check: Callable[[Path], object]) -> None:
    """Check a folder as loading does; errors name the user's file."""
    try:
        check(folder)
    except ModelError as error:
        reason = str(error).replace(f"{folder}/", "").replace(str(folder), "it")
        raise ModelError(f"{file}, as a model folder: {reason}") from error


def _convert(file: Path, folder: Path, find_tokenizer: Callable[[], Path]) -> None:
    """Write the folder, model_index.json last: without it, it is no folder yet."""
    found, notes = read_file(file)
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    family = family_of(file, tensors)
    scheduler = scheduler_of(file, family, found, notes)
    velocity = scheduler["prediction_type"] == "v_prediction"
    size = {"xl": 128, "2": 96 if velocity else 64}.get(family, 64)
    try:
        for part, shape_of in CONFIGS[family].items():
            config = shape_of(tensors)
            if part == "unet":
                config["sample_size"] = size
            elif part == "vae":
                config["scaling_factor"] = scaling_factor_of(file, config["scaling_factor"])
            kind = "model" if part.startswith("text") else "diffusion_pytorch_model"
            renamed = _renamed(file, part, family, tensors, config)
            dtype = next(iter(renamed.values())).dtype if renamed else None
            write_json(folder / part / "config.json", config_of(part, "config.json", config, dtype))
            save_tensors(folder / part / f"{kind}.safetensors", renamed, {"format": "pt"})
    except KeyError as error:
        raise ModelError(f"{file} is incomplete: it has no {error.args[0]}.") from error
    _write_tokenizers(folder, family, find_tokenizer())
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", index_of(folder, {}))
    _check(file, folder, check_model)
    if line := unplaced(file, family, tensors):
        write_json(folder / LEFT_OUT, line)


def _renamed(
    file: Path, part: str, family: str, tensors: dict[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The weights of a part under diffusers' and transformers' names, by diffusers' own rules.

    Raises ModelError for tensors that would be lost, and values that are not finite.
    """
    from diffusers.loaders import single_file_utils as rules

    if part == "unet":
        own = {name: value for name, value in tensors.items() if name.startswith(UNET)}
        renamed = rules.convert_ldm_unet_checkpoint(own, config)
        refuse_unused(file, "U-Net", own, renamed)
    elif part == "vae":
        own = {name: value for name, value in tensors.items() if name.startswith(VAE)}
        renamed = rules.convert_ldm_vae_checkpoint(own, config)
        refuse_unused(file, "autoencoder", own, renamed)
    elif family == "2" or part == "text_encoder_2":
        renamed = _open_clip(file, tensors, family, config)
    else:
        renamed = rules.convert_ldm_clip_checkpoint(tensors)
    kept = {k: v for k, v in renamed.items() if isinstance(v, Tensor) and v.is_floating_point()}
    for name, value in kept.items():
        if not value.float().isfinite().all():
            raise ModelError(f"{file}: {part}.{name} holds values that are not finite (NaN).")
    return {name: value.contiguous().clone() for name, value in kept.items()}


def _open_clip(
    file: Path, tensors: dict[str, Tensor], family: str, config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """OpenCLIP's weights; 2.x reads the state before the last layer, so that layer is left out."""
    from types import SimpleNamespace

    from diffusers.loaders.single_file_utils import (
        DIFFUSERS_TO_LDM_MAPPING,
        convert_open_clip_checkpoint,
    )

    prefix = "cond_stage_model.model." if family == "2" else "conditioner.embedders.1.model."
    own = {name: value for name, value in tensors.items() if name.startswith(prefix)}
    if family == "2":
        last = f"{prefix}transformer.resblocks.{config['num_hidden_layers']}."
        unread = (last, f"{prefix}text_projection")
        own = {name: value for name, value in own.items() if not name.startswith(unread)}
    layers: dict[str, str] = cast(Any, DIFFUSERS_TO_LDM_MAPPING)["openclip"]["layers"]
    known = {f"{prefix}{name}" for name in layers.values()}
    strange = {k: v for k, v in own.items() if k not in known}
    inside = {k: v for k, v in strange.items() if k.startswith(f"{prefix}transformer.")}
    refuse_unused(file, "text encoder", strange, inside)
    like = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    return convert_open_clip_checkpoint(like, own, prefix)


def _write_tokenizers(folder: Path, family: str, source: Path) -> None:
    from transformers import CLIPTokenizer

    check_tokenizer(source)
    pads = {"1": ["<|endoftext|>"], "2": ["!"], "xl": ["<|endoftext|>", "!"]}[family]
    for pad, part in zip(pads, ("tokenizer", "tokenizer_2"), strict=False):
        try:
            tokenizer = CLIPTokenizer.from_pretrained(source, local_files_only=True, pad_token=pad)
        except Exception as error:
            reason = sentence(str(error)[:200])
            raise ModelError(f"{source} holds no CLIP tokenizer: {reason}") from error
        tokenizer.save_pretrained(folder / part)
