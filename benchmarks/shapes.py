"""Stable Diffusion 1.5's U-Net in its shape, with random weights: for time, memory and work.

"half" has half its channels.

No weights are read: how long arithmetic takes does not depend on what is learnt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from understudy.diffusion.ddpm import DDPMSchedule
from understudy.diffusion.text import Text
from understudy.models.interface import Tokens
from understudy.models.unet.denoiser import Denoiser

TOKENS, WIDTH = 77, 768
SHAPES: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": WIDTH, "attention_head_dim": 8},
    "half": {
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 8,
        "block_out_channels": (160, 320, 640, 640),
    },
    "small": {
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "block_out_channels": (16, 32, 32, 32),
        "norm_num_groups": 8,
    },
}


class Shaped:
    """A DiffusionModel of a shape; it has no autoencoder, and one token a word."""

    downscale, latent_channels, max_tokens = 8, 4, TOKENS
    vocabulary: Mapping[str, int] = {}

    def __init__(
        self, shape: str, device: str, dtype: torch.dtype = torch.float32, offset: int = 1
    ) -> None:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        torch.manual_seed(0)
        with torch.device(device):
            self.unet: nn.Module = UNet2DConditionModel(**SHAPES[shape])
        self.unet.to(dtype).eval().requires_grad_(False)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.schedule = DDPMSchedule((1 - betas).cumprod(0), offset)
        self.denoiser = Denoiser(self.unet)
        self.predict = self.denoiser.predict
        self.device, self.dtype, self.name = torch.device(device), dtype, f"{shape} on {device}"
        self.fingerprint = self.base_fingerprint = hashlib.sha256(shape.encode()).hexdigest()
        self.picture_size = (512, 512)
        self.width = int(SHAPES[shape]["cross_attention_dim"])

    @property
    def nfe(self) -> int:
        return self.denoiser.nfe

    def tokenize(self, prompt: str) -> Tokens:
        words = prompt.split()
        ids = [int(hashlib.sha256(w.encode()).hexdigest()[:6], 16) for w in words]
        pad = [1] * (TOKENS - 1 - len(words))
        return Tokens((0, *ids, *pad), tuple(f"{w}</w>" for w in words))

    def embed(self, prompts: Sequence[str]) -> Text:
        drawn: list[Tensor] = []
        for prompt in prompts:
            seed = int(hashlib.sha256(prompt.encode()).hexdigest()[:12], 16)
            own = torch.Generator().manual_seed(seed)
            drawn.append(torch.randn(TOKENS, self.width, generator=own))
        return Text(torch.stack(drawn).to(self.device, self.dtype))

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet}

    def encode(self, pictures: Tensor) -> Tensor:
        raise NotImplementedError("this model has no autoencoder; latents are given")

    posterior = decode = encode
