"""A training run: networks with their running average, a step, checkpoints, a schedule.

A run is stopped by time or by steps. What a step draws depends on its number alone, so that a run
that was killed and goes on from its checkpoint redoes the lost steps.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.files.atomic import replacing

SAVE_EVERY = 300.0  # seconds
SAY_EVERY = 20.0  # seconds


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Learner:
    """Networks in training and the average of their weights.

    size: root mean square of the latents, by which they are divided. memory: decay of the average,
    smaller in the first steps. clip: largest norm of the gradients. spent: seconds of training,
    all runs together.
    """

    model: torch.nn.Module
    optimizer: Any
    size: float = 1.0
    memory: float = 0.999
    clip: float = 1.0
    step: int = 0
    spent: float = 0.0
    ema: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        if not self.ema:
            self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write a checkpoint: temporary name, then rename."""
        state = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "ema": self.ema, "step": self.step, "size": self.size, "spent": self.spent,
        }  # fmt: skip
        with replacing(path) as staged:
            torch.save(state, staged)

    def load(self, path: Path, device: str) -> bool:
        """Go on from a checkpoint, if there is one; whether there was."""
        if not path.exists():
            return False
        state = torch.load(path, map_location=device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema, self.step, self.size = state["ema"], state["step"], state["size"]
        self.spent = state["spent"]
        return True

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average a little towards the weights."""
        keep = min(self.memory, (1 + self.step) / (10 + self.step))
        live = {k: v for k, v in self.model.state_dict().items() if v.is_floating_point()}
        torch._foreach_lerp_([self.ema[k] for k in live], list(live.values()), 1 - keep)

    def take(self, losses: Iterable[Tensor], rate: float) -> Tensor:
        """One step at the learning rate `rate`: the losses of the batch's parts are added up, and
        each part's graph is freed before the next is computed. Returns their sum.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        total: Tensor | None = None
        for loss in losses:
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        learning = [value for value in self.model.parameters() if value.requires_grad]
        torch.nn.utils.clip_grad_norm_(learning, self.clip)
        self.optimizer.step()
        self.step += 1
        self.follow()
        if total is None:
            raise ValueError("a step needs at least one loss")
        return total


def by_time(learner: Learner, seconds: float) -> Iterator[float]:
    """Share of `seconds` of training that has passed, all runs together, until it has."""
    last = time.monotonic()
    while seconds > 0 and (share := learner.spent / seconds) < 1:
        yield share
        now = time.monotonic()
        learner.spent, last = learner.spent + now - last, now


def by_steps(learner: Learner, steps: int) -> Iterator[float]:
    """Share of `steps` that is done, until all are."""
    while learner.step < steps:
        yield learner.step / steps


def generator_of(step: int, device: str, seed: int = 0) -> torch.Generator:
    """The random numbers of one step, on the device that uses them."""
    return torch.Generator(device).manual_seed((seed << 40) + step)


def cosine(share: float, step: int, *, warm: int, floor: float) -> float:
    """Factor of the learning rate: linear over `warm` steps, then cosine down to `floor`."""
    return min(1.0, (step + 1) / warm) * max(floor, 0.5 * (1 + math.cos(math.pi * share)))


def fit(
    learner: Learner,
    losses_of: Callable[[], Iterable[Tensor]],
    rate_at: Callable[[float], float],
    shares: Iterator[float],
    path: Path,
    *,
    batch: int,
) -> None:
    """Train until `shares` ends, the rate given by the share that is done.

    A line goes to the .jsonl file beside the checkpoint `path` every SAY_EVERY seconds, and a
    checkpoint to `path` every SAVE_EVERY seconds and at the end. Raises SystemExit for a loss that
    is not a number; the last checkpoint stays.
    """
    said = saved = time.monotonic()
    total, count = torch.zeros(()), 0

    def say(share: float) -> None:
        nonlocal said, total, count
        if not count:
            return
        now, mean = time.monotonic(), float(total) / count
        if not math.isfinite(mean):
            raise SystemExit(f"{path.stem}: the loss of step {learner.step} is not a number.")
        line = {"step": learner.step, "loss": round(mean, 5), "share": round(share, 4),
                "samples_per_second": round(count * batch / max(now - said, 1e-9), 1)}  # fmt: skip
        with path.with_suffix(".jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(path.stem, line, flush=True)
        said, total, count = now, torch.zeros(()), 0

    share = 0.0
    for share in shares:
        loss = learner.take(losses_of(), rate_at(share))
        total, count = total.to(loss.device) + loss, count + 1
        now = time.monotonic()
        if now - said > SAY_EVERY:
            say(share)
        if now - saved > SAVE_EVERY:
            learner.save(path)
            saved = now
    say(share)
    learner.save(path)
