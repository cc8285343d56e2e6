"""The configurations of the encoders (CLIP, DINO, SAM 2): which keys are used, and their bounds.

As for diffusion models (models/network_configs.py), a stranger's config.json can choose sizes only.
What is not in a table is not passed on. Whether the sizes fit each other and the weights is found
out by vision/weights.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from understudy.errors import ModelError
from understudy.files.spec import shown
from understudy.models.network_configs import CLIP as CLIP_TEXT
from understudy.models.network_configs import (
    WIDTH,
    Check,
    maybe,
    number,
    one_of,
    refuse_foreign,
    several,
    whole,
)

Keys = Mapping[str, Any]  # of each key a Check, or the Keys of an object within
ACTIVATION, EPSILON, SHARE = one_of("gelu", "quick_gelu", "relu"), number(1e-12, 1), number(0, 0.99)
LAYERS, SIDE = whole(1, 128), whole(1, 4096)
# The layers that CLIP's picture half and DINO have in common.
VISION: dict[str, Check] = {
    "hidden_size": WIDTH, "intermediate_size": whole(1, 65_536), "num_hidden_layers": LAYERS,
    "num_attention_heads": WIDTH, "num_channels": one_of(3), "image_size": SIDE,
    "patch_size": SIDE, "hidden_act": ACTIVATION, "layer_norm_eps": EPSILON,
}  # fmt: skip
CLIP: Keys = {
    "text_config": CLIP_TEXT,
    "vision_config": {**VISION, "projection_dim": WIDTH, "attention_dropout": SHARE},
    "projection_dim": WIDTH, "logit_scale_init_value": number(-100, 100),
}  # fmt: skip
DINO: Keys = {
    **VISION, "qkv_bias": one_of(True, False), "encoder_stride": SIDE,
    "hidden_dropout_prob": SHARE, "attention_probs_dropout_prob": SHARE,
}  # fmt: skip
# SAM 2 in its published sizes has four stages, three levels of features, and these strides. Its
# side is bounded because global attention over a picture's tokens grows with the side's 4th power.
BACKBONE = "sam2_hiera_det_model"
HIERA: Keys = {
    "model_type": one_of(BACKBONE),
    "hidden_size": WIDTH, "num_attention_heads": WIDTH, "num_channels": one_of(3),
    "patch_kernel_size": one_of([7, 7]), "patch_stride": one_of([4, 4]),
    "patch_padding": one_of([3, 3]), "query_stride": one_of([2, 2]),
    "window_positional_embedding_background_size": several(whole(1, 64)),
    "num_query_pool_stages": one_of(3), "blocks_per_stage": several(LAYERS),
    "embed_dim_per_stage": several(WIDTH), "num_attention_heads_per_stage": several(WIDTH),
    "window_size_per_stage": several(whole(2, 64)),
    "global_attention_blocks": several(whole(0, 511)), "mlp_ratio": number(0.1, 16),
    "hidden_act": ACTIVATION, "layer_norm_eps": EPSILON,
}  # fmt: skip
SAM: Keys = {
    "vision_config": {
        "backbone_config": HIERA, "backbone_channel_list": several(WIDTH),
        "backbone_feature_sizes": several(several(whole(1, 256))), "fpn_hidden_size": WIDTH,
        "fpn_kernel_size": one_of(1), "fpn_stride": one_of(1), "fpn_padding": one_of(0),
        "fpn_top_down_levels": several(whole(0, 3)), "num_feature_levels": one_of(3),
        "hidden_act": ACTIVATION, "layer_norm_eps": EPSILON,
    },
    "prompt_encoder_config": {
        "hidden_size": WIDTH, "image_size": whole(32, 1024), "patch_size": one_of(16),
        "mask_input_channels": whole(4, 4096), "num_point_embeddings": one_of(4),
        "hidden_act": ACTIVATION, "layer_norm_eps": EPSILON, "scale": one_of(1),
    },
    "mask_decoder_config": {
        "hidden_size": WIDTH, "hidden_act": ACTIVATION, "mlp_dim": whole(1, 65_536),
        "num_hidden_layers": LAYERS, "num_attention_heads": WIDTH,
        "attention_downsample_rate": whole(1, 64), "num_multimask_outputs": one_of(3),
        "iou_head_depth": whole(2, 64), "iou_head_hidden_dim": WIDTH,
        "dynamic_multimask_via_stability": one_of(True, False),
        "dynamic_multimask_stability_delta": number(0, 100),
        "dynamic_multimask_stability_thresh": number(0, 1),
    },
}  # fmt: skip


def used_config(file: Path, told: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """The keys of a configuration that are used. Raises ModelError, naming one out of bounds.

    keys: a check for each key, or the keys of an object within.
    """
    refuse_foreign(file, told)
    used: dict[str, Any] = {}
    for key, check in keys.items():
        if isinstance(check, Mapping):
            used[key] = used_config(file, _object(file, told, key), check)
        elif key in told:
            if not maybe(check)(told[key]):
                raise ModelError(
                    f"{file} says {key} = {shown(told[key])}, which is out of bounds or not "
                    "supported."
                )
            if told[key] is not None:  # else the class's own value
                used[key] = told[key]
    return used


def _object(file: Path, told: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object at `key`. Files of CLIP written before 2023 say again under "KEY_dict" what
    differs from it."""
    found: dict[str, Any] = {}
    for name in (key, f"{key}_dict"):
        value = told.get(name)
        if value is not None and not isinstance(value, dict):
            raise ModelError(f"{file} says {name} = {shown(value)}. Expected an object.")
        found |= cast("dict[str, Any]", value or {})
    return found


def blocks_in(used: Mapping[str, Any]) -> int:
    """How many blocks a configuration asks for; each has several tensors."""
    total = 0
    for key, value in used.items():
        if isinstance(value, dict):
            total += blocks_in(cast("dict[str, Any]", value))
        elif key in ("num_hidden_layers", "iou_head_depth"):
            total += value
        elif key == "blocks_per_stage":
            total += sum(value)
    return total
