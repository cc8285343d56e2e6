"""Previews during training: pictures of fixed seeds, a fixed-time validation loss, scores,
warnings.

Every preview draws the same pictures from the same noise, half of the subject in several scenes,
half of its class. The caller supplies the scorer (`PreviewScorer`): the recogniser for toys, DINO
and CLIP for photographs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.sampler import AncestralNoise, drawn, noise_streams, sample_steps
from understudy.diffusion.text import Text
from understudy.generate import drawing_scales
from understudy.learn.batches import Batches
from understudy.learn.loss import part_means
from understudy.learn.trainable import holding
from understudy.learn.training import Trainer, autocasting
from understudy.models.interface import DiffusionModel
from understudy.settings import GenerateSettings

SCENES = (
    "a photo of a {subject}",
    "a photo of a {subject} on the beach",
    "a photo of a {subject} in the snow",
    "a photo of a {subject} on a wooden floor",
)
SEED, VALIDATION_ROWS = 1_000_003, 16
COPY_ALARM = 0.9  # structural similarity with a training photo


@dataclass(frozen=True)
class PreviewPictures:
    """What a scorer is given: pictures "n 3 h w" in [-1, 1], on the CPU.

    subject: in the scenes of `prompts`, which name it by its class noun. plain: its class, prompted
    without the identifier. photos: what it is learnt from.
    """

    subject: Float[Tensor, "n 3 h w"]
    plain: Float[Tensor, "n 3 h w"]
    prompts: tuple[str, ...]
    photos: Float[Tensor, "m 3 h w"]


@dataclass(frozen=True)
class PreviewScores:
    """identity: mean likeness of the subject's pictures to its photos. prompt: how far they show
    what was asked for, 0 to 1. copy: highest structural similarity to a photo. drift: mean likeness
    of the plain class to the photos (PRES). NaN without a scorer."""

    identity: float = math.nan
    prompt: float = math.nan
    copy: float = math.nan
    drift: float = math.nan


@runtime_checkable
class PreviewScorer(Protocol):
    """Anything that scores what was drawn."""

    def __call__(self, seen: PreviewPictures) -> PreviewScores: ...


@dataclass(frozen=True)
class Preview:
    """What was seen after `step` steps.

    pictures: the subject's, then the plain class's; labels: their prompts. validation: the loss of
    photos on fixed noise and times; prior_validation: that of class pictures, NaN without any.
    """

    step: int
    pictures: Float[Tensor, "n 3 h w"]
    labels: tuple[str, ...]
    validation: float
    prior_validation: float
    scores: PreviewScores


@dataclass(frozen=True)
class Previewer:
    """How to make previews. subject: what it is called in prompts; class_noun: what it is; drawing:
    how previews are drawn, but without a negative prompt."""

    model: DiffusionModel
    subject: str
    class_noun: str
    photos: Float[Tensor, "m 3 h w"]
    drawing: GenerateSettings
    scorer: PreviewScorer | None = None

    def preview(self, trainer: Trainer) -> Preview:
        """Draw, measure, score; the state of the trainer does not change."""
        photo, prior = validation(trainer)
        with torch.no_grad(), holding(trainer.trainable.parameters, trainer.averages):
            named = [scene.replace("{subject}", self.subject) for scene in SCENES]
            plain = [scene.replace("{subject}", self.class_noun) for scene in SCENES]
            text = Text.cat([trainer.trainable.embed(named), self.model.embed(plain)])
            pictures = self._draw(text, trainer).cpu()
        ours, others = pictures.chunk(2)
        seen = PreviewPictures(ours, others, tuple(plain), self.photos.cpu())
        scores = self.scorer(seen) if self.scorer else PreviewScores()
        return Preview(trainer.done, pictures, (*named, *plain), photo, prior, scores)

    @property
    def _latent_size(self) -> tuple[int, int, int]:
        """(c, h, w) of the photos that previews are compared with."""
        height, width = self.photos.shape[-2:]
        scale = self.model.downscale
        return self.model.latent_channels, height // scale, width // scale

    def _draw(self, text: Text, trainer: Trainer) -> Float[Tensor, "n 3 h w"]:
        # Subject and class of a scene share their noise, so that differences are due to the prompt.
        streams = noise_streams([SEED + number for number in range(len(SCENES))] * 2)
        with autocasting(self.model.device, trainer.options.autocast):
            uncond = self.model.embed([""]).expand(len(text))
            *_, last = sample_steps(
                self.model,
                drawn(streams, self._latent_size, like=self.model),
                text,
                uncond,
                steps=self.drawing.steps,
                guidance=drawing_scales(self.model, self.drawing),
                noise=AncestralNoise(self.drawing.eta, streams, self.drawing.temperature),
            )
        return self.model.decode(last.latents)


def validation(trainer: Trainer) -> tuple[float, float]:
    """The loss of photos, and of class pictures, on rows that are the same in every preview.

    Times are spread evenly, so that the number falls when learning goes on, not by luck. Of photos
    of several sizes, those of the first size count.
    """
    given = trainer.batches
    batches = Batches(given.photos, given.wordings, given.prior, VALIDATION_ROWS, given.schedule)
    (rows,) = batches.draw(torch.Generator().manual_seed(SEED))
    even = given.schedule.even_times(VALIDATION_ROWS)
    # Random times would make the loss jump between previews for no reason.
    rows.times.copy_(even.repeat(len(rows) // VALIDATION_ROWS))
    parts: list[Tensor] = []
    with (
        torch.no_grad(),
        holding(trainer.trainable.parameters, trainer.averages),
        autocasting(trainer.model.device, trainer.options.autocast),
    ):
        pieces = -(-len(rows) // 8)  # 8 rows at a time bound the memory
        for number in range(pieces):
            share = rows.share(number, pieces)
            parts.append(trainer.losses(share, trainer.text(share.prompts)))
    # Shares take every n-th row; the losses are put beside the parts they belong to.
    order = torch.cat([torch.arange(number, len(rows), pieces) for number in range(pieces)])
    return part_means(torch.cat(parts), rows.part[order].to(parts[0].device))


def alarms(preview: Preview, start: Preview) -> tuple[str, ...]:
    """Reasons against this checkpoint, in words; `start`: the preview before any step."""
    now, found = preview.scores, list[str]()
    if now.copy > COPY_ALARM:
        found.append(f"copies a training photo (similarity {now.copy:.2f})")
    # The class has moved more than half of the way from where it was to the subject.
    halfway = (start.scores.drift + now.identity) / 2
    if now.drift > halfway and now.identity > start.scores.drift:
        found.append(f"the class is turning into the subject (drift {now.drift:.2f})")
    return tuple(found)


def best(previews: Sequence[Preview]) -> Preview:
    """The best preview: without alarms if there is one, the highest harmonic mean of identity and
    prompt score; without a scorer, the lowest validation loss. previews[0]: before any step."""
    after = [preview for preview in previews if preview.step] or list(previews)
    # A harmonic mean is high only where both scores are.
    quiet = [preview for preview in after if not alarms(preview, previews[0])]
    pool = quiet or after
    if all(math.isnan(preview.scores.identity) for preview in pool):
        return min(pool, key=lambda preview: preview.validation)
    return max(pool, key=lambda preview: _both(preview.scores))


def _both(scores: PreviewScores) -> float:
    identity, prompt = max(scores.identity, 0.0), max(scores.prompt, 0.0)
    return 2 * identity * prompt / (identity + prompt) if identity + prompt > 0 else 0.0
