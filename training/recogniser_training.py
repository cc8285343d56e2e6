"""How the recogniser learns: labelled renders in, weights out.

Identities are told apart by a supervised contrastive loss (Khosla et al. 2020, eq. 2) over the
batch and a memory of past batches (Wang et al. 2020, "Cross-Batch Memory"), and by having to give
the toy's proportions and exact colours back.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training.recogniser_examples import TRAITS, Batch, Examples, augment, order, vocabulary
from understudy.models.precision import half_precision
from understudy.vision.landmarks import point_losses
from understudy.vision.recogniser import (
    HEADS,
    SIZE,
    PictureNetwork,
    RecogniserNetwork,
    Vocabulary,
    peaks,
)

WEIGHTS = {
    "mask": 2.0,
    "heat": 0.6,
    "identity": 0.5,
    "traits": 0.7,
}  # of the losses; the others count 1
MEMORY = 2048  # embeddings of past batches that serve as negatives
LIKE = math.log(4.0)  # a negative of the anchor's own class counts as four


class Memory:
    """The newest embeddings with their labels (group, then what makes toys alike), a ring."""

    def __init__(self, width: int, labels: int = 2, device: torch.device | str = "cpu") -> None:
        self.z = torch.zeros(0, width, device=device)
        self.labels = torch.zeros(0, labels, dtype=torch.long, device=device)

    def add(self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b marks"]) -> None:
        self.z = torch.cat([self.z, z.detach()])[-MEMORY:]
        self.labels = torch.cat([self.labels, labels])[-MEMORY:]


def contrast(
    z: Float[Tensor, "b d"],
    labels: Int[Tensor, "b marks"],
    memory: Memory,
    temperature: float = 0.12,
    alike: Sequence[float] = (LIKE,),
) -> Float[Tensor, ""]:
    """Supervised contrastive loss. Anchors without a second view are left out.

    labels: the group, then one column for each way to be alike (the class, the colours and
    pattern). alike: what each of these adds to the logit of a negative that shares it with the
    anchor; ln(4) counts the negative as four.
    """
    b = len(z)
    against = torch.cat([z, memory.z])
    marks = torch.cat([labels, memory.labels])
    same = marks[:, 0] == labels[:, :1]  # b m
    logits = z @ against.T / temperature
    for column, weight in enumerate(alike, start=1):
        logits = logits + weight * ((marks[:, column] == labels[:, column, None]) & ~same)
    itself = torch.eye(b, len(against), dtype=torch.bool, device=z.device)
    logits = logits.masked_fill(itself, -torch.inf)
    positive = same & ~itself
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    views = positive.sum(dim=1)
    total = log_p.masked_fill(~positive, 0).sum(dim=1)[views > 0] / views[views > 0]
    return -total.mean() if len(total) else z.sum() * 0


def marks_of(batch: Batch, columns: int) -> Int[Tensor, "b marks"]:
    """The group, the class, and (with three columns) one number for both colours and pattern."""
    primary, secondary, pattern = (
        batch.labels[:, HEADS.index(head)] for head in ("primary", "secondary", "pattern")
    )
    look = (primary * 100 + secondary) * 100 + pattern
    return torch.stack([batch.groups, batch.labels[:, HEADS.index("class")], look], 1)[:, :columns]


def losses(
    out: dict[str, Tensor],
    batch: Batch,
    memory: Memory,
    recall: nn.Module,
    alike: Sequence[float] = (LIKE,),
) -> dict[str, Float[Tensor, ""]]:
    """One number a head, unweighted."""
    result = {
        head: F.cross_entropy(out[head].float(), batch.labels[:, i]) for i, head in enumerate(HEADS)
    }
    mask = F.interpolate(batch.masks, size=out["mask"].shape[-2:], mode="area")[:, 0]
    result["mask"] = F.binary_cross_entropy_with_logits(out["mask"].float(), mask)
    result["heat"], result["seen"] = point_losses(out["heat"], out["seen"], batch.points)
    marks = marks_of(batch, 1 + len(alike))
    result["identity"] = contrast(out["identity"], marks, memory, alike=alike)
    result["traits"] = F.mse_loss(recall(out["identity"]).float(), batch.traits)
    memory.add(out["identity"], marks)
    return result


def save_weights(network: PictureNetwork, folder: Path, record: dict[str, object]) -> None:
    """Half-precision weights and what they mean, ready for `recogniser.load`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(state, folder / "recogniser.safetensors")
    described = {**record, "vocabulary": network.vocabulary.to_json()}
    (folder / "recogniser.json").write_text(json.dumps(described, indent=1) + "\n")


@dataclass(frozen=True)
class TrainStep:
    """One optimiser step done: its number from 1, how many there will be, the losses."""

    index: int
    total: int
    losses: Mapping[str, float]


