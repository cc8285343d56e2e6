"""The examiner: the network that scores evaluations, and does nothing else.

It reads what the recogniser reads (`vision/recogniser.py`), independently: another architecture,
other training pictures, another seed. The recogniser chooses among candidates of a swap and judges
previews, and a network that chooses must not score its choice. No module that learns, swaps, edits
or generates imports this one; `tests/test_examiner.py` follows the imports.

`training/build_toybox_examiner.py` trains it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.vision import recogniser
from understudy.vision.built_in import load_network
from understudy.vision.layers import ResidualBlock, conv, pool
from understudy.vision.recogniser import SCENE_HEADS, PictureNetwork, Recogniser, Vocabulary

BUILT_IN = Path(__file__).parent.parent / "weights" / "examiner"
MANIFEST, WEIGHTS = "examiner.json", "examiner.safetensors"
NAME = "built-in examiner"


class ExaminerNetwork(PictureNetwork):
    """Residual trunk 128 -> 64 -> 32 -> 16 -> 8 with top-down features at 16 and 32.

    Differs from the recogniser's network: two stem convolutions of stride 2 instead of one of
    stride 4, features carried back up to 32 x 32, and beside the masked means `queries` learnt
    attention maps within the subject (Lin et al. 2017, "A Structured Self-attentive Sentence
    Embedding"), so that small parts such as glasses are not averaged with the whole toy.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, width: int = 64, identity: int = 64, queries: int = 8
    ) -> None:
        super().__init__()
        w = width
        self.vocabulary = vocabulary
        self.stem = nn.Sequential(conv(3, w // 2, 4, 2), conv(w // 2, w, 3, 2))
        self.at32 = ResidualBlock(w, w // 2)
        self.where = nn.Conv2d(1, 2 * w, 3, padding=1, bias=False)
        self.to16 = conv(w, 2 * w, 2, 2)
        self.at16 = nn.Sequential(*(ResidualBlock(2 * w, w) for _ in range(2)))
        self.at8 = nn.Sequential(
            conv(2 * w, 4 * w, 2, 2), *(ResidualBlock(4 * w, 3 * w // 2) for _ in range(3))
        )
        self.across16, self.down16 = conv(2 * w, 2 * w, 1), conv(4 * w, 2 * w, 1)
        self.mix16 = ResidualBlock(2 * w, w)
        self.across32, self.down32 = conv(w, w, 1), conv(2 * w, w, 1)
        self.mask = nn.Conv2d(w, 4, 1)  # pixel-shuffled to 64 x 64
        self.heat = nn.Conv2d(w, len(vocabulary.points), 1)
        self.queries = nn.Conv2d(2 * w, queries, 1)
        pooled = 2 * (3 + w + 2 * w + 4 * w) + queries * 2 * w
        self.read_subject = nn.Sequential(nn.Linear(pooled, 4 * w), nn.SiLU())
        self.read_scene = nn.Sequential(nn.Linear(pooled, w), nn.SiLU())
        self.seen = nn.Linear(4 * w, len(vocabulary.points))
        self.identity = nn.Sequential(
            nn.Linear(pooled, 4 * w, bias=False),
            nn.BatchNorm1d(4 * w),
            nn.ReLU(),
            nn.Linear(4 * w, identity, bias=False),
            nn.BatchNorm1d(identity, affine=False),  # centred: two random toys score about 0
        )
        self.heads = nn.ModuleDict(
            {
                head: nn.Linear(w if head in SCENE_HEADS else 4 * w, len(words))
                for head, words in vocabulary.words.items()
            }
        )

    def forward(
        self, x: Float[Tensor, "b 3 h w"], where: Float[Tensor, "b 1 c d"] | None = None
    ) -> dict[str, Tensor]:
        """Raw outputs, see `PictureNetwork.forward`."""
        at32, at16, at8 = self.levels(x, where)
        coarse = self.mix16(self.across16(at16) + F.interpolate(self.down16(at8), scale_factor=2.0))
        up = F.interpolate(self.down32(coarse), scale_factor=2.0)
        fine = self.across32(at32) + up
        mask = F.pixel_shuffle(self.mask(fine), 2)  # b 1 64 64
        colours = F.avg_pool2d(x, 4).to(fine.dtype)
        means = [pool(f, mask) for f in (colours, fine, coarse, at8)]
        both = torch.cat([*means, attended(coarse, self.queries(coarse), mask)], dim=1)
        read, scene = self.read_subject(both), self.read_scene(both)
        out = {
            head: layer(scene if head in SCENE_HEADS else read)
            for head, layer in self.heads.items()
        }
        out["mask"] = mask[:, 0]
        out["heat"] = self.heat(fine)
        out["seen"] = self.seen(read)
        out["identity"] = F.normalize(self.identity(both).float(), dim=1)
        return out


def attended(
    features: Float[Tensor, "b c h w"],
    scores: Float[Tensor, "b q h w"],
    mask: Float[Tensor, "b 1 s s"],
) -> Float[Tensor, "b qc"]:
    """Features averaged under each of q attention maps: softmax(scores) over the places, times
    the mask (logits; no gradient goes through it), which a place outside keeps 2 % of."""
    size = (features.shape[2], features.shape[3])
    inside = F.adaptive_avg_pool2d(mask.detach().float().sigmoid(), size)
    logits = scores.float() + (inside + 0.02).log()
    weights = logits.flatten(2).softmax(dim=2).to(features.dtype)  # b q hw
    return (weights @ features.flatten(2).transpose(1, 2)).flatten(1)


def load(folder: Path = BUILT_IN, *, device: torch.device | str = "cpu") -> Recogniser:
    """The built-in examiner, or one trained by `training/build_toybox_examiner.py`.

    Raises ModelError when a file is missing or the two do not fit together.
    """
    network = load_network(
        folder,
        "examiner",
        lambda config: ExaminerNetwork(
            Vocabulary.from_json(config["vocabulary"]),
            width=config["width"],
            identity=config["identity"],
            queries=config["queries"],
        ),
        what="examiner",
        script="build_toybox_examiner.py",
    )
    return Recogniser(network, NAME).to(device)


def load_scorer(folder: Path = BUILT_IN, *, device: torch.device | str = "cpu") -> Recogniser:
    """The network that scores evaluations: the examiner, where this package has its weights.

    Without them it is the recogniser, which then scores what it may have chosen. Its `name` says
    which of the two it is and stands among the conditions of every result. Raises ModelError for
    weights that cannot be read.
    """
    return load(folder, device=device) if folder.exists() else recogniser.load(device=device)
