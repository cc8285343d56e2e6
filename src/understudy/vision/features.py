"""Feature extractors behind one protocol: CLIP, DINO, or the built-in recogniser.

The papers leave much open: which CLIP, how a picture is made small. Each such choice is a parameter
with the common value as default, and every `Features` says in `choices` what was chosen, so that
each table can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from understudy.errors import InputError
from understudy.pictures.metrics import Distance
from understudy.pictures.photo import shortest_side
from understudy.pictures.tensors import to_pixels, to_tensor
from understudy.toybox.vocabulary import BACKGROUNDS
from understudy.vision.encoders import Clip, Dino
from understudy.vision.recogniser import SCENE_HEADS, Recogniser

BATCH = 32  # pictures at once: bounds memory, changes nothing
Choices = Mapping[str, str | int | float]


@runtime_checkable
class Features(Protocol):
    """Pictures to vectors whose cosine says how alike they are."""

    @property
    def name(self) -> str: ...
    @property
    def choices(self) -> Choices:
        """What was chosen where the papers say nothing; written beside every result."""
        ...

    def of(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit vectors of pictures in [-1, 1], float32 on the CPU."""
        ...


@runtime_checkable
class Reader(Protocol):
    """How well pictures show what their prompts say, one number a pair, higher is better."""

    @property
    def name(self) -> str: ...
    @property
    def choices(self) -> Choices: ...

    def agreement(
        self, pictures: Float[Tensor, "b 3 h w"], prompts: Sequence[str]
    ) -> Float[Tensor, " b"]: ...


@dataclass(frozen=True)
class FeatureScorers:
    """The networks that score pictures: subject features by the name of their column, a reader of
    prompts, and a distance between two pictures with its name."""

    subject: Mapping[str, Features]  # "DINO", "CLIP-I"
    prompt: Reader
    prompt_name: str  # "CLIP-T"
    distance: Distance | None = None
    distance_name: str = "LPIPS"

    @property
    def choices(self) -> dict[str, Any]:
        """All that the paper leaves open, as it was chosen."""
        said = {name: dict(scorers.choices) for name, scorers in self.subject.items()}
        by = self.distance_name if self.distance else "not measured: LPIPS is not installed"
        return {**said, self.prompt_name: dict(self.prompt.choices), "DIV": by}


