"""Odd and hostile folders of flow models: refused in one line before a network is built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tiny_flow import tiny_flow_folder
from understudy.errors import ModelError
from understudy.models.transformer.load import check_flow_model


@pytest.mark.parametrize(
    ("kind", "part", "change"),
    [
        ("flux", "transformer", {"axes_dims_rope": [4, 4, ""]}),
        ("flux", "transformer", {"axes_dims_rope": [4, -1, 4]}),
        ("flux", "transformer", {"axes_dims_rope": [4, 4]}),
        ("flux", "transformer", {"axes_dims_rope": [[1], 4, 4]}),
        ("flux", "transformer", {"axes_dims_rope": [False, 4, 4]}),
        ("flux2", "transformer", {"axes_dims_rope": 8}),
        ("flux2", "transformer", {"rope_theta": [[1]]}),
        ("flux2", "transformer", {"rope_theta": 0}),
        ("zimage", "transformer", {"axes_lens": [512, 64, [1]]}),
        ("zimage", "transformer", {"axes_lens": [512, 64]}),
        ("zimage", "transformer", {"t_scale": "x"}),
        ("zimage", "transformer", {"n_heads": 0}),
        ("zimage", "vae", {"norm_num_groups": 0.5}),
        ("sd35", "vae", {"norm_num_groups": -1}),
        ("sd35", "vae", {"scaling_factor": 0}),
        ("sd35", "transformer", {"pos_embed_max_size": 1024}),
        ("chroma", "vae", {"block_out_channels": 7}),
        ("qwen", "vae", {"latents_std": 7}),
        ("qwen", "vae", {"latents_std": [0.0] * 4}),
        ("qwen", "vae", {"latents_mean": [0.5]}),
        ("qwen", "vae", {"num_res_blocks": 100_000}),
        ("qwen", "vae", {"dim_mult": [1] * 500}),
    ],
)
def test_networks_that_could_not_compute_are_refused_before_they_are_built(
    kind: str, part: str, change: dict[str, Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_flow_folder(kind), tmp_path / "model")
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=f"layers|table|axes_dims|{next(iter(change))}"):
        check_flow_model(folder)
