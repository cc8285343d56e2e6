"""The configurations of a model folder's networks: which keys are used, and their bounds.

A key is used (within bounds), has the one value that the code here implements, or is not passed
on. Keys that would load code or quantise weights are refused. So a stranger's config.json can
choose sizes only, and those are compared with the weights before memory is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from understudy.errors import ModelError
from understudy.files.reading import read_json

Check = Callable[[Any], bool]

# Whatever program reads them, these keys run code, change weights or add to them.
REFUSED = ("auto_map", "quantization_config", "compression_config", "custom_pipelines")
# How attention is computed is set by the loader. These keys change nothing, unless their value is
# a repository of compiled kernels ("owner/name"), which other programs would download and run.
ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


def whole(low: int, high: int) -> Check:
    """A whole number from low to high."""
    return lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Check:
    """A finite number from low to high."""
    return lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    )


def one_of(*values: Any) -> Check:
    """One of these values, of the same type (True is not 1)."""
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def each(check: Check) -> Check:
    """A value, or a list of 1 to 8 of them."""
    return lambda value: check(value) or _list_of(value, check)


def _list_of(value: Any, check: Check) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 8 and all(map(check, cast(Any, value)))


def several(check: Check) -> Check:
    """A list of 1 to 8 values."""
    return lambda value: _list_of(value, check)


def maybe(check: Check) -> Check:
    """None, or what `check` takes."""
    return lambda value: value is None or check(value)


WIDTH, DEPTH, SWITCH = whole(1, 16_384), whole(1, 12), one_of(True, False)
SIDE = each(whole(1, 4096))
TRANSFORMERS = whole(0, 32)
DOWN = one_of("CrossAttnDownBlock2D", "DownBlock2D")
UP = one_of("CrossAttnUpBlock2D", "UpBlock2D")
UNET: dict[str, Check] = {
    "sample_size": maybe(SIDE), "in_channels": WIDTH, "out_channels": WIDTH,
    "flip_sin_to_cos": SWITCH, "freq_shift": number(0, 1),
    "down_block_types": several(DOWN), "up_block_types": several(UP),
    "mid_block_type": one_of("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "block_out_channels": several(WIDTH), "layers_per_block": each(DEPTH),
    "downsample_padding": one_of(1, 0), "mid_block_scale_factor": number(1e-3, 1e3),
    "dropout": number(0, 0.99), "norm_num_groups": WIDTH, "norm_eps": number(1e-12, 1),
    "cross_attention_dim": WIDTH, "attention_head_dim": each(WIDTH),
    "transformer_layers_per_block": each(each(TRANSFORMERS)),
    "reverse_transformer_layers_per_block": maybe(each(each(TRANSFORMERS))),
    "use_linear_projection": SWITCH, "upcast_attention": maybe(SWITCH),
    "addition_embed_type": one_of("text_time", None), "addition_time_embed_dim": maybe(WIDTH),
    "projection_class_embeddings_input_dim": maybe(WIDTH),
    "time_embedding_dim": maybe(WIDTH), "addition_embed_type_num_heads": WIDTH,
}  # fmt: skip
VAE: dict[str, Check] = {
    "in_channels": one_of(3), "out_channels": one_of(3), "latent_channels": whole(1, 256),
    "down_block_types": several(one_of("DownEncoderBlock2D")),
    "up_block_types": several(one_of("UpDecoderBlock2D")),
    "block_out_channels": several(WIDTH), "layers_per_block": DEPTH, "norm_num_groups": WIDTH,
    "sample_size": maybe(SIDE), "scaling_factor": number(1e-6, 1e6), "force_upcast": SWITCH,
    "use_quant_conv": SWITCH, "use_post_quant_conv": SWITCH, "mid_block_add_attention": SWITCH,
}  # fmt: skip
TOKEN = maybe(whole(-1, 2**31))
CLIP: dict[str, Check] = {
    "vocab_size": whole(3, 1_000_000), "hidden_size": WIDTH, "intermediate_size": whole(1, 65_536),
    "projection_dim": maybe(WIDTH), "num_hidden_layers": whole(1, 128),
    "num_attention_heads": WIDTH, "max_position_embeddings": whole(3, 4096),
    "hidden_act": one_of("quick_gelu", "gelu"), "layer_norm_eps": number(1e-12, 1),
    "attention_dropout": number(0, 0.99), "pad_token_id": TOKEN, "bos_token_id": TOKEN,
    "eos_token_id": TOKEN,
}  # fmt: skip
CLASSES = {  # the class each part is loaded with, and what configurations may call it
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"),
    "text_encoder_2": ("CLIPTextModelWithProjection", "CLIPModel"),
}
KINDS: dict[str, dict[str, Check]] = {
    "unet": UNET, "vae": VAE, "text_encoder": CLIP, "text_encoder_2": CLIP,
}  # fmt: skip


def network_config(folder: Path, part: str) -> dict[str, Any]:
    """The keys of folder/part/config.json that are used, each within its bounds.

    Raises ModelError, naming the key, for a value that is out of bounds or not implemented.
    """
    file = folder / part / "config.json"
    told = read_json(file, error=ModelError)
    if not isinstance(told, dict):
        raise ModelError(f"{file} holds no object of settings. Copy or download it again.")
    given = cast("dict[str, Any]", told)
    _check_class(file, part, given)
    if isinstance(given.get("text_config"), dict) and part.startswith("text_encoder"):
        given = {**given, **cast("dict[str, Any]", given["text_config"])}
    refuse_foreign(file, given)
    spec = KINDS[part]
    used = {key: given[key] for key in spec if key in given}
    for key, value in used.items():
        if not spec[key](value):
            raise ModelError(
                f"{file} says {key} = {_shown(value)}, which is out of bounds or not supported."
            )
    if part in ("unet", "vae"):
        _refuse_other_arithmetic(file, part, given)
    return _consistent(file, part, used)


def refuse_foreign(file: Path, given: Mapping[str, Any]) -> None:
    """Raise ModelError, naming it, for a key that runs code or changes weights."""
    for key in REFUSED:
        if given.get(key):
            raise ModelError(
                f"{file} has {key!r}, which is not read: it brings code or changes the weights. "
                "Use a plain copy of the model."
            )
    for key in ATTENTION_KEYS:
        value = given.get(key)
        if value is not None and not re.fullmatch(r"[a-z0-9_]{1,40}", str(value)):
            raise ModelError(f"{file} has {key} = {_shown(value)}. Remove that key.")


def _check_class(file: Path, part: str, given: Mapping[str, Any]) -> None:
    architectures = given.get("architectures")
    if part.startswith("text_encoder"):
        said: Any = architectures[0] if isinstance(architectures, list) and architectures else None
        kind = given.get("model_type", "clip_text_model")
        if kind not in ("clip_text_model", "clip"):
            said = kind
    else:
        said = given.get("_class_name")
    if said is not None and said not in CLASSES[part]:
        raise ModelError(
            f"{file} is that of a {_shown(said)}. Expected {CLASSES[part][0]}: models of Stable "
            "Diffusion 1.x, 2.x and XL are supported."
        )


def _refuse_other_arithmetic(file: Path, part: str, given: Mapping[str, Any]) -> None:
    """Options of diffusers' class that are not in the table must have their default values."""
    import inspect

    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    kind: Any = UNet2DConditionModel if part == "unet" else AutoencoderKL
    for key, option in inspect.signature(kind.__init__).parameters.items():
        if key in ("self", *KINDS[part]) or key not in given:
            continue
        same = given[key] is None or given[key] == option.default
        if not same and not (option.default is None and given[key] is False):
            raise ModelError(
                f"{file} says {key} = {_shown(given[key])}, which is not supported. Expected "
                f"{option.default!r}, as the U-Nets and autoencoders of Stable Diffusion have."
            )


