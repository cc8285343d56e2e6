"""learn: photos of a subject -> a Concept.

photos -> latents (encoded once) -> class latents (sampled, or from the cache)
       -> steps (dreambooth over training) -> the change of the weights -> Concept
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.concept import Concept, untouched
from understudy.errors import ConceptError, InputError, PromptError
from understudy.learn.dreambooth import (
    DreamBooth,
    LatentBank,
    Prior,
    changes,
    encode_photos,
    trainable,
)
from understudy.learn.identifier import Identifier, choose_identifier
from understudy.learn.prior import PriorSource, PriorStore, prior_steps
from understudy.learn.training import TrainStep, train_steps
from understudy.models.interface import DiffusionModel
from understudy.settings import LearnSettings

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class LearnStep:
    """Where learning stands.

    phase: "prior" while the model samples its class, "learn" while it trains, "done" at the end.
    index counts from 0 to total - 1 within the phase; there is no "prior" phase when all class
    samples were in the cache, or no prior is wanted.
    Losses: mean squared errors, NaN outside "learn"; prior_loss NaN without prior preservation.
    concept: there when the phase is "done", the model being as it was before by then.
    """

    phase: Literal["prior", "learn", "done"]
    index: int
    total: int
    loss: float = float("nan")
    photo_loss: float = float("nan")
    prior_loss: float = float("nan")
    concept: Concept | None = None


def learn(
    model: DiffusionModel,
    photos: Float[Tensor, "n 3 h w"],
    *,
    name: str,
    class_noun: str,
    identifier: str | None = None,
    settings: LearnSettings | None = None,
    cache: Path | None = None,
) -> Concept:
    """Learn the subject of `photos` to the end; see `learn_steps`."""
    *_, last = learn_steps(
        model,
        photos,
        name=name,
        class_noun=class_noun,
        identifier=identifier,
        settings=settings,
        cache=cache,
    )
    assert last.concept is not None
    return last.concept


def learn_steps(
    model: DiffusionModel,
    photos: Float[Tensor, "n 3 h w"],
    *,
    name: str,
    class_noun: str,
    identifier: str | None = None,
    settings: LearnSettings | None = None,
    cache: Path | None = None,
) -> Iterator[LearnStep]:
    """Learn the subject of `photos` by DreamBooth, step by step; the last step has the Concept.

    photos: (n, 3, h, w) in [-1, 1]. identifier: a word of your own instead of a rare one. cache: a
    folder for class latents, shared between subjects. The model must wear no concept. When the
    generator ends, is closed or fails, the model is as it was before, bit for bit; equal arguments
    give equal weights, bit for bit, on the same machine. Raises InputError for a name, noun or
    prompt that cannot be, UnderstudyError when the loss stops being a number.
    """
    settings = settings or LearnSettings.filled({}, model.name)
    _refuse_dressed(model)
    word = choose_identifier(model, identifier, seed=settings.seed)
    prompts = subject_and_class_prompts(model, settings.prompt, word.word, class_noun)
    concept = _blank(model, name, word, class_noun, settings, len(photos))

    # What to learn from: the photos, and the model's own idea of the class.
    bank = encode_photos(model, photos, flip=settings.flip)
    prior = yield from _class_steps(model, settings, prompts[1], bank, cache)
    seeded = torch.Generator().manual_seed(settings.seed)
    text = settings.train_text_encoder
    method = DreamBooth(model, bank, prompts[0], prior, settings.batch_size, text, seeded)

    # Learn on copies of the weights, while the originals wait aside.
    with untouched(model) as parameters:
        originals = {key: parameter.data for key, parameter in parameters.items()}
        trained = trainable(parameters, ("unet", "text_encoder") if text else ("unet",))
        for index, step in enumerate(_training(model, trained, method, settings)):
            photo, prior_loss = (*step.part_losses, float("nan"))[:2]
            yield LearnStep("learn", index, settings.steps, step.loss, photo, prior_loss)
        tensors = changes(trained, originals)
    yield LearnStep("done", 0, 1, concept=replace(concept, tensors=tensors))


def subject_and_class_prompts(
    model: DiffusionModel, template: str, identifier: str, class_noun: str
) -> tuple[str, str]:
    """ "a photo of a {subject}" as "a photo of a sks cat" and "a photo of a cat".

    Raises PromptError without "{subject}" or over the token limit, InputError for no noun.
    """
    if not class_noun.strip() or set(class_noun) & set("{}"):
        raise InputError(f"--class must be a noun such as cat or 'teddy bear'. Got {class_noun!r}.")
    if "{subject}" not in template:
        raise PromptError(f"--prompt must say where the {{subject}} is. Got {template!r}.")
    subject = template.replace("{subject}", f"{identifier} {class_noun}")
    model.tokenize(subject)
    return subject, template.replace("{subject}", class_noun)


def _class_steps(
    model: DiffusionModel,
    settings: LearnSettings,
    prompt: str,
    photos: LatentBank,
    cache: Path | None,
) -> Generator[LearnStep, None, Prior | None]:
    """Yield the sampling of the class latents, return the prior made of them."""
    if settings.prior_weight == 0 or settings.prior_samples == 0:
        return None
    c, h, w = photos.mean.shape[1:]
    source = PriorSource(
        prompt,
        (c, h, w),
        steps=settings.prior_steps,
        guidance=settings.prior_guidance,
        autocast=PRECISIONS[settings.precision],
    )
    store = PriorStore(source.latent_size, cache and cache / source.key(model))
    for step in prior_steps(model, source, store, settings.prior_samples):
        yield LearnStep("prior", step.index, step.total)
    latents = store.latents(settings.prior_samples).to(photos.mean)
    return Prior(prompt, LatentBank(latents), settings.prior_weight)


def _training(
    model: DiffusionModel,
    trained: Mapping[str, nn.Parameter],
    method: DreamBooth,
    settings: LearnSettings,
) -> Iterator[TrainStep]:
    return train_steps(
        model,
        list(trained.values()),
        method.draw,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        autocast=PRECISIONS[settings.precision],
    )


def _blank(
    model: DiffusionModel,
    name: str,
    identifier: Identifier,
    class_noun: str,
    settings: LearnSettings,
    photos: int,
) -> Concept:
    """The concept before anything is learnt, so that a bad name fails before minutes of work."""
    return Concept(
        name=name,
        identifier=identifier.word,
        class_noun=class_noun,
        kind=settings.method,
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors={},
        record={
            "photos": photos,
            "pieces": list(identifier.pieces),
            **settings.to_dict(),
        },
    )


def _refuse_dressed(model: DiffusionModel) -> None:
    if model.fingerprint != model.base_fingerprint:
        raise ConceptError(
            f"The model {model.name!r} wears a concept or was changed; a concept is learnt on the "
            f"model as it was loaded. Take the concept off, or load the model again."
        )
