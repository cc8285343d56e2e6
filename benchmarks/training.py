"""Training steps of tiny models, ours and as common scripts write them; all methods of `learn`.

For counting what a step launches and waits for: the numbers depend on the layout of a model, not on
its widths.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.learn.batches import Batches, Prior
from understudy.learn.dreambooth import whole_model
from understudy.learn.latent_cache import LatentCache, encode_photos
from understudy.learn.lora import low_rank
from understudy.learn.optimiser import adamw
from understudy.learn.textual_inversion import new_words
from understudy.learn.trainable import Trainable
from understudy.learn.training import Trainer, TrainOptions
from understudy.models.word_tables import word_tables

# The tests' modules find each other by name.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
from tiny import tiny_model  # noqa: E402
from tiny_flow import tiny_flow  # noqa: E402

PROMPTS = ("a photo of a sks cat", "a photo of a cat")
METHODS = ("DreamBooth", "LoRA", "Textual Inversion", "LoRA of a flow model")
RATE, DECAY = 1e-4, 1e-2


@dataclass(frozen=True)
class Task:
    """A method, on a tiny model of the family that it is for."""

    method: str

    @property
    def flow(self) -> bool:
        return self.method == "LoRA of a flow model"

    @property
    def prompts(self) -> tuple[str, ...]:
        """Textual Inversion knows no class pictures."""
        return PROMPTS[:1] if self.method == "Textual Inversion" else PROMPTS

    def model(self) -> Any:
        return tiny_flow("sd35") if self.flow else tiny_model("sd15")

    def networks(self, model: Any) -> list[nn.Module]:
        """Everything with weights."""
        if self.flow:
            return list(model.networks.values())
        return [model.unet, model.vae, model.text_encoder]

    def trainable(self, model: Any) -> AbstractContextManager[Trainable]:
        if self.method == "DreamBooth":
            return whole_model(model, train_text=False)
        if self.method == "Textual Inversion":
            return new_words(model, [("sks", "cat")])
        targets = ("to_q", "to_k", "to_v", "to_out.0")
        return low_rank(model, rank=4, alpha=4.0, targets=targets, train_text=False, seed=0)


def photos() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@contextmanager
def our_step(task: Task, model: Any, **options: Any) -> Generator[Callable[[], Any]]:
    """The package's loop: latents and, where it stands still, text are encoded once."""
    pictures = photos()
    latents, prior = encode_photos(model, pictures[:1]), None
    if len(task.prompts) == 2:
        prior = Prior(task.prompts[1:], LatentCache(encode_photos(model, pictures[1:]).mean))
    batches = Batches(latents, (task.prompts[:1],), prior, 1, model.schedule)
    how = TrainOptions(learning_rate=RATE, weight_decay=DECAY, **options)
    with task.trainable(model) as trainable:
        draws = torch.Generator().manual_seed(0)
        yield Trainer(model, trainable, batches, how, draws).step


@contextmanager
def plain_step(task: Task, model: Any) -> Generator[Callable[[], Any]]:
    """As common scripts run it: pictures and prompts pass their encoders in every step.

    The optimiser is the same fused AdamW. In Textual Inversion it holds the whole table of words,
    and all rows but the new ones are put back after the step, as published scripts do.
    """
    if task.method == "Textual Inversion":
        yield _plain_words(task, model)
        return
    with task.trainable(model) as trainable:
        yield _plain(task, model, trainable.parameters)


def _plain(task: Task, model: Any, parameters: Any) -> Callable[[], None]:
    optimiser = adamw(parameters, learning_rate=RATE, weight_decay=DECAY)
    pictures = photos()[: len(task.prompts)]

    def step() -> None:
        with torch.no_grad():
            mean, std = model.posterior(pictures.to(model.device))
            clean = mean + std * torch.randn_like(mean)
            text = model.embed(task.prompts)
        _losses(model, clean, text).backward()
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _plain_words(task: Task, model: Any) -> Callable[[], None]:
    (table,) = (found.table for found in word_tables(model).values())
    table.weight.requires_grad_(True)
    weights = {"table": cast(nn.Parameter, table.weight)}
    optimiser = adamw(weights, learning_rate=RATE, weight_decay=DECAY)
    before = table.weight.detach().clone()
    others = torch.ones(len(before), dtype=torch.bool)
    others[model.tokenize("sks").ids[1]] = False
    pictures = photos()[:1]

    def step() -> None:
        with torch.no_grad():
            mean, std = model.posterior(pictures.to(model.device))
            clean = mean + std * torch.randn_like(mean)
        _losses(model, clean, model.embed(task.prompts)).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            table.weight[others] = before[others]

    return step


def _losses(model: Any, clean: Tensor, text: Any) -> Tensor:
    """The mean error of each row, added up: photos and class pictures count alike."""
    noise, draws = torch.randn_like(clean), torch.Generator().manual_seed(0)
    cells = int(clean.shape[-2] * clean.shape[-1])
    times = model.schedule.draw_times(len(clean), draws, cells).to(clean.device)
    answer = model.predict(model.schedule.noised(clean, noise, times), times, text)
    target = model.schedule.target(clean, noise, times)
    rows = zip(answer.float().split(1), target.float().split(1), strict=True)
    return torch.stack([F.mse_loss(a, b) for a, b in rows]).sum()
