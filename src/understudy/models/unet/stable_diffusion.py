"""Stable Diffusion 1.x, 2.x and XL from a diffusers folder, behind the DiffusionModel protocol.

Knows no names and no downloads: registry.py finds the folder, parts.py reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.attention.plan import AttentionControl
from understudy.attention.site import AttentionSite
from understudy.cuda_graphs.capture import Capturer
from understudy.diffusion.schedule import Schedule, Time
from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.models.compiled import Compiled, recompiled
from understudy.models.family import tokenizer_of
from understudy.models.fingerprint import Fingerprint
from understudy.models.folder import empty_is_zero
from understudy.models.graphs import Graphs
from understudy.models.interface import Tokens
from understudy.models.parts import load_parts
from understudy.models.schedule_config import load_schedule
from understudy.models.text_encoders import TextReader
from understudy.models.unet.denoiser import Denoiser


class StableDiffusion:
    """A DiffusionModel (see interface.py) over a U-Net, an autoencoder and CLIP text encoders.

    parts: by the names of their folders: unet, vae, text_encoder and XL's text_encoder_2 as torch
    modules in evaluation mode whose parameters need no gradient, and the CLIP tokenizer of each
    encoder. empty_is_zero: see TextReader. Everything else is read from their configurations.
    """

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Any],
        *,
        schedule: Schedule,
        fingerprint: Fingerprint,
        empty_is_zero: bool = False,
    ) -> None:
        self.name = name
        self.unet: nn.Module = parts["unet"]
        self.vae: nn.Module = parts["vae"]
        self.text_encoder: nn.Module = parts["text_encoder"]
        self.text_encoder_2: nn.Module | None = parts.get("text_encoder_2")
        self.tokenizer = parts["tokenizer"]
        self.schedule = schedule
        self._fingerprint = fingerprint
        self.folder = fingerprint.folder
        self._vae_config = cast(Any, self.vae).config
        self.downscale = 2 ** (len(self._vae_config.block_out_channels) - 1)
        self.latent_channels = int(self._vae_config.latent_channels)
        names = [part for part in ("text_encoder", "text_encoder_2") if part in parts]
        encoders = [parts[part] for part in names]
        tokenizers = [parts[tokenizer_of(part)] for part in names]
        self.text = TextReader(name, tokenizers, encoders, empty_is_zero=empty_is_zero)
        self.vocabulary: Mapping[str, int] = self.text.vocabulary
        self.max_tokens = self.text.max_tokens
        self.denoiser = Denoiser(self.unet, downscale=self.downscale)
        self.picture_size = _picture_size(cast(Any, self.unet).config.sample_size, self.downscale)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        name: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> StableDiffusion:
        """Load a folder as diffusers' save_pretrained writes it.

        Raises ModelError when parts are missing, do not fit each other, or are of another family.
        """
        loaded = load_parts(folder, dtype)
        networks = {part: one for part, one in loaded.items() if isinstance(one, nn.Module)}
        for network in networks.values():
            network.to(device).eval().requires_grad_(False)
        fingerprint = Fingerprint(folder, networks)
        model = cls(
            name or str(folder),
            loaded,
            schedule=load_schedule(folder),
            fingerprint=fingerprint,
            empty_is_zero=empty_is_zero(folder),
        )
        fingerprint.settled()  # the denoiser may have laid the weights out anew
        return model

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the folder's files; another one while the weights differ from those."""
        return self._fingerprint.current()

    @property
    def base_fingerprint(self) -> str:
        """SHA-256 of the folder's files, whatever concepts are applied."""
        return self._fingerprint.base()

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def nfe(self) -> int:
        """Network evaluations so far, one for each latent."""
        return self.denoiser.nfe

    @property
    def sites(self) -> tuple[AttentionSite, ...]:
        """The attention layers in order of execution."""
        return self.denoiser.sites

    def compile(self, on: bool = True, *, backend: str | None = None) -> Compiled | None:
        """Run the U-Net compiled from now on, or as it is. backend: as of torch.compile.

        Returns what runs it; None = as it is.
        """
        self.denoiser.compiled = recompiled(self.denoiser.compiled, self.unet, on, backend)
        return self.denoiser.compiled

    def graph(self, on: bool = True, *, capturer: Capturer | None = None) -> Graphs | None:
        """Record the U-Net's calls as CUDA graphs and replay them from now on, or run them as they
        are. capturer: what records; None = CUDA.

        Returns what holds the graphs; None = none are recorded.
        """
        self.denoiser.graphs = Graphs(self.unet, capturer) if on else None
        return self.denoiser.graphs

    def trainable_modules(self) -> dict[str, nn.Module]:
        """The parts that learning may change."""
        parts = {"unet": self.unet, "text_encoder": self.text_encoder}
        if self.text_encoder_2 is not None:
            parts["text_encoder_2"] = self.text_encoder_2
        return parts

    # Pictures and latents

    def posterior(
        self, pictures: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c lh lw"], Float[Tensor, "b c lh lw"]]:
        """Mean and standard deviation of the latents, both scaled, float32 or finer."""
        height, width = pictures.shape[-2:]
        if height % self.downscale or width % self.downscale:
            raise InputError(
                f"A picture's height and width must be multiples of {self.downscale} "
                f"for {self.name}. Got {height} x {width}."
            )
        vae = cast(Any, self.vae)
        given = pictures.to(vae.device, vae.dtype)
        latent = vae.encode(given).latent_dist
        factor = self._vae_config.scaling_factor
        return _fine(latent.mean) * factor, _fine(latent.std) * factor

    def encode(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c lh lw"]:
        """The posterior's mean times the scaling factor, float32 or finer."""
        return self.posterior(pictures)[0]

    def decode(self, latents: Float[Tensor, "b c lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1], float32."""
        vae = cast(Any, self.vae)
        given = (latents / self._vae_config.scaling_factor).to(vae.device, vae.dtype)
        return vae.decode(given, return_dict=False)[0].float().clamp(-1, 1)

    # Text

    def tokenize(self, prompt: str) -> Tokens:
        """The prompt's tokens, padded; PromptError when they are too many."""
        return self.text.tokenize(prompt)

    def embed(self, prompts: Sequence[str]) -> Text:
        """The text as the U-Net reads it: see TextReader.embed."""
        return self.text.embed(prompts)

    # Denoising

    def predict(
        self,
        latents: Float[Tensor, "r c h w"],
        time: Time,
        text: Text,
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """The network's output: see `schedule.target`."""
        return self.denoiser.predict(latents, time, text, control)


def _fine(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _picture_size(sample_size: int | Sequence[int], downscale: int) -> tuple[int, int]:
    height, width = (sample_size,) * 2 if isinstance(sample_size, int) else sample_size
    return height * downscale, width * downscale
