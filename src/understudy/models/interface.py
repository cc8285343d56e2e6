"""What the rest of the package may call on a diffusion model: the protocol and its values.

No foreign library is named here. Image generators have a protocol of their own in `generators`.
Pictures are RGB float (b, 3, h, w) in [-1, 1]. Latents are (b, c, h / downscale, w / downscale)
times the autoencoder's scaling factor. "Row" is one latent of one U-Net call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.attention.perturbed import perturbed_layers
from understudy.attention.plan import AttentionControl
from understudy.attention.site import AttentionSite
from understudy.diffusion.guidance import Scales
from understudy.diffusion.schedule import Schedule, Time
from understudy.diffusion.text import Text
from understudy.diffusion.text import Tokens as Tokens

References = Sequence[Float[Tensor, "1 c _ _"]]
"""Latents of pictures that a model reads beside the noisy one."""


@runtime_checkable
class DiffusionModel(Protocol):
    """A text-to-image latent diffusion model.

    picture_size is the native (height, width); any multiple of what the network needs works.
    max_tokens counts BOS and EOS. fingerprint is a SHA-256 over configuration and weights as they
    are now, made when it is first asked for; base_fingerprint is the one of the model as loaded, so
    the two differ while a concept is applied. nfe counts network evaluations so far, one for each
    latent; read differences. vocabulary: the tokenizer's tokens and their ids, "</w>" marking the
    end of a word.
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
    def schedule(self) -> Schedule: ...
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
    def nfe(self) -> int: ...

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

    def embed(self, prompts: Sequence[str]) -> Text:
        """All that the network reads of prompts; the empty prompt is the unconditional one."""
        ...

    def predict(
        self,
        latents: Float[Tensor, "r c h w"],
        time: Time,
        text: Text,
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """The network's output, as `schedule.target` defines it; gradients flow to latents and
        text."""
        ...

    def trainable_modules(self) -> Mapping[str, nn.Module]:
        """The parts that learning may change: "unet" or "transformer", "text_encoder",
        "text_encoder_2"."""
        ...


def scales_for(
    model: DiffusionModel,
    guidance: float,
    *,
    pag: float = 0.0,
    layers: str = "mid",
    rescale: float = 0.0,
) -> Scales:
    """The scales of a model's guidance. layers: see `perturbed_layers`.

    Raises InputError where the model has no such layers and `pag` is not 0.
    """
    sites: Sequence[AttentionSite] = getattr(model, "sites", ()) if pag else ()
    found = perturbed_layers(sites, layers, model.name) if pag else frozenset[int]()
    return Scales(guidance, pag, found, rescale)


def denoiser_part(model: DiffusionModel) -> str:
    """The name of the network among the trainable modules: "unet", or "transformer" of a flow
    model."""
    return "transformer" if "transformer" in model.trainable_modules() else "unet"
