"""Model families: what a diffusers folder of each family consists of, one value a family.

Loading, checking, planning and writing a folder read these values; no other module decides by the
name of a pipeline or network class. Imports neither torch nor diffusers. The settings that suit a
family are in `settings/families.py`, because settings are resolved before a model is looked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

Grid = Literal["uniform", "trained"]

CLIP, CLIP_PROJECTED = "CLIPTextModel", "CLIPTextModelWithProjection"
T5 = "T5EncoderModel"
QWEN_VL, QWEN3 = "Qwen2_5_VLForConditionalGeneration", "Qwen3ForCausalLM"
MISTRAL = "Mistral3ForConditionalGeneration"


@dataclass(frozen=True, kw_only=True)
class Family:
    """What all models of a family have in common.

    Attributes:
        name: for messages and documentation.
        pipelines: patterns of _class_name in model_index.json; * stands for any text.
        denoiser: folder of the denoising network, "unet" or "transformer".
        network: diffusers class of the denoising network.
        autoencoder: diffusers class of vae/.
        encoders: transformers class of each text encoder, by the name of its folder.
        tokenizers: transformers class of each tokenizer, by the name of its folder.
        optional: text encoders that a folder may lack (null in model_index.json).

    Of flow transformers only:
        grid: sigmas before shifting; see FlowSchedule.
        max_shift: of a dynamic shift where the scheduler's configuration names none.
        text_tokens: length of the longest text encoder's sequence, padding included.
        patch: latent cells along a side of an image token; None = read from the configuration.
        by_steps: whether the dynamic shift depends on the number of steps (FLUX.2).
        refers: pipelines of the models that were trained to read reference pictures.
        references: how many of them at most.
    """

    name: str
    pipelines: tuple[str, ...]
    denoiser: Literal["unet", "transformer"] = "transformer"
    network: str
    autoencoder: str = "AutoencoderKL"
    encoders: dict[str, str]
    tokenizers: dict[str, str]
    optional: frozenset[str] = field(default_factory=frozenset[str])
    grid: Grid = "uniform"
    max_shift: float = 1.15
    text_tokens: int = 512
    patch: int | None = 2
    by_steps: bool = False
    refers: tuple[str, ...] = ()
    references: int = 0

    @property
    def flows(self) -> bool:
        """Whether models of the family are rectified flows (transformers), not DDPMs (U-Nets)."""
        return self.denoiser == "transformer"

    @property
    def networks(self) -> tuple[str, ...]:
        """Folders that hold weights."""
        return (self.denoiser, "vae", *self.encoders)


SD = Family(
    name="Stable Diffusion",
    pipelines=("", "StableDiffusion[!3]*"),
    denoiser="unet",
    network="UNet2DConditionModel",
    encoders={"text_encoder": CLIP},
    tokenizers={"tokenizer": "CLIPTokenizer"},
)

SDXL = Family(
    name="Stable Diffusion XL",
    pipelines=("StableDiffusion[!3]*XL*", "StableDiffusionXL*"),
    denoiser="unet",
    network="UNet2DConditionModel",
    encoders={"text_encoder": CLIP, "text_encoder_2": CLIP_PROJECTED},
    tokenizers={"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer"},
)

SD3 = Family(
    name="Stable Diffusion 3",
    pipelines=("StableDiffusion3Pipeline",),
    network="SD3Transformer2DModel",
    encoders={"text_encoder": CLIP_PROJECTED, "text_encoder_2": CLIP_PROJECTED,
              "text_encoder_3": T5},
    tokenizers={"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer",
                "tokenizer_3": "T5TokenizerFast"},
    optional=frozenset({"text_encoder_3"}),
    grid="trained",
    max_shift=1.16,
    text_tokens=256,
    patch=None,
)  # fmt: skip

FLUX = Family(
    name="FLUX.1",
    pipelines=("FluxPipeline", "FluxKontextPipeline"),
    network="FluxTransformer2DModel",
    encoders={"text_encoder": CLIP, "text_encoder_2": T5},
    tokenizers={"tokenizer": "CLIPTokenizer", "tokenizer_2": "T5TokenizerFast"},
    refers=("FluxKontextPipeline",),
    references=1,
)

CHROMA = Family(
    name="Chroma",
    pipelines=("ChromaPipeline",),
    network="ChromaTransformer2DModel",
    encoders={"text_encoder": T5},
    tokenizers={"tokenizer": "T5TokenizerFast"},
)

QWEN_IMAGE = Family(
    name="Qwen-Image",
    pipelines=("QwenImagePipeline",),
    network="QwenImageTransformer2DModel",
    autoencoder="AutoencoderKLQwenImage",
    encoders={"text_encoder": QWEN_VL},
    tokenizers={"tokenizer": "Qwen2TokenizerFast"},
    text_tokens=1024,
)

Z_IMAGE = Family(
    name="Z-Image",
    pipelines=("ZImagePipeline",),
    network="ZImageTransformer2DModel",
    encoders={"text_encoder": QWEN3},
    tokenizers={"tokenizer": "Qwen2TokenizerFast"},
)

FLUX2_KLEIN = Family(
    name="FLUX.2 klein",
    pipelines=("Flux2KleinPipeline",),
    network="Flux2Transformer2DModel",
    autoencoder="AutoencoderKLFlux2",
    encoders={"text_encoder": QWEN3},
    tokenizers={"tokenizer": "Qwen2TokenizerFast"},
    patch=1,
    by_steps=True,
    refers=("Flux2KleinPipeline",),
    references=4,
)

FLUX2 = Family(
    name="FLUX.2",
    pipelines=("Flux2Pipeline",),
    network="Flux2Transformer2DModel",
    autoencoder="AutoencoderKLFlux2",
    encoders={"text_encoder": MISTRAL},
    tokenizers={"tokenizer": "PreTrainedTokenizerFast"},
    patch=1,
    by_steps=True,
    refers=("Flux2Pipeline",),
    references=10,
)

# SDXL before SD: the patterns of SD match its pipelines, too.
FAMILIES = (SDXL, SD, SD3, FLUX, CHROMA, QWEN_IMAGE, Z_IMAGE, FLUX2_KLEIN, FLUX2)


def tokenizer_of(encoder: str) -> str:
    """The folder of a text encoder's tokenizer: "text_encoder_2" -> "tokenizer_2"."""
    return encoder.replace("text_encoder", "tokenizer")


def family_named(pipeline: str) -> Family | None:
    """The family of a pipeline class, "StableDiffusionPipeline"; None for an unknown one."""
    for family in FAMILIES:
        if any(fnmatchcase(pipeline, pattern) for pattern in family.pipelines):
            return family
    return None
