"""What the rest of the package may call on a diffusion model: the protocol and its values.

No foreign library is named here. Image generators have a protocol of their own in `generators`.
Pictures are RGB float (b, 3, h, w) in [-1, 1]. Latents are (b, c, h / downscale, w / downscale)
times the autoencoder's scaling factor. "Row" is one latent of one U-Net call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.attention.plan import AttentionControl

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process: x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps (Ho et al. 2020, eq. 4).

    alphas_cumprod: a_t for every training timestep, float32 as diffusers computes it (its rounding
        is part of a published model).
    steps_offset: 0 or 1, added to every sampling timestep.
    set_alpha_to_one: whether the step past the last timestep has a = 1, or a of timestep 0.
    timestep_spacing: how sampling timesteps are chosen: "leading", "trailing" or "linspace"
        (Lin et al. 2023, arXiv:2305.08891, table 2).
    """

    alphas_cumprod: Float[Tensor, " timesteps"]
    steps_offset: int = 0
    set_alpha_to_one: bool = False
    timestep_spacing: str = "leading"

    @property
    def length(self) -> int:
        """Number of training timesteps, normally 1000."""
        return self.alphas_cumprod.shape[0]

    def alpha(self, timestep: int) -> float:
        """a_t as a Python float (64 bit, exact); a timestep below 0 gives the final alpha."""
        if timestep < 0:
            return 1.0 if self.set_alpha_to_one else float(self.alphas_cumprod[0])
        return float(self.alphas_cumprod[timestep])

    def signal_and_noise(
        self, timestep: int | Int[Tensor, " rows"], like: Float[Tensor, "rows c h w"]
    ) -> tuple[Tensor, Tensor]:
        """sqrt(a_t), sqrt(1 - a_t): (rows or 1, 1, 1, 1), at least float32, on like's device."""
        steps = torch.as_tensor(timestep).reshape(-1).to(like.device)
        dtype = torch.promote_types(like.dtype, torch.float32)
        alphas = self.alphas_cumprod.to(torch.float64)  # roots in double, also for float32 latents
        signal, noise = (
            root.to(like.device, dtype) for root in (alphas.sqrt(), (1 - alphas).sqrt())
        )
        return signal[steps].reshape(-1, 1, 1, 1), noise[steps].reshape(-1, 1, 1, 1)

    def noised(
        self,
        clean: Float[Tensor, "rows c h w"],
        noise: Float[Tensor, "rows c h w"],
        timestep: int | Int[Tensor, " rows"],
    ) -> Float[Tensor, "rows c h w"]:
        """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps."""
        a, s = self.signal_and_noise(timestep, clean)
        return (a * clean + s * noise).to(clean.dtype)

    def velocity(
        self,
        clean: Float[Tensor, "rows c h w"],
        noise: Float[Tensor, "rows c h w"],
        timestep: int | Int[Tensor, " rows"],
    ) -> Float[Tensor, "rows c h w"]:
        """v = sqrt(a_t) eps - sqrt(1 - a_t) x_0 (Salimans & Ho 2022, arXiv:2202.00512)."""
        a, s = self.signal_and_noise(timestep, clean)
        return (a * noise - s * clean).to(clean.dtype)

    def noise_from_velocity(
        self,
        velocity: Float[Tensor, "rows c h w"],
        latents: Float[Tensor, "rows c h w"],
        timestep: int | Int[Tensor, " rows"],
    ) -> Float[Tensor, "rows c h w"]:
        """eps = sqrt(a_t) v + sqrt(1 - a_t) x_t."""
        a, s = self.signal_and_noise(timestep, latents)
        return (a * velocity + s * latents).to(latents.dtype)


@dataclass(frozen=True)
class Tokens:
    """A prompt as the text encoder reads it.

    ids: max_tokens ids, BOS and EOS included, padded.
    pieces: the real tokens between BOS and EOS as text, "</w>" marking the end of a word;
        pieces[i] is at position i + 1 of ids.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]

    @property
    def length(self) -> int:
        """Number of real tokens, without BOS, EOS and padding."""
        return len(self.pieces)


@runtime_checkable
class DiffusionModel(Protocol):
    """A text-to-image latent diffusion model.

    picture_size is the native (height, width); any multiple of what the network needs works.
    max_tokens counts BOS and EOS. fingerprint is a SHA-256 over configuration and weights as they
    are now, made when it is first asked for; base_fingerprint is the one of the model as loaded, so
    the two differ while a concept is worn. rows counts U-Net row evaluations so far; read
    differences. vocabulary: the tokenizer's pieces and their ids, "</w>" marking the end of a word.
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def base_fingerprint(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def prediction_type(self) -> PredictionType: ...
    @property
    def schedule(self) -> NoiseSchedule: ...
    @property
    def picture_size(self) -> tuple[int, int]: ...
    @property
    def downscale(self) -> int: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def vocabulary(self) -> Mapping[str, int]: ...
    @property
    def rows(self) -> int: ...

    def encode(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c lh lw"]:
        """Latents of pictures: the posterior's mean times the scaling factor."""
        ...

    def posterior(
        self, pictures: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c lh lw"], Float[Tensor, "b c lh lw"]]:
        """Mean and standard deviation of the latents, scaled alike."""
        ...

    def decode(self, latents: Float[Tensor, "b c lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of latents, float32, clamped to [-1, 1]."""
        ...

    def tokenize(self, prompt: str) -> Tokens:
        """The prompt's tokens; PromptError when it has more than max_tokens - 2."""
        ...

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "b tokens width"]:
        """Text embeddings as the U-Net expects them; the empty prompt is the unconditional one.

        The first max_tokens rows belong to the tokens. Behind them there may be more, which hold
        what else the network reads of a prompt (XL's pooled embedding): they stay behind.
        """
        ...

    def predict_noise(
        self,
        latents: Float[Tensor, "r c h w"],
        timestep: int | Int[Tensor, " r"],
        text: Float[Tensor, "r tokens width"],
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """epsilon, whatever the network predicts; gradients flow to latents and text."""
        ...

    def predict(
        self,
        latents: Float[Tensor, "r c h w"],
        timestep: int | Int[Tensor, " r"],
        text: Float[Tensor, "r tokens width"],
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """The network's raw output, in the space of prediction_type (for training)."""
        ...

    def trainable_modules(self) -> Mapping[str, nn.Module]:
        """The parts that learning may change: "unet", "text_encoder", XL's "text_encoder_2"."""
        ...
