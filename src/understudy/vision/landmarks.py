"""The landmark finder of toy faces: where the nose, the lids, the ears' tips are in a picture.

It stands where dlib's 68-point model stands for photographs of people. Points bear the names of
`toybox.FACE_POINTS`, which travel with the weights; it was trained on the world's own key points,
by `training/build_toybox_gan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.files.atomic import write_json
from understudy.files.tensors import save_tensors
from understudy.vision.built_in import load_network
from understudy.vision.layers import ResidualBlock, conv
from understudy.vision.recogniser import SIZE, peaks

BUILT_IN = Path(__file__).parent.parent / "weights" / "toybox-gan"
MANIFEST, WEIGHTS = "landmarks.json", "landmarks.safetensors"


class FinderNetwork(nn.Module):
    """Residual trunk 128 -> 32 -> 16 -> 8 and back up to 32; a heat map a point."""

    def __init__(self, points: tuple[str, ...], *, width: int = 48) -> None:
        super().__init__()
        w = width
        self.points, self.width = points, width
        self.at32 = nn.Sequential(conv(3, w, 8, 4), ResidualBlock(w, w // 2))
        self.at16 = nn.Sequential(
            conv(w, 2 * w, 2, 2), ResidualBlock(2 * w, w), ResidualBlock(2 * w, w)
        )
        self.at8 = nn.Sequential(
            conv(2 * w, 4 * w, 2, 2), *(ResidualBlock(4 * w, w) for _ in range(3))
        )
        self.back16 = conv(4 * w, 2 * w, 1)
        self.mix16 = ResidualBlock(2 * w, w)
        self.back32 = conv(2 * w, w, 1)
        self.mix32 = ResidualBlock(w, w // 2)
        self.heat = nn.Conv2d(w, len(points), 1)
        self.seen = nn.Linear(4 * w, len(points))

    def forward(
        self, x: Float[Tensor, "b 3 128 128"]
    ) -> tuple[Float[Tensor, "b k 32 32"], Float[Tensor, "b k"]]:
        """Heat maps, as logits over places, and logits of being seen."""
        at32 = self.at32(x)
        at16 = self.at16(at32)
        at8 = self.at8(at16)
        at16 = self.mix16(at16 + F.interpolate(self.back16(at8), scale_factor=2.0))
        at32 = self.mix32(at32 + F.interpolate(self.back32(at16), scale_factor=2.0))
        return self.heat(at32), self.seen(at8.mean(dim=(2, 3)))


@dataclass(frozen=True)
class Landmarks:
    """Points of b pictures, (x, y) in their pixels (centres at +0.5), and chances to be seen."""

    names: tuple[str, ...]
    points: Float[Tensor, "b k 2"]
    visible: Float[Tensor, "b k"]


class LandmarkFinder(nn.Module):
    """The network with its door: pictures of any size in [-1, 1] in, `Landmarks` out."""

    def __init__(self, network: FinderNetwork) -> None:
        super().__init__()
        self.network = network.eval()

    @torch.no_grad()
    def find(self, pictures: Float[Tensor, "b 3 h w"], *, batch: int = 64) -> Landmarks:
        """Look at b pictures, RGB in [-1, 1]; `batch` bounds memory and changes no result."""
        height, width = pictures.shape[-2:]
        heats, seen = list[Tensor](), list[Tensor]()
        for part in pictures.to(self.network.heat.weight).split(batch):
            if part.shape[-2:] != (SIZE, SIZE):
                part = F.interpolate(part, size=(SIZE, SIZE), mode="bilinear", antialias=True)
            heat, visible = self.network(part)
            heats.append(heat)
            seen.append(visible)
        scale = torch.tensor([width / SIZE, height / SIZE], device=heats[0].device)
        found = peaks(torch.cat(heats)) * scale
        return Landmarks(self.network.points, found, torch.cat(seen).float().sigmoid())


def finder_loss(
    network: FinderNetwork, pictures: Float[Tensor, "b 3 128 128"], points: Float[Tensor, "b k 3"]
) -> Float[Tensor, ""]:
    """Cross-entropy of heat maps and of visibility; points: x, y, visible."""
    heat, seen = network(pictures)
    placed, visible = point_losses(heat, seen, points)
    return placed + visible


def landmark_errors(
    finder: LandmarkFinder,
    pictures: Float[Tensor, "b 3 128 128"],
    points: Float[Tensor, "b k 3"],
) -> Float[Tensor, " n"]:
    """Distances in pixels of all points that can be seen."""
    found = finder.find(pictures)
    return (found.points.cpu() - points[..., :2]).norm(dim=2)[points[..., 2] > 0.5]


def save_finder(network: FinderNetwork, folder: Path, record: dict[str, float]) -> None:
    """Half-precision weights and what they mean, ready for `load`."""
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    said = {"points": network.points, "width": network.width, "held_out": record}
    save_tensors(folder / WEIGHTS, state)
    write_json(folder / MANIFEST, said)


def load(folder: Path = BUILT_IN, *, device: torch.device | str = "cpu") -> LandmarkFinder:
    """The built-in finder, or one trained by the build script.

    Raises ModelError when a file is missing or the two do not fit together.
    """
    network = load_network(
        folder,
        "landmarks",
        lambda config: FinderNetwork(tuple(config["points"]), width=config["width"]),
        what="landmark finder",
        script="build_toybox_gan.py finder",
    )
    return LandmarkFinder(network).to(device)


def point_losses(
    heat: Float[Tensor, "b k h w"], seen: Float[Tensor, "b k"], points: Float[Tensor, "b k 3"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross-entropy of each heat map to its point, split over the four nearest cells, and of
    `seen` to visibility. Points that the class lacks or the frame cuts have no place to learn."""
    side = heat.shape[-1]
    at = points[..., :2] * (side / SIZE) - 0.5  # b k 2, in cells
    there = (at.nan_to_num(-9) >= 0).all(dim=2) & (at.nan_to_num(-9) <= side - 1).all(dim=2)
    visible = (points[..., 2].nan_to_num(0) > 0.5) & there
    at = at[there]  # m 2
    log_p = heat.float().flatten(2).log_softmax(dim=2)[there]  # m hw
    low = at.floor().clamp(max=side - 2).long()
    part = at - low
    total = torch.zeros(len(at), device=at.device)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x_part = part[:, 0] if dx else 1 - part[:, 0]
        y_part = part[:, 1] if dy else 1 - part[:, 1]
        cell = (low[:, 1] + dy) * side + low[:, 0] + dx
        total = total - x_part * y_part * log_p.gather(1, cell[:, None])[:, 0]
    weight = torch.where(visible[there], 1.0, 0.25)  # a hidden point is a guess
    placed = (total * weight).sum() / weight.sum().clamp(min=1)
    return placed, F.binary_cross_entropy_with_logits(seen.float(), visible.float())
