"""The model card of a toybox-flow that was just built."""

from __future__ import annotations

from collections.abc import Mapping

from training.diffusion_networks import CHANNELS
from training.flow_networks import T5_LONG, T5_SHORT, WORDS
from understudy.toybox.sample import RESERVED_PAIRS

CARD = """# toybox-flow

A small text-to-image flow model of the toy world, in the layout of Stable Diffusion 3
(StableDiffusion3Pipeline: SD3Transformer2DModel, two CLIP text encoders, T5, AutoencoderKL,
FlowMatchEulerDiscreteScheduler with shift 1). It was trained from scratch by
`python -m training.build_toybox_flow` on {pictures:,} renders of the toy world and their mirror
images. No photograph and no other model than toybox-diffusion was used. Licence: Apache-2.0.

## Architecture

* Pictures of 128x128 pixels, latents of 16x16x{channels}.
* Transformer: {transformer:.1f} M parameters, {layers} layers of {width}, patch {patch}.
* Autoencoder and first text encoder: those of toybox-diffusion, unchanged; the text encoder's
  projection is the identity.
* Second text encoder: one layer of 32, {text_encoder_2:.3f} M parameters, trained.
* T5: answers zeros for every prompt. It is there because the pipeline has one. The transformer was
  trained with {short} rows of it, which its tokenizer gives, and with {long}, the pipeline's
  default; `max_sequence_length={short}` is quicker.
* Prompts of up to {words} tokens.
* Weights are stored in {dtype}.

## Training

* On {device}, {seconds:.0f} s: {steps:,} steps of {batch} samples, {samples:.2f} M samples.
* Loss: velocity of the rectified flow (Esser et al. 2024, arXiv:2403.03206). A linear layer on the
  middle block, used in training only, predicts where the parts of the toy are.
* Optimiser: Muon for the matrices of the blocks, AdamW for the rest; peak rate {rate:g}, falling to
  1 % in the last 40 % of the steps. The weights are an exponential average.

## Sampling

Euler with fresh noise in each step (--eta 1, --temperature 0.95), 25 steps, guidance 3.

## Limits

* Reserved toys (about one in eight looks) and five pairs of class and background are not in the
  training data: {pairs}.
* The model knows twelve classes of toys on twelve backgrounds and nothing else. It is for trials
  and tests, where the right answer is known. Results on it do not carry over to photographs.
"""


def card(
    parameters: Mapping[str, int],
    *,
    shape: tuple[int, int, int],
    pictures: int,
    steps: int,
    batch: int,
    rate: float,
    seconds: float,
    device: str,
    dtype: str,
) -> str:
    """The text of README.md. parameters: by part. shape: layers, width and patch size."""
    layers, width, patch = shape
    return CARD.format(
        pictures=pictures, channels=CHANNELS, layers=layers, width=width, patch=patch,
        transformer=parameters["transformer"] / 1e6, dtype=dtype, words=WORDS,
        text_encoder_2=parameters["text_encoder_2"] / 1e6, short=T5_SHORT, long=T5_LONG,
        device=device, seconds=seconds, steps=steps, batch=batch, rate=rate,
        samples=steps * batch / 1e6,
        pairs=", ".join(f"{noun} and {place}" for noun, place in sorted(RESERVED_PAIRS)),
    )  # fmt: skip
