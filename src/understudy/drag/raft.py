"""RAFT's optical flow (Teed & Deng 2020, arXiv:2003.12039) from torchvision, the extra `raft`.

Weights are a file of the user's, such as torchvision's raft_large of any training; nothing is
fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.drag.seeing import FlowTracker
from understudy.errors import ExtraMissing, ModelError
from understudy.untrusted.checkpoint_file import read_file

UPDATES = 20  # of the flow, as in DragGAN's comparison
STEP, LEAST = 8, 128  # pixels: sides are a multiple of one, and at least the other


@dataclass(frozen=True, eq=False)
class Raft:
    """Implements `Flow`: pictures are widened by their own edges to a size the network takes."""

    network: nn.Module

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "1 3 h w"], second: Float[Tensor, "1 3 h w"]
    ) -> Float[Tensor, "1 2 h w"]:
        height, width = first.shape[2:]
        edges = (*_edges(width), *_edges(height))
        both = [F.pad(one.float().clamp(-1, 1), edges, mode="replicate") for one in (first, second)]
        flow = cast(Tensor, self.network(*both, num_flow_updates=UPDATES)[-1])
        return flow[:, :, edges[2] : edges[2] + height, edges[0] : edges[0] + width]


def _edges(side: int) -> tuple[int, int]:
    """Pixels before and behind."""
    missing = max(-(-side // STEP) * STEP, LEAST) - side
    return missing // 2, missing - missing // 2


def raft_tracker(weights: Path, device: torch.device | str = "cpu") -> FlowTracker:
    """Follows handles by RAFT. Raises ExtraMissing without torchvision, ModelError for weights
    that are damaged or another network's."""
    try:
        from torchvision.models.optical_flow import (  # pyright: ignore[reportMissingImports]
            raft_large,
        )
    except ImportError as error:
        raise ExtraMissing("raft", "--tracker raft") from error
    network = cast(nn.Module, cast(Any, raft_large)(weights=None, progress=False))
    tensors, _ = read_file(weights)
    try:
        network.load_state_dict(tensors)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{weights} does not have the weights of torchvision's raft_large. Use such a file, "
            "like raft_large_C_T_SKHT_V2.pth."
        ) from error
    return FlowTracker(Raft(network.eval().requires_grad_(False).to(device)))
