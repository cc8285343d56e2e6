"""Training batches: photos under the subject's prompt, class images under the class prompt.

The loss is that of DreamBooth (Ruiz et al. 2023, eq. 2) in the simple weighting of Ho et al.: the
mean error of the photos plus lambda times the mean error of class images, in one
forward pass. Without class images it is the loss of Textual Inversion and of HiPer. Several
subjects are learnt together by drawing from all their photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from understudy.device_copies import sent
from understudy.diffusion.schedule import Schedule
from understudy.learn.latent_cache import LatentCache
from understudy.learn.loss import Rows


@dataclass(frozen=True)
class Prior:
    """The class images: what each class is called, their latents, and the weight of their part of
    the loss (lambda). prompts: one for each owner in the cache. by_output: the target is not their
    noise but the untrained model's output for the class prompt, which is to stay; the latents may
    then be the photos' own. contexts: endings such as "on the beach", one of which or none each
    class image reads behind its prompt, so that these words, too, keep their effect. Only by_output
    allows them: that target holds for any prompt, noise only for one that describes the image."""

    prompts: tuple[str, ...]
    latents: LatentCache
    weight: float = 1.0
    by_output: bool = False
    contexts: tuple[str, ...] = ()

    @property
    def wordings(self) -> tuple[tuple[str, ...], ...]:
        """The prompts of each owner: its own, and with each of the contexts."""
        endings = ("", *(f" {context}" for context in self.contexts))
        return tuple(tuple(prompt + ending for ending in endings) for prompt in self.prompts)


@dataclass(frozen=True)
class Bucket:
    """Photos of one size, and class images of the same size."""

    photos: LatentCache
    prior: Prior | None


@dataclass(frozen=True)
class Batches:
    """Draws the rows of each step: `count` of the photos, then as many of the class.

    wordings: groups of prompts; a photo takes one of its own group at random. more: photos of
    further sizes; a step draws from all by their weights. The class prompts of all sizes are those
    of `prior`.
    """

    photos: LatentCache
    wordings: tuple[tuple[str, ...], ...]
    prior: Prior | None
    count: int
    schedule: Schedule
    more: tuple[Bucket, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt there is; `Rows.prompts` counts in this order."""
        # Class prompts follow those of the subjects: `draw` counts on this order.
        ours = [prompt for wording in self.wordings for prompt in wording]
        theirs = self.prior.wordings if self.prior else ()
        return (*ours, *(prompt for wording in theirs for prompt in wording))

    def draw(self, generator: torch.Generator) -> list[Rows]:
        """The rows of one step, those of one size together. The order of random draws is part of
        what a seed means."""
        first = Bucket(self.photos, self.prior)
        if not self.more:
            return [self._rows(first, self.count, generator)]
        # Each photo of a step is drawn from the photos of all sizes: a step with photos of one size
        # only would follow one photo where each has a size of its own.
        buckets = (first, *self.more)
        weights = torch.tensor([bucket.photos.total for bucket in buckets])
        drawn = weights.multinomial(self.count, replacement=True, generator=generator)
        counts = drawn.bincount(minlength=len(buckets)).tolist()
        return [
            self._rows(bucket, count, generator)
            for bucket, count in zip(buckets, counts, strict=True)
            if count
        ]

    def _rows(self, bucket: Bucket, count: int, generator: torch.Generator) -> Rows:
        """`count` photos of one size, and as many class images; they weigh as a part of a step."""
        photos, prior = bucket.photos, bucket.prior
        which = photos.pick(count, generator)
        latents = [photos.draw(which, generator)]
        prompts = [_wording(self.wordings, photos.wordings(which), generator)]
        masks = [None if photos.mask is None else photos.mask[sent(which, latents[0].device)]]
        if prior is not None:
            # As many class images as photos: the two means of eq. 2 have the same number of terms.
            which = prior.latents.pick(count, generator)
            latents.append(prior.latents.draw(which, generator))
            first = sum(len(wording) for wording in self.wordings)
            owners = prior.latents.owners(which)
            prompts.append(first + _wording(prior.wordings, owners, generator))
            # Class images count in full; masks are drawn on photos of the subject.
            masks.append(None if masks[0] is None else torch.ones_like(masks[0]))
        clean = torch.cat(latents)
        # Drawn on the CPU in float32: a seed means the same on every device.
        here, dtype = clean.device, clean.dtype
        noise = sent(torch.randn(clean.shape, generator=generator), here, dtype)
        cells = int(clean.shape[-2] * clean.shape[-1])
        times = self.schedule.draw_times(len(clean), generator, cells)
        part = torch.arange(len(clean)) // count
        # Each part is a mean over the rows of a step, the class part times lambda (Ruiz et al.
        # 2023, eq. 2).
        weights = torch.tensor([1.0, prior.weight if prior else 0.0])[part] / self.count
        mask = None if masks[0] is None else torch.cat([m for m in masks if m is not None])
        which, weights, times = torch.cat(prompts), sent(weights, here), sent(times, here)
        by_base = prior is not None and prior.by_output
        return Rows(clean, noise, times, which, part, weights, mask, by_base)


def _wording(
    wordings: Sequence[Sequence[str]], groups: Int[Tensor, " n"], generator: torch.Generator
) -> Int[Tensor, " n"]:
    """A prompt of each group, counted through all; only where there is a choice is one drawn."""
    counts = torch.tensor([len(wording) for wording in wordings])
    firsts = counts.cumsum(0) - counts
    # Nothing is drawn without a choice, so that runs of earlier versions are repeated exactly.
    if bool((counts == 1).all()):
        return firsts[groups]
    drawn = torch.rand(len(groups), generator=generator)
    return firsts[groups] + (drawn * counts[groups]).long()


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
