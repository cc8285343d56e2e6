"""What prior preservation learns along with photos of one size (Ruiz et al. 2023, section 3.3)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from understudy.concept import Concept
from understudy.errors import InputError
from understudy.files.cache import Cache
from understudy.learn.batches import Prior
from understudy.learn.distributed import Distributed
from understudy.learn.latent_cache import LatentCache, encode_photos, joined
from understudy.learn.prior import PriorSource, PriorStore, prior_steps
from understudy.learn.run import LearnStep
from understudy.learn.shipped import shipped_latents
from understudy.learn.subject import NamedSubject
from understudy.models.interface import DiffusionModel
from understudy.settings import GenerateSettings, LearnSettings

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
ALONE = ("textual-inversion", "hiper")  # methods that leave every class as it is


@dataclass(frozen=True)
class Preserving:
    """How the classes are preserved. share: of all class images, for photos of several sizes."""

    model: DiffusionModel
    settings: LearnSettings
    learned: Sequence[NamedSubject]
    after: Sequence[Concept]
    cache: Path | Cache | None
    distributed: Distributed
    share: float = 1.0

    def prior(self, photos: LatentCache) -> Generator[LearnStep, None, Prior | None]:
        """Yield what takes time, return the prior; None where nothing is preserved."""
        settings = self.settings
        given = any(named.subject.class_images for named in self.learned)
        if settings.method in ALONE and settings.preservation != "samples":
            raise InputError(
                f"--preservation {settings.preservation} needs --method dreambooth, lora or "
                f"pivotal: {settings.method} leaves every class as it is."
            )
        if given and (settings.method in ALONE or settings.preservation == "output"):
            raise InputError(
                "--class-images needs --method dreambooth, lora or pivotal, and --preservation "
                "samples or sample-output."
            )
        if settings.preservation == "output":
            return self._kept_output(photos)
        if settings.method in ALONE or settings.prior_weight == 0:
            return None
        if settings.prior_samples == 0 and not given:
            return None
        prompt = settings.prompt
        # Earlier concepts are preserved like a class: by the model's own pictures of their phrases.
        known = [prompt.replace("{subject}", p) for c in self.after for p in c.phrases.values()]
        prompts = tuple(dict.fromkeys([named.class_prompt for named in self.learned] + known))
        caches: list[LatentCache] = []
        for number, one in enumerate(prompts):
            cache = self._given(one, photos) or self._shipped(one, photos)
            if cache is None and settings.prior_samples:
                cache = yield from self._drawn(one, photos)
            if cache is not None:
                # The owner decides which class prompt goes with an image.
                owner = torch.full((len(cache.mean),), number)
                caches.append(LatentCache(cache.mean, cache.std, owner))
        by_output = settings.preservation == "sample-output"
        contexts = contexts_of(settings) if by_output else ()
        return Prior(prompts, joined(caches), settings.prior_weight, by_output, contexts)

    def _given(self, prompt: str, photos: LatentCache) -> LatentCache | None:
        """The class images that were given for a prompt, encoded; None without any."""
        _, height, width = photos.size
        scale = self.model.downscale
        for named in self.learned:
            images = named.subject.class_images.get((height * scale, width * scale))
            if images is not None and named.class_prompt == prompt:
                return encode_photos(self.model, images)
        return None

    def _shipped(self, prompt: str, photos: LatentCache) -> LatentCache | None:
        """The class latents that come with the model, where they are wanted and are enough."""
        count = max(1, round(self.share * self.settings.prior_samples))
        nouns = [n.subject.class_noun for n in self.learned if n.class_prompt == prompt]
        if self.settings.prior_source != "shipped" or not nouns or not self.settings.prior_samples:
            return None
        found = shipped_latents(self.model.name, nouns[0], photos.size)
        if found is None or len(found) < count:
            return None
        return LatentCache(found[:count].to(photos.mean))

    def _drawn(self, prompt: str, photos: LatentCache) -> Generator[LearnStep, None, LatentCache]:
        """Yield the sampling of a class's latents at the size of the photos, return them."""
        settings, count = self.settings, max(1, round(self.share * self.settings.prior_samples))
        # Whatever sharpens pictures of this model sharpens those of its classes.
        drawing = GenerateSettings.filled({}, self.model.name)
        source = PriorSource(
            prompt,
            photos.size,
            steps=settings.prior_steps,
            guidance=settings.prior_guidance,
            temperature=settings.prior_temperature,
            rescale=drawing.guidance_rescale,
            pag=drawing.pag_scale,
            pag_layers=drawing.pag_layers,
            autocast=PRECISIONS[settings.precision],
        )
        key = source.key(self.model)
        kept = None if self.cache is None else Cache.at(self.cache)
        store = PriorStore(source.latent_size, kept and kept.folder / key)
        # One process draws the images of a class, all in the same batches; others wait for them.
        lock = kept.making if kept and self.distributed.size == 1 else kept and kept.using
        with lock(key) if lock else nullcontext():
            drawing = prior_steps(self.model, source, store, count, distributed=self.distributed)
            for step in drawing:
                yield LearnStep("prior", step.index, step.total, kept=step.kept)
            if kept:
                kept.kept(key)
        return LatentCache(store.latents(count).to(photos.mean))

    def _kept_output(self, photos: LatentCache) -> Prior | None:
        """Output preservation: with the class prompt, the photos' own latents are to give what the
        untrained model makes of them. No class images are drawn."""
        settings = self.settings
        if settings.prior_weight == 0:
            return None
        # The photos themselves under the class prompt: no class images have to be drawn.
        prompts = tuple(named.class_prompt for named in self.learned)
        contexts = contexts_of(settings)
        return Prior(prompts, photos, settings.prior_weight, by_output=True, contexts=contexts)


def contexts_of(settings: LearnSettings) -> tuple[str, ...]:
    """The endings of class prompts that the settings name."""
    endings = (ending.strip() for ending in settings.class_contexts.split(";"))
    return tuple(dict.fromkeys(ending for ending in endings if ending))
