"""The parts of a diffusers folder, loaded one by one: strictly, from safetensors, dtype given.

No pipeline and no Auto class: what a folder may hold is in KINDS. Whatever the libraries raise
becomes one line that names the part.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from understudy.errors import ModelError
from understudy.models.folder import is_xl, read_json, weights_variant
from understudy.models.interface import NoiseSchedule, PredictionType

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")


def load_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """The networks and tokenizers of a folder by the names of its sub-folders, on the CPU.

    Raises ModelError for a part that is damaged, or that does not fit the others.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    kinds: dict[str, Any] = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
    }
    tokenizers = ["tokenizer"]
    if is_xl(folder):
        kinds["text_encoder_2"] = CLIPTextModelWithProjection
        tokenizers.append("tokenizer_2")
    parts: dict[str, Any] = {}
    with quietly():
        for part, kind in kinds.items():
            parts[part] = _load_network(kind, folder / part, _precision(folder, part, dtype))
        for part in tokenizers:
            with explained(folder / part):
                parts[part] = CLIPTokenizer.from_pretrained(folder / part, local_files_only=True)
    _check_fit(folder, parts)
    for part in tokenizers:
        _pool_at_the_end(parts[part.replace("tokenizer", "text_encoder")], parts[part])
    return parts


def _precision(folder: Path, part: str, dtype: torch.dtype) -> torch.dtype:
    # XL's autoencoder overflows in half precision, as its configuration says.
    if part == "vae" and dtype == torch.float16 and is_xl(folder):
        if read_json(folder / part / "config.json").get("force_upcast", True):
            return torch.float32
    return dtype


def _load_network(kind: Any, part: Path, dtype: torch.dtype) -> Any:
    variant = weights_variant(part)
    with explained(part):
        network, told = kind.from_pretrained(
            part,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    # What the libraries only warn of: a tensor that is not in the file is filled with noise.
    missing = sorted(told["missing_keys"])
    if missing:
        raise ModelError(
            f"The weights of {part} lack {len(missing)} tensors, the first is {missing[0]}. "
            "Copy or download it again."
        )
    return network


def _pool_at_the_end(encoder: Any, tokenizer: Any) -> None:
    """Let an old configuration say where a prompt ends.

    It says token 2, whereupon transformers takes the highest id: wrong once words are added.
    """
    for module in encoder.modules():
        if getattr(module, "eos_token_id", None) == 2:
            module.eos_token_id = tokenizer.eos_token_id


@contextmanager
def explained(part: Path) -> Generator[None]:
    """Whatever the libraries raise for a damaged part becomes a ModelError that names it."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{part} cannot be loaded: {reason}") from error


def _check_fit(folder: Path, parts: Mapping[str, Any]) -> None:
    """Whether the parts were made for each other, by their configurations."""
    unet, vae, text = (parts[name].config for name in ("unet", "vae", "text_encoder"))
    second = parts["text_encoder_2"].config if "text_encoder_2" in parts else None
    width = text.hidden_size + (second.hidden_size if second else 0)
    pairs = [
        ("unet takes", unet.in_channels, "latent channels, vae gives", vae.latent_channels),
        ("unet gives", unet.out_channels, "latent channels, vae takes", vae.latent_channels),
        ("unet reads", unet.cross_attention_dim, "wide text, encoder gives", width),
    ]
    for name in ("text_encoder", "text_encoder_2"):
        if name in parts:
            rows = parts[name].config.vocab_size
            words = len(parts[name.replace("text_encoder", "tokenizer")])
            pairs.append((f"{name} has", min(rows, words), "words, its tokenizer", words))
    if second:
        added = second.projection_dim + 6 * (unet.addition_time_embed_dim or 0)
        taken = unet.projection_class_embeddings_input_dim
        pairs.append(("unet adds", taken, "numbers of text and frame, there are", added))
    for what, wanted, versus, got in pairs:
        if wanted != got:
            raise ModelError(
                f"The parts of {folder} do not fit: {what} {wanted} {versus} {got}. "
                "Use parts of one model (inpainting, depth and refiner models are not supported)."
            )
    if unet.addition_embed_type != ("text_time" if second else None) or unet.class_embed_type:
        raise ModelError(f"The unet of {folder} wants inputs beyond text; it is not supported.")


def load_schedule(folder: Path) -> tuple[NoiseSchedule, PredictionType]:
    """The schedule as diffusers' DDIM reads this configuration, whatever scheduler it names."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    config = read_json(folder / "scheduler" / "scheduler_config.json")
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"{folder} predicts {kind!r}. Supported prediction types: epsilon, v_prediction."
        )
    with quietly():
        ddim = cast(Any, DDIMScheduler).from_config(config)
    offset, to_one = int(ddim.config.steps_offset), bool(ddim.config.set_alpha_to_one)
    return NoiseSchedule(ddim.alphas_cumprod, offset, to_one), kind


@contextmanager
def quietly() -> Generator[None]:
    """No progress bars or notices from the libraries while loading; as before afterwards."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    logs = (diffusers_log, transformers_log)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (verbosity, bars) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