@dataclass(frozen=True)
class Preparation:
    """How a picture is made ready: shorter side to `resize`, centre `crop`, (x - mean) / std.

    by: "pillow" rounds to 8 bit before the crop, as the papers' torchvision and transformers do on
    files; "torch" scales whole batches on their own device, without rounding.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    by: Literal["pillow", "torch"] = "pillow"

    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Pictures in [-1, 1] as the network wants them."""
        if min(self.resize, self.crop) < 1 or self.crop > self.resize:
            raise InputError(f"A crop of {self.crop} does not fit {self.resize} pixels.")
        small = torch.cat([self._scaled(one) for one in pictures.split(1)])
        mean, std = (torch.tensor(x).view(1, 3, 1, 1).to(small) for x in (self.mean, self.std))
        return (small - mean) / std

    def _scaled(self, picture: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 s s"]:
        """In [0, 1], scaled and cropped."""
        if self.by == "pillow":
            scaled = to_tensor(shortest_side(to_pixels(picture), self.resize)) / 2 + 0.5
        else:
            height, width = picture.shape[-2:]
            short = min(height, width)
            size = (self.resize * height // short, self.resize * width // short)
            zero_to_one = (picture.float() + 1) / 2
            scaled = F.interpolate(zero_to_one, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((n - self.crop) // 2 for n in scaled.shape[-2:])
        return scaled[..., top : top + self.crop, left : left + self.crop]


# CLIP's own numbers, and ImageNet's, which DINO's authors use.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ClipFeatures:
    """CLIP-I and CLIP-T (DreamBooth, section 4.2). The paper names no size; ViT-B/32 is common."""

    clip: Clip
    by: Literal["pillow", "torch"] = "pillow"
    name = "CLIP"

    @property
    def preparation(self) -> Preparation:
        return Preparation(self.clip.side, self.clip.side, CLIP_MEAN, CLIP_STD, self.by)

    @property
    def choices(self) -> Choices:
        return _said(self.clip, self.preparation)

    def of(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return _looked(self.clip, self.preparation, pictures)

    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit vectors of texts."""
        return F.normalize(self.clip.read(prompts).float().cpu(), dim=1)

    def agreement(
        self, pictures: Float[Tensor, "b 3 h w"], prompts: Sequence[str]
    ) -> Float[Tensor, " b"]:
        """The cosine of each picture with its prompt; not the 2.5 times of CLIPScore."""
        return (self.of(pictures) * self.texts(prompts)).sum(dim=1)


@dataclass(frozen=True)
class DinoFeatures:
    """The DINO score's features: class tokens of ViT-S/16, prepared as its authors do."""

    dino: Dino
    by: Literal["pillow", "torch"] = "pillow"
    name = "DINO"

    @property
    def preparation(self) -> Preparation:
        side = self.dino.side
        return Preparation(round(side * 256 / 224), side, MEAN, STD, self.by)

    @property
    def choices(self) -> Choices:
        return _said(self.dino, self.preparation)

    def of(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return _looked(self.dino, self.preparation, pictures)


@dataclass(frozen=True)
class ToyFeatures:
    """The recogniser as feature network: identity as DINO's part, words read as CLIP-T's."""

    recogniser: Recogniser
    name = "identity"

    @property
    def choices(self) -> Choices:
        return {"features": self.recogniser.name, "agreement": "mean probability of prompt words"}

    def of(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return self.recogniser.identity(pictures).float().cpu()

    def agreement(
        self, pictures: Float[Tensor, "b 3 h w"], prompts: Sequence[str]
    ) -> Float[Tensor, " b"]:
        """Mean probability, as the recogniser reads the picture, of those words of its vocabulary
        that the prompt says; NaN for a prompt that says none of them."""
        seen, found = self.recogniser.recognise(pictures), torch.full((len(pictures),), torch.nan)
        for row, prompt in enumerate(prompts):
            chances = [
                seen.probabilities[head][row, self.recogniser.vocabulary.words[head].index(word)]
                for head, word in said(prompt, self.recogniser)
            ]
            if chances:
                found[row] = torch.stack(chances).mean()
        return found


def said(prompt: str, recogniser: Recogniser) -> list[tuple[str, str]]:
    """The (head, word) pairs that a prompt says: class, place, stance, pattern, accessory, and the
    main colour where it stands directly before the class."""
    words, found = recogniser.vocabulary.words, list[tuple[str, str]]()
    plain = f" {' '.join(prompt.lower().replace(',', ' ').split())} "
    for head in ("class", "stance", "pattern", "accessory"):
        found += [(head, word) for word in words[head] if f" {word} " in plain]
    for word in words[SCENE_HEADS[0]]:
        if f" {BACKGROUNDS.get(word, word)} " in plain:
            found.append((SCENE_HEADS[0], word))
    nouns = [word for head, word in found if head == "class"]
    found += [("primary", c) for c in words["primary"] if any(f" {c} {n} " in plain for n in nouns)]
    return found


def _looked(
    network: Clip | Dino, prepare: Preparation, pictures: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b d"]:
    parts = [network.look(prepare(some)).float().cpu() for some in pictures.split(BATCH)]
    return F.normalize(torch.cat(parts), dim=1)


def _said(network: Clip | Dino, prepare: Preparation) -> Choices:
    known = {k: str(v) for k, v in asdict(prepare).items()}
    facts = {"features": type(network).__name__, "model": network.name}
    return {**facts, "sha256": network.sha256[:12], "side": network.side, **known}
