"""CLIP and DINO image encoders, from a folder or hub id.

Loaded like every model here: strictly, from safetensors, classes named (never chosen by what a
folder says). How a picture is prepared for them is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import ModelError, sentence
from understudy.files import spec
from understudy.models.folder import read_json
from understudy.models.network_configs import refuse_foreign
from understudy.models.registry import find
from understudy.models.weight_files import entries, weight_files
from understudy.pictures.recipe import ingredient

WANTED = (
    "config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json",
)  # fmt: skip
SIZES = {  # the largest of each size in a configuration
    "hidden_size": 16_384, "intermediate_size": 65_536, "num_hidden_layers": 128,
    "num_attention_heads": 16_384, "image_size": 4096, "patch_size": 4096, "num_channels": 16,
    "vocab_size": 1_000_000, "max_position_embeddings": 4096, "projection_dim": 16_384,
}  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """CLIP (Radford et al. 2021): pictures and texts to vectors that can be compared."""

    name: str
    sha256: str
    side: int  # pixels of a prepared picture
    network: Any
    tokenizer: Any

    @torch.no_grad()
    def look(self, prepared: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """The projected image embeddings of prepared pictures."""
        pixels = prepared.to(self.network.device, self.network.dtype)
        return self.network.get_image_features(pixel_values=pixels).pooler_output

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """The projected text embeddings; a text past the limit of tokens is cut, as CLIP does."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, return_tensors="pt",
            max_length=self.network.config.text_config.max_position_embeddings,
        )  # fmt: skip
        return self.network.get_text_features(**tokens.to(self.network.device)).pooler_output


@dataclass(frozen=True)
class Dino:
    """DINO (Caron et al. 2021): the class token after the last layer's norm."""

    name: str
    sha256: str
    side: int
    network: Any

    @torch.no_grad()
    def look(self, prepared: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """The class tokens of prepared pictures."""
        pixels = prepared.to(self.network.device, self.network.dtype)
        return self.network(pixel_values=pixels).last_hidden_state[:, 0]


def load_clip(name: str, *, device: torch.device | str = "cpu") -> Clip:
    """A CLIPModel's folder or hub id. Raises ModelError when it is none, or incomplete."""
    from transformers import CLIPModel, CLIPTokenizer

    folder, config = _folder(name, "clip")
    network = network_of(CLIPModel, folder).to(device)
    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a stranger's files make the library raise anything
        raise ModelError(f"{folder} has no CLIP tokenizer: {sentence(error)}") from error
    side = int(config.get("vision_config", {}).get("image_size", 224))
    return Clip(name, _hash(folder), side, network, tokenizer)


def load_dino(name: str, *, device: torch.device | str = "cpu") -> Dino:
    """A ViTModel's folder or hub id, DINO or any other. Raises ModelError when it is none."""
    from transformers import ViTModel

    folder, config = _folder(name, "vit")
    network = network_of(ViTModel, folder, add_pooling_layer=False).to(device)
    return Dino(name, _hash(folder), int(config.get("image_size", 224)), network)


def _folder(name: str, kind: str) -> tuple[Path, dict[str, Any]]:
    folder = find(name, WANTED)
    config = read_json(folder / "config.json")
    if config.get("model_type") != kind:
        raise ModelError(
            f"{name} is a {config.get('model_type')!r} model. Wanted one of type {kind!r}."
        )
    _check_sizes(folder / "config.json", config)
    entries(folder)
    return folder, config


def _check_sizes(file: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for a size that no encoder has, before anything is built, and for keys that
    run code; in the two halves of a CLIP, too."""
    refuse_foreign(file, config)
    for key, most in SIZES.items():
        size = config.get(key, 1)
        if type(size) is not int or not 1 <= size <= most:
            raise ModelError(f"{file} says {key} = {spec.shown(size)}. Wanted 1 to {most:,}.")
    for half in ("text_config", "vision_config"):
        inner = config.get(half, {})
        if not isinstance(inner, dict):
            raise ModelError(f"{file} says {half} = {spec.shown(inner)}. Wanted an object.")
        if inner:
            _check_sizes(file, cast("dict[str, Any]", inner))


def network_of(kind: Any, folder: Path, **how: Any) -> Any:
    """Weights of one class, nothing missing, in float32."""
    try:
        network, report = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32,
            output_loading_info=True, attn_implementation="sdpa", **how,
        )  # fmt: skip
    except Exception as error:  # a stranger's configuration makes the library raise anything
        raise ModelError(f"{folder} cannot be loaded: {sentence(error)}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"{folder} lacks weights ({missing}, ...). Download it again.")
    return network.eval().requires_grad_(False)


def _hash(folder: Path) -> str:
    """SHA-256 of the weights that are loaded: of one file, or of the hashes of several."""
    hashes = [ingredient("weights", file).sha256 for file in weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else sha256(" ".join(hashes).encode()).hexdigest()
