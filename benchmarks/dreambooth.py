"""Is the learnt subject the photographed one, and does its class stay what it was?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks import cases
from benchmarks.rows import Row
from understudy import toybox
from understudy.concept import Concept, applied
from understudy.evaluate import truth
from understudy.generate import generate
from understudy.learn import learn
from understudy.models.interface import DiffusionModel
from understudy.pictures import metrics
from understudy.settings import GenerateSettings, LearnSettings
from understudy.vision.recogniser import Recogniser

PLACES = ("meadow", "beach", "snow", "wooden floor", "night", "sunset", "studio", "street")
COLUMNS = (
    "identity, before",
    "identity, after",
    "identity, real photos",
    "chance: after against others of the class",
    "chance: real photos against others of the class",
    "right class, after",
    "right background, after",
    "PRES, before",
    "PRES, with prior",
    "PRES, without prior",
    "class right in plain prompt, before",
    "class right in plain prompt, with prior",
    "class right in plain prompt, without prior",
    "background right in plain prompt, before",
    "background right in plain prompt, with prior",
    "background right in plain prompt, without prior",
    "diversity of the class, before",
    "diversity of the class, with prior",
    "diversity of the class, without prior",
    "copy score, after",
    "copy score, unseen photos",
)


def fidelity(
    model: DiffusionModel,
    recogniser: Recogniser,
    number: int,
    settings: LearnSettings,
    drawing: GenerateSettings,
    store: Path,
) -> Row:
    """Learn held-out subject `number` with and without prior; score eight pictures of each kind."""
    subject = cases.subject(number)
    noun = subject.identity.class_name
    photos, unseen = truth.pictures(subject.photos), truth.pictures(subject.unseen)
    real, others = recogniser.identity(unseen), recogniser.identity(truth.pictures(subject.others))
    concept = learnt(model, subject, settings, store)
    bare = learnt(model, subject, without_prior(settings), store)
    phrase = concept.phrase

    # Eight new scenes of the subject, and of its class, before and after.
    before = in_places(model, phrase, drawing)
    plain = {"before": in_places(model, noun, drawing)}
    with applied(model, concept):
        after = in_places(model, phrase, drawing)
        plain["with prior"] = in_places(model, noun, drawing)
    with applied(model, bare):
        plain["without prior"] = in_places(model, noun, drawing)
    seen = recogniser.recognise(after)
    row: Row = {
        "phrase": phrase,
        "identity, before": mean(recogniser.identity(before), real),
        "identity, after": mean(seen.identity, real),
        "identity, real photos": mean(recogniser.identity(photos), real),
        "chance: after against others of the class": mean(seen.identity, others),
        "chance: real photos against others of the class": mean(real, others),
        "right class, after": share(seen.best("class"), [noun] * len(PLACES)),
        "right background, after": share(seen.best("background"), PLACES),
        "copy score, after": metrics.copy_score(after, photos).mean().item(),
        "copy score, unseen photos": metrics.copy_score(unseen, photos).mean().item(),
    }
    for when, drawn in plain.items():
        looked = recogniser.recognise(drawn)
        row[f"PRES, {when}"] = metrics.class_drift(looked.identity, real).item()
        row[f"class right in plain prompt, {when}"] = share(looked.best("class"), [noun] * 8)
        # Words beside the class must keep their effect, too.
        row[f"background right in plain prompt, {when}"] = share(looked.best("background"), PLACES)
        row[f"diversity of the class, {when}"] = metrics.diversity(looked.identity).item()
    return row


def learnt(
    model: DiffusionModel, subject: cases.Subject, settings: LearnSettings, store: Path
) -> Concept:
    """The subject's concept, from the store if it was learnt before with this model."""
    prior = "prior" if settings.prior_weight else "bare"
    folder = store / f"{subject.name}-{prior}-{settings.steps}-{settings.learning_rate:g}"
    if (folder / "concept.json").exists():
        concept = Concept.load(folder)
        if concept.base_fingerprint == model.fingerprint:
            return concept
    concept = learn(
        model,
        truth.pictures(subject.photos),
        name=subject.name,
        class_noun=subject.identity.class_name,
        settings=settings,
        cache=store / "classes",
    )
    concept.save(folder)
    return concept


def without_prior(settings: LearnSettings) -> LearnSettings:
    return LearnSettings.from_dict({**settings.to_dict(), "prior_weight": 0.0})


def in_places(
    model: DiffusionModel, noun: str, drawing: GenerateSettings
) -> Float[Tensor, "8 3 h w"]:
    """The noun on eight backgrounds, seeds 0 to 7."""
    prompts = [f"a photo of a {noun} {toybox.BACKGROUNDS[place]}" for place in PLACES]
    return generate(model, prompts, range(len(PLACES)), drawing)


def mean(ours: Float[Tensor, "n d"], theirs: Float[Tensor, "m d"]) -> float:
    return metrics.subject_fidelity(ours, theirs).item()


def share(seen: Sequence[str], wanted: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(seen, wanted, strict=True)) / len(wanted)


def sheet_pictures(
    model: DiffusionModel, number: int, settings: LearnSettings, drawing: GenerateSettings,
    store: Path,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The subject's four photos and eight generated pictures, for the eye."""
    subject = cases.subject(number)
    concept = learnt(model, subject, settings, store)
    with torch.no_grad(), applied(model, concept):
        return truth.pictures(subject.photos), in_places(model, concept.phrase, drawing)
