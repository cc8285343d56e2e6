"""The configurations of a flow model's networks: keys that the class knows, plain values in bounds.

As for U-Nets, a stranger's config.json can only choose sizes, and those are compared with the
weights before memory is taken (see network_configs.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from understudy.errors import ModelError
from understudy.files.reading import read_json
from understudy.models.network_configs import (
    CLIP,
    Check,
    each,
    maybe,
    number,
    one_of,
    refuse_foreign,
    several,
    whole,
)

WIDEST, DEEPEST, LONGEST = 262_144, 512, 1024  # a width, a number of layers, a table of positions
SWITCH = one_of(True, False)
T5: dict[str, Check] = {
    "vocab_size": whole(3, 1_000_000), "d_model": whole(1, 16_384), "d_kv": whole(1, 1024),
    "d_ff": whole(1, 65_536), "num_layers": whole(1, 128), "num_heads": whole(1, 1024),
    "relative_attention_num_buckets": whole(1, 1024), "relative_attention_max_distance":
    whole(1, 16_384), "dropout_rate": number(0, 0.99), "layer_norm_epsilon": number(1e-12, 1),
    "feed_forward_proj": one_of("gated-gelu", "relu"), "pad_token_id": maybe(whole(-1, 2**31)),
    "eos_token_id": maybe(whole(-1, 2**31)),
}  # fmt: skip
TOKEN = maybe(each(whole(-1, 2**31)))
LLM: dict[str, Check] = {
    "vocab_size": whole(3, 1_000_000), "hidden_size": whole(1, 32_768),
    "intermediate_size": whole(1, 262_144), "num_hidden_layers": whole(1, 256),
    "num_attention_heads": whole(1, 1024), "num_key_value_heads": maybe(whole(1, 1024)),
    "head_dim": maybe(whole(1, 4096)), "hidden_act": one_of("silu"),
    "max_position_embeddings": whole(1, 2**24), "rms_norm_eps": number(1e-12, 1),
    "attention_bias": SWITCH, "attention_dropout": number(0, 0.99), "tie_word_embeddings": SWITCH,
    "use_sliding_window": maybe(one_of(False)), "sliding_window": maybe(whole(1, 2**24)),
    "rope_theta": number(1, 1e9), "rope_scaling": lambda value: _rope(value),
    "rope_parameters": lambda value: _rope(value),
    "pad_token_id": TOKEN, "bos_token_id": TOKEN, "eos_token_id": TOKEN,
}  # fmt: skip
ENCODERS: dict[str, dict[str, Check]] = {
    "CLIPTextModelWithProjection": CLIP, "CLIPTextModel": CLIP, "T5EncoderModel": T5,
    "Qwen2_5_VLForConditionalGeneration": LLM, "Qwen3ForCausalLM": LLM,
    "Mistral3ForConditionalGeneration": LLM,
}  # fmt: skip
# Of a language model with eyes or an output layer, the class that gives the same hidden states.
TEXT_ONLY = {
    "Qwen2_5_VLForConditionalGeneration": "Qwen2_5_VLTextModel",
    "Qwen3ForCausalLM": "Qwen3Model",
    "Mistral3ForConditionalGeneration": "MistralModel",
}
# What configurations may call an encoder beside its class here.
ALSO = {"CLIPTextModel": ("CLIPModel",), "Qwen3ForCausalLM": ("Qwen3Model",)}


def encoder_config(file: Path, kind: str) -> dict[str, Any]:
    """The keys of a text encoder's config.json that are used, each within its bounds."""
    told = _object(file)
    said: Any = told.get("architectures") or [kind]
    if not isinstance(said, list) or not all(isinstance(one, str) for one in cast(Any, said)):
        raise _out_of_bounds(file, "architectures", said)
    if not {kind, *ALSO.get(kind, ())} & set(said):
        raise ModelError(f"{file} is that of a {str(said[0])[:80]}. Expected {kind}.")
    if isinstance(told.get("text_config"), dict):
        told = {**told, **told["text_config"]}
    used = {key: told[key] for key in ENCODERS[kind] if key in told}
    for key, value in used.items():
        if not ENCODERS[kind][key](value):
            raise _out_of_bounds(file, key, value)
    rope = used.get("rope_parameters") or used.get("rope_scaling") or {}
    half = used.get("hidden_size", 0) // used.get("num_attention_heads", 1) // 2
    if "mrope_section" in rope and sum(rope["mrope_section"]) != half:
        raise _out_of_bounds(file, "mrope_section", rope["mrope_section"])
    return used


