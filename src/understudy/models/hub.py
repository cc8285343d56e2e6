"""Downloads from the hub: whole models, and parts that a single checkpoint file lacks."""

from __future__ import annotations

from pathlib import Path

from understudy.errors import ModelError, sentence

# Where CLIP's tokenizer is on the hub: a single checkpoint file has none.
TOKENIZER = "openai/clip-vit-large-patch14"


def tokenizer_for(file: Path) -> Path:
    """A folder with CLIP's tokenizer for a checkpoint file: tokenizer/ beside it, or the hub's."""
    beside = file.parent / "tokenizer"
    if beside.is_dir():
        return beside
    try:
        return _snapshot(TOKENIZER, ["vocab.json", "merges.txt", "tokenizer*", "special_tokens*"])
    except ModelError as error:
        raise ModelError(
            f"{file} holds no tokenizer, and {TOKENIZER} cannot be downloaded. Copy the "
            f"tokenizer/ folder of any Stable Diffusion model beside it, to {beside}."
        ) from error


def part_for(file: Path, hub_id: str, part: str, weights: bool) -> Path:
    """The folder of a part that a flow model's file lacks: beside the file, or the hub's."""
    beside = file.parent / part
    if beside.is_dir():
        return beside
    names = ("*",) if part.startswith("tokenizer") or part == "scheduler" else ("config.json",)
    if weights and names != ("*",):
        stem = "diffusion_pytorch_model" if part == "vae" else "model"
        names += (f"{stem}.safetensors", f"{stem}-*.safetensors", f"{stem}.safetensors.index.json")
    try:
        found = _snapshot(hub_id, [f"{part}/{name}" for name in names]) / part
    except ModelError as error:
        raise ModelError(
            f"{file} holds no {part}, and {hub_id} cannot be downloaded. Copy the {part}/ "
            f"folder of a model of its family beside it, to {beside}."
        ) from error
    if not found.is_dir():
        raise ModelError(f"{hub_id} has no {part}/. Copy one of its family to {beside}.")
    return found


def download(hub_id: str, wanted: tuple[str, ...], instead: tuple[str, ...] = ()) -> Path:
    """The hub's snapshot folder, of the files that are needed only (fp16 if no other).

    instead: options for the message of an error, beside that of a folder.
    """
    folder = _snapshot(hub_id, [name.format("") for name in wanted], instead)
    if (folder / "unet").is_dir() and not any((folder / "unet").glob("*.safetensors")):
        folder = _snapshot(hub_id, [name.format(".fp16") for name in wanted], instead)
    return folder


def _snapshot(hub_id: str, patterns: list[str], instead: tuple[str, ...] = ()) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(
            f"{hub_id} asks you to accept its licence on the hub first, then: hf auth login."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelError(
            f"There is no folder {hub_id!r} here, no copy of that hub model in the cache, and the "
            f"hub cannot be reached. Go online once, or give {' or '.join(('a folder', *instead))}."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{hub_id} could not be downloaded: {sentence(str(error)[:200])} "
            f"Check the name (no folder {hub_id!r} is here either), or give "
            f"{' or '.join(('a folder', *instead))}."
        ) from error
