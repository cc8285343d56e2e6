"""The recogniser: a small network that says what a toybox picture shows.

It plays the part that CLIP and DINO play for real photographs: what kind of thing the main subject
is, its colours, pattern and accessory, how it stands, what is behind it, where its key points and
its pixels are, and an identity embedding in which two views of one toy lie together and two toys
of the same class apart, toys never seen in training included.

This module knows nothing of scenes: the words it answers with travel with its weights. How it is
trained is in `training.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.vision.built_in import load_network
from understudy.vision.layers import ResidualBlock, conv, pool

BUILT_IN = Path(__file__).parent.parent / "weights" / "recogniser"
SIZE = 128  # pixels a side that the network sees
HEADS = ("class", "primary", "secondary", "pattern", "accessory", "background", "stance")
SCENE_HEADS = ("background",)  # read outside the subject; the others inside


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The words of each head, in the order of its outputs, and the names of the key points."""

    words: Mapping[str, tuple[str, ...]]
    points: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Vocabulary:
        words, points = data["words"], data["points"]
        assert isinstance(words, dict) and isinstance(points, list)
        return cls(
            words={str(head): tuple(map(str, names)) for head, names in words.items()},
            points=tuple(map(str, points)),
        )


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """What the recogniser sees in a batch of b pictures.

    probabilities: for each head a "b words" table; points: (x, y) in pixels of the pictures given,
    pixel centres at +0.5; visible: probability that the point exists and can be seen;
    identity: unit vectors; mask: 1 = the main subject, at the size of the pictures given.
    """

    vocabulary: Vocabulary
    probabilities: Mapping[str, Float[Tensor, "b words"]]
    identity: Float[Tensor, "b d"]
    points: Float[Tensor, "b k 2"]
    visible: Float[Tensor, "b k"]
    mask: Float[Tensor, "b 1 h w"]

    def best(self, head: str) -> list[str]:
        """The most probable word of a head ("class", "primary", "background", ...) per picture."""
        words = self.vocabulary.words[head]
        return [words[i] for i in self.probabilities[head].argmax(dim=1).tolist()]

    def confident(self, threshold: float = 0.5) -> Bool[Tensor, "b k"]:
        """Which key points are there to be compared."""
        return self.visible > threshold


