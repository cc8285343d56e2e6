"""learn: photos of a subject -> a Concept.

photos -> latents (photo_groups, encoded once) -> class latents (preservation: drawn, or given)
       -> steps (training, of a method's parameters on batches) -> the tensors -> Concept
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, applied
from understudy.errors import ConceptError
from understudy.files.cache import Cache
from understudy.learn.batches import Batches, Bucket
from understudy.learn.checkpoint import RunFolder, claimed
from understudy.learn.distributed import process_group
from understudy.learn.dreambooth import whole_model
from understudy.learn.hiper import tail_of
from understudy.learn.lora import low_rank
from understudy.learn.photo_groups import EncodedPhotos, encoded_photos
from understudy.learn.pivotal import words_then_low_rank
from understudy.learn.preservation import PRECISIONS, Preserving
from understudy.learn.preview import Previewer, PreviewScorer, best
from understudy.learn.run import LearnRun, LearnStep, run_steps
from understudy.learn.subject import NamedSubject, Subject, blank_concept, facts_of, name_subjects
from understudy.learn.textual_inversion import new_words
from understudy.learn.trainable import Trainable
from understudy.learn.training import Trainer, TrainOptions
from understudy.models.interface import DiffusionModel
from understudy.models.memory import gradient_checkpointing
from understudy.models.precision import suited_precision
from understudy.settings import GenerateSettings, LearnSettings


def learn(
    model: DiffusionModel,
    photos: Float[Tensor, "n 3 h w"],
    *,
    name: str,
    class_noun: str,
    identifier: str | None = None,
    settings: LearnSettings | None = None,
    cache: Path | Cache | None = None,
) -> Concept:
    """Learn the subject of `photos` to the end; see `learn_steps`."""
    subject = Subject(name, class_noun, photos, identifier)
    *_, last = learn_steps(model, subject, settings=settings, cache=cache)
    assert last.concept is not None
    return last.concept


def learn_steps(
    model: DiffusionModel,
    *subjects: Subject,
    settings: LearnSettings | None = None,
    cache: Path | Cache | None = None,
    after: Sequence[Concept] = (),
    run: Path | None = None,
    resume: bool = False,
    scorer: PreviewScorer | None = None,
) -> Iterator[LearnStep]:
    """Learn subjects, step by step; the last step has the Concept, named after the first of them.

    Several subjects are learnt together, in one concept. after: concepts learnt before, to be
    applied together with the new one: it is learnt on top of them, and the model's own pictures of
    their subjects are learnt along, so that they stay. cache: a folder for class latents, shared
    between runs. run: a folder for checkpoints, previews and the log; resume goes on from its last
    checkpoint, bit for bit on the same machine. scorer: scores the previews.

    No concept may be applied to the model. When the generator ends, is closed or fails, the model
    is as it was before, bit for bit, and a run that has begun to train has a checkpoint of its last
    step; equal arguments give equal weights, bit for bit, on the same machine. Started by torchrun,
    all processes share the work of each step. Raises InputError for a name, noun or prompt that
    cannot be, UnderstudyError when the loss stops being a number or memory runs out.
    """
    settings = settings or LearnSettings.filled({}, model.name)
    if settings.precision == "auto":
        settings = replace(settings, precision=suited_precision(model.device))
    _refuse_changed(model)
    taken = [word for concept in after for word in concept.identifier.split()]
    with ExitStack() as stack:
        # They will be used together with the new concept, so it is learnt on top of them.
        stack.enter_context(applied(model, *after))
        distributed = stack.enter_context(process_group())
        learned = name_subjects(model, subjects, settings, taken=taken)
        concept = blank_concept(model, learned, settings, after)
        facts = facts_of(model, learned, settings)
        if run is not None and distributed.leads:  # before minutes of class images
            stack.enter_context(claimed(run))
            RunFolder(run, settings.keep_checkpoints, facts).check(resume)

        # What to learn from: the photos, and the model's own idea of the classes.
        photos = encoded_photos(model, learned, settings)
        kept = Preserving(model, settings, learned, after, cache, distributed)
        first, *more = yield from _buckets(photos, kept)

        # All rows of the accumulated batches are drawn at once: accumulation changes memory only.
        count = settings.batch_size * settings.accumulate
        batches = Batches(
            first.photos, photos.wordings, first.prior, count, model.schedule, tuple(more)
        )
        trainable = stack.enter_context(_trainable(model, learned, settings))
        stack.enter_context(gradient_checkpointing(model, settings.gradient_checkpointing))
        generator = torch.Generator().manual_seed(settings.seed)
        trainer = Trainer(model, trainable, batches, _options(settings), generator, distributed)
        viewer = _viewer(model, learned[0], concept, settings, scorer)
        training = LearnRun(trainer, viewer, concept, settings, run, facts)
        learnt = yield from run_steps(training, resume=resume)
    chosen = best(training.previews) if training.previews else None
    warnings = tuple(warning for named in learned for warning in named.warnings)
    yield LearnStep("done", 0, 1, preview=chosen, concept=learnt, warnings=warnings)


def _buckets(
    photos: EncodedPhotos, preserving: Preserving
) -> Generator[LearnStep, None, list[Bucket]]:
    """The photos of each size with class images of that size, shared out by the photos' weights."""
    buckets: list[Bucket] = []
    for latents in photos.sizes:
        # Class images must have the photos' size, so each size gets its share of them.
        kept = replace(preserving, share=latents.total / photos.total)
        buckets.append(Bucket(latents, (yield from kept.prior(latents))))
    return buckets