class Trainer:
    """Everything that changes while the recogniser learns; `save` and `load` resume exactly."""

    def __init__(
        self,
        *,
        seed: int = 0,
        rate: float = 2e-3,
        averaging: float = 0.996,
        build: Callable[[Vocabulary], PictureNetwork] = RecogniserNetwork,
        alike: Sequence[float] = (LIKE,),
        device: torch.device | str = "cpu",
    ) -> None:
        """build: makes the network of a vocabulary, with an identity of 64 numbers; alike: see
        `contrast`."""
        torch.manual_seed(seed)
        self.seed, self.rate, self.averaging, self.index = seed, rate, averaging, 0
        self.device, self.alike, self.seconds = torch.device(device), alike, 0.0
        self.network = build(vocabulary()).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.recall = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, TRAITS))
        self.recall.to(self.device)
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.memory = Memory(64, 1 + len(alike), self.device)
        weights = [*self.network.parameters(), *self.recall.parameters()]
        self.optimiser = torch.optim.AdamW(
            [{"params": [w for w in weights if w.ndim > 1], "weight_decay": 0.02},
             {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0}],
            lr=rate, betas=(0.9, 0.99), fused=True,
        )  # fmt: skip

    def step(self, batch: Batch, rate: float) -> dict[str, float]:
        """One AdamW step, in bfloat16 autocast if the device has it, then the moving average."""
        self.network.train()
        batch = batch.to(self.device)
        pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
        half = half_precision(self.device) is not None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            out = self.network(pictures, batch.hints())
        parts = losses(out, batch, self.memory, self.recall, self.alike)
        total = torch.stack([WEIGHTS.get(name, 1.0) * part for name, part in parts.items()]).sum()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 4.0)
        self.optimiser.step()
        self.index += 1
        self.average()
        return {name: float(part.detach()) for name, part in parts.items()}

    @torch.no_grad()
    def average(self) -> None:
        decay = min(self.averaging, self.index / (self.index + 10))
        new = self.network.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[name].float(), 1 - decay)

    def save(self, path: Path) -> None:
        parts = ("network", "recall", "averaged", "optimiser")
        state = {part: getattr(self, part).state_dict() for part in parts}
        state |= {"index": self.index, "seconds": self.seconds}
        state |= {"z": self.memory.z, "labels": self.memory.labels}
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True, map_location=self.device)
        for part in ("network", "recall", "averaged", "optimiser"):
            getattr(self, part).load_state_dict(state[part])
        self.index, self.memory.z, self.memory.labels = state["index"], state["z"], state["labels"]
        self.seconds = state.get("seconds", 0.0)


def train_steps(
    trainer: Trainer, examples: Examples, *, epochs: int, batch: int = 32
) -> Iterator[TrainStep]:
    """Learn, from wherever the trainer stands; warm-up, then a cosine down to nothing.

    Batches and their variations depend on the seed and the step alone, so a resumed run sees
    what an unbroken one would have seen.
    """
    each = len(examples) // batch
    total = epochs * each
    while trainer.index < total:
        epoch, done = divmod(trainer.index, each)
        shuffle = torch.Generator().manual_seed(trainer.seed * 1000 + epoch)
        for rows in list(order(examples.groups, shuffle, batch))[done:]:
            vary = torch.Generator().manual_seed(trainer.seed * 1_000_000 + trainer.index)
            progress = trainer.index / total
            rate = trainer.rate * min(1.0, (trainer.index + 1) / 100)
            rate *= 0.5 * (1 + math.cos(math.pi * progress))
            parts = trainer.step(augment(examples.take(rows), vary), rate)
            yield TrainStep(trainer.index, total, parts)


@torch.no_grad()
def accuracy(network: PictureNetwork, examples: Examples, batch: int = 64) -> dict[str, float]:
    """Shares of right words, mask overlap, key-point error in pixels, and how well the identity
    embedding tells a new view of one toy from another toy of its class (area under the ROC)."""
    network.eval()
    hits, overlap, errors, seen, z = [], [], [], [], []
    for rows in torch.arange(len(examples)).split(batch):
        true = examples.take(rows)
        out = network(true.pictures, true.hints())
        hits.append(torch.stack([out[h].argmax(1) for h in HEADS], dim=1) == true.labels)
        guess = F.interpolate(out["mask"][:, None], size=(SIZE, SIZE), mode="bilinear") > 0
        right = true.masks > 0.5
        overlap.append((guess & right).sum((1, 2, 3)) / (guess | right).sum((1, 2, 3)).clamp(min=1))
        visible = true.points[..., 2].nan_to_num(0) > 0.5
        errors.append((peaks(out["heat"]) - true.points[..., :2]).norm(dim=2)[visible])
        seen.append((out["seen"] > 0) == visible)
        z.append(out["identity"])
    table = torch.cat(hits).float().mean(dim=0)
    kinds = examples.labels[:, HEADS.index("class")]
    alike, unlike = identity_pairs(torch.cat(z), examples.groups, kinds)
    return {head: float(table[i]) for i, head in enumerate(HEADS)} | {
        "mask overlap": float(torch.cat(overlap).mean()),
        "point error": float(torch.cat(errors).mean()),
        "point seen": float(torch.cat(seen).float().mean()),
        "identity same": float(alike.mean()),
        "identity other": float(unlike.mean()),
        "identity told apart": float((alike[:, None] > unlike[None]).float().mean()),
    }


def identity_pairs(
    z: Float[Tensor, "n d"], groups: Int[Tensor, " n"], kinds: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, " q"]]:
    """Scores of pairs that show one toy, and of pairs of two toys of one class."""
    score = z @ z.T
    upper = torch.ones_like(score, dtype=torch.bool).triu(1)
    same = groups[:, None] == groups[None]
    like = kinds[:, None] == kinds[None]
    return score[upper & same], score[upper & like & ~same]
