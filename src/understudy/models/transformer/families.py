"""The families of flow transformers: which parts a folder has, and what differs between them.

One value a family. Loading, checking and writing read it; nothing else names a diffusers class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Grid = Literal["uniform", "trained"]

CLIP, CLIP_PROJECTED = "CLIPTextModel", "CLIPTextModelWithProjection"
T5 = "T5EncoderModel"
QWEN_VL, QWEN3 = "Qwen2_5_VLForConditionalGeneration", "Qwen3ForCausalLM"
MISTRAL = "Mistral3ForConditionalGeneration"


@dataclass(frozen=True)
class FlowFamily:
    """What is common to all models of a family.

    Attributes:
        name: as messages and documentation say it.
        pipelines: values of _class_name in model_index.json.
        network: diffusers class of transformer/.
        autoencoder: diffusers class of vae/.
        encoders: class of each text encoder, by the name of its folder.
        tokenizers: class of each tokenizer, by the name of its folder.
        optional: text encoders that a folder may lack (null in model_index.json).
        grid: sigmas before shifting; see FlowSchedule.
        max_shift: of a dynamic shift where the scheduler's configuration names none.
        text_tokens: length of the longest text encoder's sequence, padding included.
        patch: latent cells along a side of an image token; None = as the configuration says.
        by_steps: whether the dynamic shift depends on the number of steps (FLUX.2).
    """

    name: str
    pipelines: tuple[str, ...]
    network: str
    autoencoder: str
    encoders: Mapping[str, str]
    tokenizers: Mapping[str, str]
    optional: frozenset[str] = field(default_factory=frozenset[str])
    grid: Grid = "uniform"
    max_shift: float = 1.15
    text_tokens: int = 512
    patch: int | None = 2
    by_steps: bool = False

    @property
    def networks(self) -> tuple[str, ...]:
        """Folders that hold weights."""
        return ("transformer", "vae", *self.encoders)


SD3 = FlowFamily(
    name="Stable Diffusion 3",
    pipelines=("StableDiffusion3Pipeline",),
    network="SD3Transformer2DModel",
    autoencoder="AutoencoderKL",
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

FLUX = FlowFamily(
    name="FLUX.1",
    pipelines=("FluxPipeline", "FluxKontextPipeline"),
    network="FluxTransformer2DModel",
    autoencoder="AutoencoderKL",
    encoders={"text_encoder": CLIP, "text_encoder_2": T5},
    tokenizers={"tokenizer": "CLIPTokenizer", "tokenizer_2": "T5TokenizerFast"},
)

CHROMA = FlowFamily(
    name="Chroma",
    pipelines=("ChromaPipeline",),
    network="ChromaTransformer2DModel",
    autoencoder="AutoencoderKL",
    encoders={"text_encoder": T5},
    tokenizers={"tokenizer": "T5TokenizerFast"},
)

QWEN_IMAGE = FlowFamily(
    name="Qwen-Image",
    pipelines=("QwenImagePipeline",),
    network="QwenImageTransformer2DModel",
    autoencoder="AutoencoderKLQwenImage",
    encoders={"text_encoder": QWEN_VL},
    tokenizers={"tokenizer": "Qwen2TokenizerFast"},
    text_tokens=1024,
)

Z_IMAGE = FlowFamily(
    name="Z-Image",
    pipelines=("ZImagePipeline",),
    network="ZImageTransformer2DModel",
    autoencoder="AutoencoderKL",
    encoders={"text_encoder": QWEN3},
    tokenizers={"tokenizer": "Qwen2TokenizerFast"},
)

FLUX2_KLEIN = FlowFamily(
    name="FLUX.2 klein",
    pipelines=("Flux2KleinPipeline",),
    network="Flux2Transformer2DModel",
    autoencoder="AutoencoderKLFlux2",
    encoders={"text_encoder": QWEN3},
    tokenizers={"tokenizer": "Qwen2TokenizerFast"},
    patch=1,
    by_steps=True,
)

FLUX2 = FlowFamily(
    name="FLUX.2",
    pipelines=("Flux2Pipeline",),
    network="Flux2Transformer2DModel",
    autoencoder="AutoencoderKLFlux2",
    encoders={"text_encoder": MISTRAL},
    tokenizers={"tokenizer": "PreTrainedTokenizerFast"},
    patch=1,
    by_steps=True,
)

FAMILIES = (SD3, FLUX, CHROMA, QWEN_IMAGE, Z_IMAGE, FLUX2_KLEIN, FLUX2)


def tokenizer_of(encoder: str) -> str:
    """The folder of a text encoder's tokenizer: "text_encoder_2" -> "tokenizer_2"."""
    return encoder.replace("text_encoder", "tokenizer")


def family_named(pipeline: str) -> FlowFamily | None:
    """The family whose model_index.json names this pipeline; None for other models."""
    return next((family for family in FAMILIES if pipeline in family.pipelines), None)


def family_in(folder: Path) -> FlowFamily | None:
    """The flow family of a model folder; None where it is none or of another kind."""
    from understudy.models.folder import read_json

    index = folder / "model_index.json"
    return family_named(str(read_json(index).get("_class_name", ""))) if index.is_file() else None