def _trainable(
    model: DiffusionModel, learned: Sequence[NamedSubject], settings: LearnSettings
) -> AbstractContextManager[Trainable]:
    """What trains, by the method."""
    starts = [(r.identifier, settings.initialiser or r.subject.class_noun) for r in learned]
    # alpha = rank gives the scale 1: the learning rate then does not depend on the rank.
    low: Any = {
        "rank": settings.rank,
        "alpha": settings.alpha or float(settings.rank),
        "targets": [name.strip() for name in settings.targets.split(",") if name.strip()],
        "seed": settings.seed,
    }
    match settings.method:
        case "hiper":
            return tail_of(model, learned[0].wordings[0], settings.tail)
        case "textual-inversion":
            return new_words(model, starts, rate=settings.learning_rate)
        case "pivotal":
            steps = round(settings.pivot * settings.steps)
            share = settings.embedding_rate
            return words_then_low_rank(model, starts, steps=steps, share=share, **low)
        case "lora":
            return low_rank(model, train_text=settings.train_text_encoder, **low)
        case _:
            return whole_model(
                model,
                train_text=settings.train_text_encoder,
                layers=settings.trained_layers,
                identifiers=[one.identifier for one in learned],
                share=settings.embedding_rate,
            )


def _options(settings: LearnSettings) -> TrainOptions:
    return TrainOptions(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        clip=settings.clip,
        accumulate=settings.accumulate,
        snr_gamma=settings.snr_gamma,
        average=settings.average,
        eight_bit=settings.optimiser == "adamw8bit",
        autocast=PRECISIONS[settings.precision],
    )


def _viewer(
    model: DiffusionModel,
    named: NamedSubject,
    concept: Concept,
    settings: LearnSettings,
    scorer: PreviewScorer | None,
) -> Previewer:
    return Previewer(
        model,
        concept.phrase,
        named.subject.class_noun,
        named.subject.photos,
        GenerateSettings.filled({"steps": settings.prior_steps}, model.name),
        scorer,
    )


def _refuse_changed(model: DiffusionModel) -> None:
    if model.fingerprint != model.base_fingerprint:
        raise ConceptError(
            f"The model {model.name!r} has a concept applied or was changed. Learning "
            "needs the model as it was loaded. Remove the concept, or load the model again."
        )