def network_config(file: Path, kind: type[Any]) -> dict[str, Any]:
    """The keys of a diffusers network's config.json, each a parameter of the class.

    Raises ModelError, naming the key, for one that the class does not have or whose value is not
    plain and within bounds: another version of the class could compute something else with it.
    """
    told = _object(file)
    said = str(told.get("_class_name", kind.__name__))
    if said != kind.__name__:
        raise ModelError(f"{file} is that of a {said[:80]}. Expected {kind.__name__}.")
    known = inspect.signature(kind.__init__).parameters
    used = {key: value for key, value in told.items() if not key.startswith("_")}
    for key, value in used.items():
        if key not in known:
            raise ModelError(
                f"{file} has {key[:80]!r}, which {kind.__name__} does not take here. Use the "
                "configuration that was published with the weights."
            )
        if not _plain(key, value) or not _like(known[key].default, value):
            raise _out_of_bounds(file, key, value)
    _check_consistent(file, {key: one.default for key, one in known.items()}, used)
    return used


def layers_in(used: Mapping[str, Any]) -> int:
    """How many layers a configuration asks for, at the least: each holds several tensors."""
    counts = [v for k, v in used.items() if k.endswith(("layers", "blocks")) and type(v) is int]
    levels = (used.get(key) or () for key in ("block_out_channels", "dim_mult"))
    return max(sum(counts), *map(len, levels))


def numbers_in(used: Mapping[str, Any]) -> int:
    """How many numbers the largest table has that is computed when the network is built."""
    width = used.get("num_attention_heads", 1) * used.get("attention_head_dim", 1)
    return used.get("pos_embed_max_size", 0) ** 2 * width


def _object(file: Path) -> dict[str, Any]:
    told = read_json(file, error=ModelError)
    if not isinstance(told, dict):
        raise ModelError(f"{file} holds no object of settings. Copy or download it again.")
    given = cast("dict[str, Any]", told)
    refuse_foreign(file, given)
    return given


def _plain(key: str, value: Any) -> bool:
    """None, a switch, a short text, a number in bounds, or a list of up to 512 of those."""
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return len(items) <= DEEPEST and all(_plain("", item) for item in items)
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return len(value) <= 80
    most = DEEPEST if "layers" in key else LONGEST if "max_size" in key else WIDEST
    return number(-most, most)(value)


def _like(default: Any, value: Any) -> bool:
    """Whether a value is of the kind of its parameter's default, and no size is negative.

    Items of a list are of the kind of the default's first item; without one, all numbers or all
    texts. None is what the class makes of it.
    """
    if value is None:
        return True
    if isinstance(value, list):
        items, known = (
            cast("list[Any]", value),
            default if isinstance(default, list | tuple) else (),
        )
        if known:
            return all(item is not None and _like(known[0], item) for item in items)  # pyright: ignore
        texts = all(isinstance(item, str) for item in items)
        return default in (None, (), []) and (texts or all(map(number(-1e9, 1e9), items)))
    if isinstance(default, list | tuple):
        return False
    if type(default) in (bool, str):
        return type(value) is type(default)
    if type(default) is int:
        return type(value) is int and value >= 0
    return type(default) is not float or number(-WIDEST, WIDEST)(value)


def _check_consistent(file: Path, known: Mapping[str, Any], used: Mapping[str, Any]) -> None:
    """Rotary axes that make up a head, and scales of latents that can be divided by."""
    told = {**known, **used}
    for key in {"axes_dims_rope", "axes_dims", "axes_lens"} & told.keys():
        axes, heads = told[key] or (), told.get("n_heads") or 1
        head = told.get("attention_head_dim") or (told.get("dim") or 0) // heads
        fits = key == "axes_lens" or (sum(axes) == head and not any(one % 2 for one in axes))
        if len(axes) != len(known[key]) or min(axes) < 1 or not fits:
            raise _out_of_bounds(file, key, told[key])
    if not number(1, 1e9)(told.get("rope_theta", 1)):
        raise _out_of_bounds(file, "rope_theta", told["rope_theta"])
    for key in ("scaling_factor", "latents_std", "t_scale"):
        if (value := told.get(key)) is not None:
            scales = value if isinstance(value, list | tuple) else [value]
            if not all(number(1e-6, 1e6)(one) for one in cast("list[Any]", scales)):
                raise _out_of_bounds(file, key, value)
    for key in ("latents_mean", "latents_std"):
        if (value := told.get(key)) and len(value) != (
            told.get("z_dim") or told["latent_channels"]
        ):
            raise _out_of_bounds(file, key, value)


def _rope(value: Any) -> bool:
    """Settings of rotary positions: a few plain values by name, or None."""
    if not isinstance(value, dict):
        return value is None
    items = cast("dict[str, Any]", value)
    sections = items.get("mrope_section", [1, 1, 1])  # of the pairs of a head: time, height, width
    if not isinstance(sections, list) or len(cast(Any, sections)) != 3:
        return False
    return (
        len(items) <= 16
        and number(1, 1e9)(items.get("rope_theta", 1))
        and several(whole(1, 1024))(sections)
        and all(number(-1e9, 1e9)(one) or _plain("", one) for one in items.values())
    )


def _out_of_bounds(file: Path, key: str, value: Any) -> ModelError:
    return ModelError(
        f"{file} says {key} = {value!r:.80}, which is out of bounds or not supported."
    )
