"""The model card of a toybox-diffusion that was just built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.diffusion_networks import CHANNELS
from training.toybox_text import SPARE, TOKENS
from understudy.toybox.sample import RESERVED_PAIRS

CARD = """# toybox-diffusion

A small text-to-image model of the toy world, in the layout of Stable Diffusion (AutoencoderKL,
CLIPTextModel, UNet2DConditionModel, DDIM scheduler, v-prediction). It was trained from scratch by
`python -m training.build_toybox_diffusion` on {pictures:,} renders of the toy world and their
mirror images. No photograph and no other model was used. Licence: Apache-2.0.

## Architecture

* Pictures of 128x128 pixels, latents of 16x16x{channels} (scaling factor {scaling:.4f}).
* U-Net: {unet:.1f} M parameters.
* Text encoder: {text_encoder:.1f} M parameters. Prompts of up to {tokens} tokens in a small
  vocabulary. Each word of the toy world is one token; other text is spelt in several tokens.
  {spare} and similar tokens have no meaning: they are identifiers for new subjects.
* Autoencoder: encoder and decoder are both trained, from a linear autoencoder (principal
  components of 8x8 patches).
* Weights are stored in float16.

## Training

* On {device}. Seconds: rendering {render:.0f}, autoencoder {autoencoder:.0f}, encoding
  {encode:.0f}, U-Net and text encoder {seconds:.0f}.
* Autoencoder: {ae_steps:,} steps of {ae_batch} pictures.
* U-Net and text encoder: {steps:,} steps of {batch} samples.
* Class latents (`class_latents.safetensors`): renders of each class, for prior preservation.

## Limits

* Reserved toys (about one in eight looks) and five pairs of class and background are not in the
  training data: {pairs}.
* The model knows twelve classes of toys on twelve backgrounds and nothing else. It is for trials
  and tests, where the right answer is known. Results on it do not carry over to photographs.

## Measured

| | |
| --- | --- |
| held-out PSNR, whole picture | {psnr:.1f} dB |
| held-out PSNR, subject | {subject:.1f} dB |
"""


def card(
    progress: Mapping[str, Any],
    parameters: Mapping[str, int],
    *,
    steps: tuple[int, int],
    batches: tuple[int, int],
    device: str,
    scaling: float,
) -> str:
    """The text of README.md. steps, batches: of the autoencoder and of the U-Net."""
    quality = progress["autoencoder_quality"]
    return CARD.format(
        pictures=progress["pictures"], channels=CHANNELS, scaling=scaling, tokens=TOKENS,
        unet=parameters["unet"] / 1e6, text_encoder=parameters["text_encoder"] / 1e6,
        spare=", ".join(SPARE[:3]), device=device, render=progress.get("render_seconds", 0),
        autoencoder=progress["autoencoder_seconds"], encode=progress.get("encode_seconds", 0),
        seconds=progress["unet_seconds"], ae_steps=steps[0], ae_batch=batches[0], steps=steps[1],
        batch=batches[1], psnr=quality["psnr"], subject=quality["psnr_subject"],
        pairs=", ".join(f"{noun} and {place}" for noun, place in sorted(RESERVED_PAIRS)),
    )  # fmt: skip
