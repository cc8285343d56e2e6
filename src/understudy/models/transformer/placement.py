"""Moves the parts of a flow model between CPU and GPU when the GPU is smaller than the model.

    all      every part stays on the device
    parts    the transformer stays; text encoders and autoencoder come for their work and go back
    blocks   as parts, and the transformer's blocks come one after the other

Results are the same; large pictures are decoded in tiles, which overlap.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import nn

Memory = Literal["all", "parts", "blocks"]
SPARE = 1.25  # memory beside the weights, as a share of them: activations, and what is fragmented


def suited_memory(sizes: Mapping[str, float], free: float | None) -> Memory:
    """The first arrangement that fits. sizes: bytes by part; free: of the device, None = enough."""
    if free is None or SPARE * sum(sizes.values()) <= free:
        return "all"
    largest = max(sizes.values())
    return "parts" if SPARE * max(sizes["transformer"], largest) <= free else "blocks"


def free_memory(device: torch.device) -> float | None:
    """Free bytes of a GPU; None for other devices."""
    if device.type != "cuda":
        return None
    return float(torch.cuda.mem_get_info(device)[0])


def place(networks: Mapping[str, nn.Module], device: torch.device, memory: Memory) -> None:
    """Bring the parts to where they wait."""
    for part, network in networks.items():
        if memory == "all" or (memory == "parts" and part == "transformer"):
            network.to(device)
    if memory == "all":
        return
    vae = cast(Any, networks["vae"])
    vae.enable_tiling()
    if memory == "blocks":
        from diffusers.hooks.group_offloading import apply_group_offloading

        cast(Any, apply_group_offloading)(
            networks["transformer"],
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
            use_stream=device.type == "cuda",
        )


@contextmanager
def at_work(device: torch.device, memory: Memory, *networks: nn.Module) -> Generator[None]:
    """Some parts on the device for the length of the block."""
    if memory == "all":
        yield
        return
    for network in networks:
        network.to(device)
    try:
        yield
    finally:
        for network in networks:
            network.to("cpu")
