"""Networks of transformers' classes, filled with the weights of a stranger's folder.

The network is built without memory first. Its sizes must fit each other, which a call without
memory shows, and the headers of the weights; only then is memory taken. transformers then places
the tensors, because published folders still have the names of its former versions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.errors import ModelError
from understudy.models.parts import FLOATS
from understudy.models.quiet import explained, quietly
from understudy.models.weight_files import entries
from understudy.vision.network_configs import blocks_in


def load_network(
    kind: Any,
    config_kind: Any,
    used: Mapping[str, Any],
    folder: Path,
    example: Mapping[str, Tensor],
    **how: Any,
) -> Any:
    """Weights of one class in float32, nothing missing, every number finite.

    kind, config_kind: classes of transformers. used: of used_config. example: what the network is
    called with, on the meta device. how: more arguments of the class.
    Raises ModelError, naming the folder.
    """
    found = entries(folder)
    if blocks_in(used) > len(found):
        raise ModelError(
            f"{folder / 'config.json'} asks for {blocks_in(used)} blocks, and the weights have "
            f"only {len(found)} tensors. Copy or download it again."
        )
    with quietly(), explained(folder):
        config = config_kind(**used, attn_implementation="sdpa")
        _check_fit(kind, config, folder, example, how)
        network, report = kind.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True,
            dtype=torch.float32, output_loading_info=True, **how,
        )  # fmt: skip
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"{folder} lacks weights ({missing}, ...). Download it again.")
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise ModelError(
                f"{folder} cannot be loaded: {name} holds values that are not finite. "
                "Copy or download it again."
            )
    return network.eval().requires_grad_(False)


def _check_fit(
    kind: Any, config: Any, folder: Path, example: Mapping[str, Tensor], how: Mapping[str, Any]
) -> None:
    """Raise unless the network without memory can be called, and its shapes are in the headers.

    Names are not compared: transformers gives them.
    """
    network = _without_memory(kind, config, how)
    there = Counter(entry.shape for entry in entries(folder).values() if entry.dtype in FLOATS)
    wanted = Counter(tuple(tensor.shape) for tensor in network.state_dict().values())
    if lacking := wanted - there:
        shape = min(lacking)
        raise ModelError(
            f"{folder} cannot be loaded: its configuration asks for {wanted[shape]} tensors of "
            f"shape {shape}, its weights have {there[shape]}. Copy or download it again."
        )
    _check_call(network, example)


def _without_memory(kind: Any, config: Any, how: Mapping[str, Any]) -> Any:
    """The network on the meta device. It follows from the configuration alone."""
    with torch.device("meta"):
        return kind(config, **how).eval()


def _check_call(network: Any, example: Mapping[str, Tensor]) -> None:
    """Raise unless the network's sizes fit each other."""
    with torch.device("meta"), torch.no_grad():
        network(**example)
