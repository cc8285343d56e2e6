"""Training batches: photos under the subject's prompt, class images under the class prompt.

The loss is that of DreamBooth (Ruiz et al. 2023, eq. 2) in the simple weighting of Ho et al.: the
mean error of the photos plus lambda times the mean error of class images, in one
forward pass. Without class pictures it is the loss of Textual Inversion and of HiPer. Several
subjects are learnt together by drawing from all their photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from understudy.diffusion.schedule import Schedule
from understudy.learn.latent_cache import LatentCache
from understudy.learn.loss import Rows


@dataclass(frozen=True)
class Prior:
    """The class pictures: what each class is called, their latents, and the weight of their part of
    the loss (lambda). prompts: one for each owner of the bank. by_output: the latents are the
    photos' own, and the untrained model's output for the class prompt is to stay."""

    prompts: tuple[str, ...]
    latents: LatentCache
    weight: float = 1.0
    by_output: bool = False


@dataclass(frozen=True)
class Batches:
    """Draws the rows of each step: `count` of the photos, then as many of the class.

    wordings: for each subject the prompts it goes by; a photo takes one of its own at random.
    """

    photos: LatentCache
    wordings: tuple[tuple[str, ...], ...]
    prior: Prior | None
    count: int
    schedule: Schedule

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt there is; `Rows.prompts` counts in this order."""
        ours = [prompt for wording in self.wordings for prompt in wording]
        return (*ours, *(self.prior.prompts if self.prior else ()))

    def draw(self, generator: torch.Generator) -> Rows:
        """The rows of one step. The order of random draws is part of what a seed means."""
        count, which = self.count, self.photos.pick(self.count, generator)
        latents = [self.photos.draw(which, generator)]
        prompts = [self._wording(self.photos.owners(which), generator)]
        masks = [
            None if self.photos.mask is None else self.photos.mask[which.to(latents[0].device)]
        ]
        if self.prior is not None:
            which = self.prior.latents.pick(count, generator)
            latents.append(self.prior.latents.draw(which, generator))
            first = len(self.prompts) - len(self.prior.prompts)
            prompts.append(first + self.prior.latents.owners(which))
            masks.append(None if masks[0] is None else torch.ones_like(masks[0]))
        clean = torch.cat(latents)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        cells = int(clean.shape[-2] * clean.shape[-1])
        times = self.schedule.draw_times(len(clean), generator, cells)
        part = torch.arange(len(clean)) // count
        weights = torch.tensor([1.0, self.prior.weight if self.prior else 0.0])[part] / count
        mask = None if masks[0] is None else torch.cat([m for m in masks if m is not None])
        here = clean.device
        which, weights = torch.cat(prompts), weights.to(here)
        by_base = self.prior is not None and self.prior.by_output
        return Rows(clean, noise, times.to(here), which, part, weights, mask, by_base)

    def _wording(self, owners: Int[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
        """A prompt for each photo; only where there is a choice is anything drawn."""
        counts = torch.tensor([len(wording) for wording in self.wordings])
        firsts = counts.cumsum(0) - counts
        if bool((counts == 1).all()):
            return firsts[owners]
        drawn = torch.rand(len(owners), generator=generator)
        return firsts[owners] + (drawn * counts[owners]).long()


def wordings_of(template: str, subject: str, varied: bool) -> tuple[str, ...]:
    """ "a photo of a {subject}" with the subject in it; if `varied`, in several settings of it."""
    templates = (template, *VARIED) if varied else (template,)
    return tuple(template.replace("{subject}", subject) for template in templates)


# Ways to say that a picture shows something, as Textual Inversion draws from (Gal et al. 2022).
VARIED: Sequence[str] = (
    "a picture of a {subject}",
    "a cropped photo of the {subject}",
    "a close-up photo of a {subject}",
    "a bright photo of the {subject}",
    "a dark photo of the {subject}",
    "a good photo of a {subject}",
    "a photo of one {subject}",
    "a rendering of the {subject}",
)
