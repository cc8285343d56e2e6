"""Which arithmetic suits a device: half precision only where it is quicker than float32.

A CPU without bfloat16 instructions emulates them: a convolution takes 30 times as long and a
matrix product more. oneDNN knows whether the CPU has them.
"""

from __future__ import annotations

import torch


def half_precision(device: torch.device) -> torch.dtype | None:
    """The half precision that `device` computes quicker than float32 with the range of float32:
    bfloat16 where the hardware has it, else None.
    """
    if device.type == "cpu":
        supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    elif device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        supported = False
    return torch.bfloat16 if supported else None


def suited_precision(device: torch.device) -> str:
    """The value of --precision that "auto" stands for on `device`.

    On a GPU float32, whose products run in TF32: in the shape of Stable Diffusion 1.5 a step of
    LoRA takes 141 ms on an H200 and 188 ms in bfloat16 autocast, which launches a cast for every
    weight; one of all weights 143 and 147 ms (`scripts/bench gpu`, 512 pixels, batch of 1 + 1).
    """
    half = None if device.type == "cuda" else half_precision(device)
    return "float32" if half is None else "bfloat16"