class PictureNetwork(nn.Module):
    """What a `Recogniser` asks of its network: the recogniser's own, or the examiner's.

    Both have one trunk: stem, at32, to16, at16 and at8, named after the sides of their maps.
    """

    vocabulary: Vocabulary
    stem: nn.Module
    at32: nn.Module
    where: nn.Module
    to16: nn.Module
    at16: nn.Module
    at8: nn.Module

    def levels(
        self, x: Float[Tensor, "b 3 h w"], where: Float[Tensor, "b 1 c d"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Trunk features; of pictures of 128 x 128 "b w 32 32", "b 2w 16 16", "b 4w 8 8"."""
        at32 = self.at32(self.stem(x))
        at16 = self.to16(at32)
        at16 = self.at16(at16 if where is None else at16 + self.where(where))
        return at32, at16, self.at8(at16)

    def forward(
        self, x: Float[Tensor, "b 3 h w"], where: Float[Tensor, "b 1 c d"] | None = None
    ) -> dict[str, Tensor]:
        """Raw outputs: a logit table per head, "mask" b h/2 w/2, "heat" b k h/4 w/4, "seen" b k,
        "identity" b d (unit). A `where` of zeros says nothing, as None does."""
        raise NotImplementedError


class RecogniserNetwork(PictureNetwork):
    """Residual trunk 128 -> 32 -> 16 -> 8, one step back up to 16, then the heads.

    All heads read two means of the features: inside the network's own coarse mask, and outside.
    A picture of several subjects does not say which is meant: `where`, a blurred mask, tells.
    """

    def __init__(self, vocabulary: Vocabulary, *, width: int = 64, identity: int = 64) -> None:
        super().__init__()
        w, joint = width, 2 * width
        self.vocabulary = vocabulary
        self.stem = conv(3, w, 8, 4)
        self.at32 = ResidualBlock(w, w // 2)
        self.where = nn.Conv2d(1, 2 * w, 3, padding=1, bias=False)
        self.to16 = conv(w, 2 * w, 2, 2)
        self.at16 = nn.Sequential(ResidualBlock(2 * w, w), ResidualBlock(2 * w, w))
        self.at8 = nn.Sequential(
            conv(2 * w, 4 * w, 2, 2), *(ResidualBlock(4 * w, 3 * w // 2) for _ in range(3))
        )
        self.across = conv(2 * w, joint, 1)
        self.down_to = conv(4 * w, joint, 1)
        self.mix = ResidualBlock(joint, w)
        self.mask = nn.Conv2d(joint, 16, 1)  # pixel-shuffled to 64x64
        self.heat = nn.Conv2d(joint, 4 * len(vocabulary.points), 1)  # pixel-shuffled to 32x32
        pooled = 3 + w + joint + 4 * w
        self.read_subject = nn.Sequential(nn.Linear(2 * pooled, 3 * w), nn.SiLU())
        self.read_scene = nn.Sequential(nn.Linear(2 * pooled, 2 * w), nn.SiLU())
        self.seen = nn.Linear(3 * w, len(vocabulary.points))
        self.identity = nn.Sequential(
            nn.Linear(2 * pooled, 4 * w, bias=False),
            nn.BatchNorm1d(4 * w),
            nn.ReLU(),
            nn.Linear(4 * w, identity, bias=False),
            nn.BatchNorm1d(identity, affine=False),  # centred, so that strangers score about 0
        )
        self.heads = nn.ModuleDict(
            {
                head: nn.Linear(2 * w if head in SCENE_HEADS else 3 * w, len(words))
                for head, words in vocabulary.words.items()
            }
        )

    def forward(
        self, x: Float[Tensor, "b 3 128 128"], where: Float[Tensor, "b 1 16 16"] | None = None
    ) -> dict[str, Tensor]:
        """Raw outputs; see `PictureNetwork.forward`."""
        at32, at16, at8 = self.levels(x, where)
        joint = self.mix(self.across(at16) + F.interpolate(self.down_to(at8), scale_factor=2.0))
        mask = F.pixel_shuffle(self.mask(joint), 4)  # b 1 64 64
        colours = F.avg_pool2d(x, 4).to(
            at32.dtype
        )  # b 3 32 32: a colour should not need a deep look
        both = torch.cat([pool(f, mask) for f in (colours, at32, joint, at8)], dim=1)
        read = self.read_subject(both)
        scene = self.read_scene(both)
        out = {
            head: layer(scene if head in SCENE_HEADS else read)
            for head, layer in self.heads.items()
        }
        out["mask"] = mask[:, 0]
        out["heat"] = F.pixel_shuffle(self.heat(joint), 2)
        out["seen"] = self.seen(read)
        out["identity"] = F.normalize(self.identity(both).float(), dim=1)
        return out


def hint(masks: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 16 16"]:
    """A mask blurred to where its subject is, so that no outline is given away; at most 1."""
    blurred = F.interpolate(F.adaptive_avg_pool2d(masks, 8), size=(16, 16), mode="bilinear")
    return blurred / blurred.amax(dim=(2, 3), keepdim=True).clamp(min=1e-3)


class Recogniser(nn.Module):
    """The network with its door: pictures of any size in [-1, 1] in, a `Recognition` out."""

    network: PictureNetwork

    def __init__(self, network: PictureNetwork, name: str = "built-in recogniser") -> None:
        """name: what the conditions of a result call it."""
        super().__init__()
        self.network, self.name = network.eval(), name

    @property
    def vocabulary(self) -> Vocabulary:
        return self.network.vocabulary

    @torch.no_grad()
    def recognise(
        self,
        pictures: Float[Tensor, "b 3 h w"],
        subject: Float[Tensor, "b 1 h w"] | None = None,
        *,
        batch: int = 64,
    ) -> Recognition:
        """Look at b pictures, RGB in [-1, 1]; `batch` bounds memory and changes no result.

        subject: a rough mask of the one to look at, where a picture shows several.
        """
        size = pictures.shape[-2:]
        chunks = pictures.split(batch)
        hints = [None] * len(chunks) if subject is None else hint(subject).split(batch)
        outs = [self.network(self.prepare(c), h) for c, h in zip(chunks, hints, strict=True)]
        out = {name: torch.cat([one[name] for one in outs]) for name in outs[0]}
        scale = torch.tensor([size[1] / SIZE, size[0] / SIZE], device=pictures.device)
        mask = F.interpolate(out["mask"][:, None], size=size, mode="bilinear", antialias=True)
        return Recognition(
            vocabulary=self.vocabulary,
            probabilities={head: out[head].softmax(dim=1) for head in self.vocabulary.words},
            identity=out["identity"],
            points=peaks(out["heat"]) * scale,
            visible=out["seen"].sigmoid(),
            mask=mask.sigmoid(),
        )

    def identity(
        self, pictures: Float[Tensor, "b 3 h w"], subject: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Unit vectors; their cosine is the identity score (the part DINO plays elsewhere)."""
        return self.recognise(pictures, subject).identity

    def prepare(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 128 128"]:
        parameter = next(self.network.parameters())
        pictures = pictures.to(parameter)
        if pictures.shape[-2:] == (SIZE, SIZE):
            return pictures
        return F.interpolate(pictures, size=(SIZE, SIZE), mode="bilinear", antialias=True)


def peaks(heat: Float[Tensor, "b k h w"], reach: int = 2) -> Float[Tensor, "b k 2"]:
    """Sub-cell maximum of each heat map, (x, y) in pixels of the 128-pixel picture.

    The mean position under the soft-max, within `reach` cells of its maximum: a second, lower
    hill elsewhere then pulls nothing (a global soft-argmax ends between the two).
    """
    b, k, h, w = heat.shape
    x, y = torch.arange(w, device=heat.device), torch.arange(h, device=heat.device)
    best = heat.flatten(2).argmax(dim=2)  # b k
    near_x = (x - (best % w)[..., None]).abs() <= reach  # b k w
    near_y = (y - (best // w)[..., None]).abs() <= reach  # b k h
    near = near_y[..., :, None] & near_x[..., None, :]  # b k h w
    p = heat.float().masked_fill(~near, -torch.inf).flatten(2).softmax(dim=2).view(b, k, h, w)
    at = torch.stack([(p.sum(dim=2) * x).sum(dim=2), (p.sum(dim=3) * y).sum(dim=2)], dim=2)
    return (at + 0.5) * (SIZE / w)


def load(folder: Path = BUILT_IN, *, device: torch.device | str = "cpu") -> Recogniser:
    """The built-in recogniser, or one trained by `training/build_toybox_recogniser.py`.

    Raises ModelError when the folder lacks recogniser.json or recogniser.safetensors, or when the
    two do not fit together.
    """
    network = load_network(
        folder,
        "recogniser",
        lambda config: RecogniserNetwork(
            Vocabulary.from_json(config["vocabulary"]),
            width=config["width"],
            identity=config["identity"],
        ),
        what="recogniser",
        script="build_toybox_recogniser.py",
    )
    return Recogniser(network).to(device)