def _consistent(file: Path, part: str, used: dict[str, Any]) -> dict[str, Any]:
    """Lists of one length, widths that divide, and as few layers as a network may have."""
    levels = used.get("block_out_channels", [0])
    for key, value in used.items():
        if key == "sample_size" or not isinstance(value, list):
            continue
        if len(cast("list[Any]", value)) != len(levels):
            raise ModelError(f"{file}: {key} and block_out_channels differ in length.")
    size = used.get("sample_size")
    if isinstance(size, list) and len(cast(Any, size)) != 2:
        raise ModelError(f"{file} says sample_size = {_shown(size)}. Expected one or two numbers.")
    groups = used.get("norm_num_groups", 32)
    if part in ("unet", "vae") and any(width % groups for width in levels):
        raise ModelError(f"{file}: norm_num_groups = {groups} does not divide {_shown(levels)}.")
    if part.startswith("text_encoder"):
        width, heads = used.get("hidden_size", 512), used.get("num_attention_heads", 8)
        if width % heads:
            raise ModelError(f"{file}: num_attention_heads = {heads} does not divide {width}.")
    if part == "unet" and size is None:
        used["sample_size"] = 64
    return used


def blocks_in(used: Mapping[str, Any]) -> int:
    """How many transformer and residual blocks a configuration asks for, at the least.

    Each holds several tensors, so this bounds the time to build the network by its file's header.
    """
    if "num_hidden_layers" in used or "hidden_size" in used:
        return int(used.get("num_hidden_layers", 12))
    levels = len(used.get("block_out_channels", [0] * 4))
    layers, deep = used.get("layers_per_block", 1), used.get("transformer_layers_per_block", 1)
    per_level = [layers] * levels if isinstance(layers, int) else layers
    depths = [deep] * levels if isinstance(deep, int) else deep
    total = 0
    for count, depth in zip(per_level, depths, strict=False):
        total += count + (math.fsum(depth) if isinstance(depth, list) else count * depth)
    return int(total)


def _shown(value: Any) -> str:
    return repr(value)[:80]
