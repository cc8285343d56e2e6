"""The networks of toybox-diffusion: autoencoder, text encoder, U-Net and noise schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.toybox_text import TOKENS

CHANNELS, PATCH, WIDTH = 24, 8, 192
POSTERIOR_STD = 0.05
UNET: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 256), "attention_head_dim": (4, 8, 8), "norm_num_groups": 16,
}  # fmt: skip


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=CHANNELS, sample_size=128,
        block_out_channels=(16, 32, 64, 128), layers_per_block=1, norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        mid_block_add_attention=False, scaling_factor=1.0,
    )  # fmt: skip


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id, projection_dim=WIDTH,
    ))  # fmt: skip


def new_unet(sizes: Mapping[str, Any] = UNET) -> UNet2DConditionModel:
    """The U-Net, of other sizes in tests."""
    return UNet2DConditionModel(
        sample_size=128 // PATCH, in_channels=CHANNELS, out_channels=CHANNELS, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, **sizes,
    )  # fmt: skip


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise, but with a last fifth that ends where nothing can be seen.

    Stable Diffusion's own end leaves 7 % of the picture in the noisiest latent: a model learns to
    read outlines there, and reads them into pure noise when it draws (Lin et al. 2024,
    arXiv:2305.08891). These latents, large where a picture is smooth, would suffer more than most.
    """
    usual = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod.double()
    knots, levels = [800, 950, 999], [math.log(float(usual[800])), math.log(5e-4), math.log(2e-4)]
    ending = torch.from_numpy(np.interp(np.arange(801, 1000), knots, levels)).exp()
    alphas = torch.cat([torch.ones(1, dtype=torch.float64), usual[:801], ending])
    return DDIMScheduler(
        trained_betas=(1 - alphas[1:] / alphas[:-1]).tolist(), clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip
