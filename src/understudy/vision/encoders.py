"""CLIP and DINO image encoders, from a folder or hub id.

Loaded like every model here: strictly, from safetensors, classes named (never chosen by what a
folder says). How a picture is prepared for them is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import ModelError
from understudy.files.spec import shown
from understudy.models.folder import read_json
from understudy.models.registry import find
from understudy.models.tokenizer_files import load_tokenizer
from understudy.models.weight_files import weight_files
from understudy.pictures.recipe import ingredient
from understudy.vision.network_configs import CLIP, DINO, Keys, used_config
from understudy.vision.weights import load_network

WANTED = (
    "config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json",
)  # fmt: skip
MOST = 16_384  # patches of a picture; CLIP and DINO have at most 3,136


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
    from transformers import CLIPConfig, CLIPModel

    folder, used = _folder(name, "clip", CLIP)
    side = _side(name, used["vision_config"], 32)
    example = {
        "pixel_values": torch.zeros(1, 3, side, side, device="meta"),
        "input_ids": torch.zeros(1, 2, dtype=torch.int64, device="meta"),
    }
    network = load_network(CLIPModel, CLIPConfig, used, folder, example).to(device)
    return Clip(name, _hash(folder), side, network, load_tokenizer(folder))


def load_dino(name: str, *, device: torch.device | str = "cpu") -> Dino:
    """A ViTModel's folder or hub id, DINO or any other. Raises ModelError when it is none."""
    from transformers import ViTConfig, ViTModel

    folder, used = _folder(name, "vit", DINO)
    side = _side(name, used, 16)
    example = {"pixel_values": torch.zeros(1, 3, side, side, device="meta")}
    network = load_network(ViTModel, ViTConfig, used, folder, example, add_pooling_layer=False)
    return Dino(name, _hash(folder), side, network.to(device))


def _folder(name: str, kind: str, keys: Keys) -> tuple[Path, dict[str, Any]]:
    """The folder, and the keys of its configuration that are used."""
    folder = find(name, WANTED)
    config = read_json(folder / "config.json")
    if config.get("model_type") != kind:
        raise ModelError(
            f"{name} is a {shown(config.get('model_type'))} model. Expected one of type {kind!r}."
        )
    return folder, used_config(folder / "config.json", config, keys)


def _side(name: str, used: Mapping[str, Any], patch: int) -> int:
    """Pixels of the pictures that a network reads. Raises ModelError for more than MOST patches:
    attention over them is quadratic. patch: the class's own side of a patch."""
    side, patch = int(used.get("image_size", 224)), int(used.get("patch_size", patch))
    if (side // patch) ** 2 > MOST:
        raise ModelError(f"{name} cuts a picture into more than {MOST:,} patches. It was altered.")
    return side


def _hash(folder: Path) -> str:
    """SHA-256 of the weights that are loaded: of one file, or of the hashes of several."""
    hashes = [ingredient("weights", file).sha256 for file in weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else sha256(" ".join(hashes).encode()).hexdigest()
