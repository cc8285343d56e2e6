"""Stable Diffusion 1.x and 2.x from a diffusers folder: the only file that knows diffusers.

Every part is loaded on its own (no pipeline), strictly, from safetensors, with its dtype given.
Knows no names and no downloads: registry.py finds the folder.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.attention import AttentionControl
from understudy.errors import InputError, ModelError, PromptError
from understudy.models.denoiser import Denoiser
from understudy.models.fingerprint import Fingerprint
from understudy.models.folder import check_folder, read_json, weights_variant
from understudy.models.interface import NoiseSchedule, PredictionType, Tokens

NETWORKS = ("unet", "vae", "text_encoder")


class StableDiffusion:
    """A DiffusionModel (see interface.py) over a U-Net, an autoencoder and a CLIP text encoder.

    unet, vae, text_encoder are torch modules in evaluation mode whose parameters ask for no
    gradient; tokenizer is the CLIP tokenizer. Everything else is read from their configurations.
    """

    def __init__(
        self,
        name: str,
        *,
        unet: nn.Module,
        vae: nn.Module,
        text_encoder: nn.Module,
        tokenizer: Any,
        schedule: NoiseSchedule,
        prediction_type: PredictionType,
        fingerprint: Fingerprint,
    ) -> None:
        self.name = name
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.tokenizer = tokenizer
        self.schedule = schedule
        self.prediction_type: PredictionType = prediction_type
        self._fingerprint = fingerprint
        self._vae_config = cast(Any, vae).config
        self.denoiser = Denoiser(unet, schedule, prediction_type)
        self.downscale = 2 ** (len(self._vae_config.block_out_channels) - 1)
        self.latent_channels = int(self._vae_config.latent_channels)
        self.vocabulary: Mapping[str, int] = dict(tokenizer.get_vocab())
        self.max_tokens = _max_tokens(tokenizer, text_encoder)
        self.picture_size = _picture_size(cast(Any, unet).config.sample_size, self.downscale)

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
        check_folder(folder)
        loaded = _load_parts(folder, dtype)
        _check_fit(folder, **loaded)
        schedule, prediction_type = _load_schedule(folder)
        for part in NETWORKS:
            loaded[part].to(device).eval().requires_grad_(False)
        return cls(
            name or str(folder),
            **loaded,
            schedule=schedule,
            prediction_type=prediction_type,
            fingerprint=Fingerprint(folder, {part: loaded[part] for part in NETWORKS}),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the folder's files; another one while the weights differ from those."""
        return self._fingerprint.current()

    @property
    def base_fingerprint(self) -> str:
        """SHA-256 of the folder's files, whatever the model wears."""
        return self._fingerprint.base()

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def rows(self) -> int:
        """U-Net row evaluations so far."""
        return self.denoiser.rows

    def trainable_modules(self) -> dict[str, nn.Module]:
        """The parts that learning may change."""
        return {"unet": self.unet, "text_encoder": self.text_encoder}

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
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        limit = self.max_tokens - 2
        if len(ids) > limit:
            raise PromptError(
                f"The prompt has {len(ids)} tokens, {self.name} reads at most {limit}: {prompt!r}. "
                "Shorten it."
            )
        padding = [self.tokenizer.pad_token_id] * (limit - len(ids))
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        pieces: list[str] = self.tokenizer.convert_ids_to_tokens(ids)
        return Tokens((bos, *ids, eos, *padding), tuple(pieces))

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "b tokens width"]:
        """The text encoder's last hidden state, after its final layer norm."""
        ids = torch.tensor([self.tokenize(prompt).ids for prompt in prompts], device=self.device)
        return self.text_encoder(ids).last_hidden_state

    # Noise

    def predict(
        self,
        latents: Float[Tensor, "r c h w"],
        timestep: int | Int[Tensor, " r"],
        text: Float[Tensor, "r tokens width"],
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """The network's raw output, in the space of prediction_type."""
        return self.denoiser.predict(latents, timestep, text, control)

    def predict_noise(
        self,
        latents: Float[Tensor, "r c h w"],
        timestep: int | Int[Tensor, " r"],
        text: Float[Tensor, "r tokens width"],
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """epsilon, whatever the network predicts."""
        return self.denoiser.predict_noise(latents, timestep, text, control)


def _fine(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _max_tokens(tokenizer: Any, text_encoder: Any) -> int:
    # A tokenizer saved without a limit has a huge one; the encoder's positions always bound it.
    return min(int(tokenizer.model_max_length), int(text_encoder.config.max_position_embeddings))


def _picture_size(sample_size: int | Sequence[int], downscale: int) -> tuple[int, int]:
    height, width = (sample_size,) * 2 if isinstance(sample_size, int) else sample_size
    return height * downscale, width * downscale


def _load_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    parts: dict[str, Any] = {}
    with _quietly():
        for part, kind in kinds.items():
            parts[part] = _load_network(kind, folder / part, dtype)
        with _explained(folder / "tokenizer"):
            parts["tokenizer"] = CLIPTokenizer.from_pretrained(
                folder / "tokenizer", local_files_only=True
            )
    return parts


def _load_network(kind: Any, part: Path, dtype: torch.dtype) -> Any:
    variant = weights_variant(part)
    with _explained(part):
        network, told = kind.from_pretrained(
            part,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    # What the libraries only warn of: a tensor that is not in the file is filled with noise.
    missing = sorted(told["missing_keys"])
    if missing:
        raise ModelError(
            f"The weights of {part} lack {len(missing)} tensors, the first is {missing[0]}. "
            "Copy or download it again."
        )
    return network


@contextmanager
def _explained(part: Path) -> Generator[None]:
    """Whatever the libraries raise for a damaged part becomes a ModelError that names it."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{part} cannot be loaded: {reason}") from error


def _check_fit(folder: Path, **parts: Any) -> None:
    """Whether the parts were made for each other, by their configurations."""
    unet, vae, text = (parts[name].config for name in ("unet", "vae", "text_encoder"))
    pairs = [
        ("unet takes", unet.in_channels, "latent channels, vae gives", vae.latent_channels),
        ("unet gives", unet.out_channels, "latent channels, vae takes", vae.latent_channels),
        ("unet reads", unet.cross_attention_dim, "wide text, encoder gives", text.hidden_size),
    ]
    for what, wanted, versus, got in pairs:
        if wanted != got:
            raise ModelError(
                f"The parts of {folder} do not fit: {what} {wanted} {versus} {got}. "
                "Use parts of one model (inpainting and depth models are not supported)."
            )
    if unet.addition_embed_type is not None or unet.class_embed_type is not None:
        raise ModelError(f"The unet of {folder} wants inputs beyond text; it is not supported.")


def _load_schedule(folder: Path) -> tuple[NoiseSchedule, PredictionType]:
    """The schedule as diffusers' DDIM reads this configuration, whatever scheduler it names."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    config = read_json(folder / "scheduler" / "scheduler_config.json")
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"{folder} predicts {kind!r}. Supported prediction types: epsilon, v_prediction."
        )
    with _quietly():
        ddim = cast(Any, DDIMScheduler).from_config(config)
    offset, to_one = int(ddim.config.steps_offset), bool(ddim.config.set_alpha_to_one)
    return NoiseSchedule(ddim.alphas_cumprod, offset, to_one), kind


@contextmanager
def _quietly() -> Generator[None]:
    """No progress bars or notices from the libraries while loading; as before afterwards."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    logs = (diffusers_log, transformers_log)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (verbosity, bars) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
