"""The job `learn`: a folder of photos to a concept."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from torch.cuda import is_available

from understudy.concept import Concept
from understudy.errors import InputError
from understudy.files.atomic import check_folder_writable
from understudy.files.cache import Cache
from understudy.files.origins import Origin
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.outputs import check_not_read
from understudy.jobs.photos import looker, nouns, preflight
from understudy.jobs.training_photos import LearnWish, subject_of, with_class_images
from understudy.jobs.work import MANIFEST, STORE, Work, concept_folder
from understudy.learn import LearnStep, learn_steps
from understudy.learn.preview import PreviewScorer
from understudy.learn.preview_scorer import CLIP_SCALE, FeaturePreviewScorer
from understudy.models.interface import DiffusionModel
from understudy.settings import QUANTISED, LearnSettings, RunSettings
from understudy.settings.bases import check_trainable
from understudy.settings.inputs import LearnInputs
from understudy.settings.marks import CONSENT
from understudy.settings.suits import shows_toys
from understudy.vision.encoders import load_dino
from understudy.vision.features import ClipFeatures, DinoFeatures, ToyFeatures
from understudy.vision.recogniser import load as load_recogniser

LEARNING = "Learning"  # the phase of a step that trains; before it there is no checkpoint


def learn(
    work: Work,
    settings: LearnSettings,
    run: RunSettings,
    *,
    given: LearnInputs,
) -> Events[Result]:
    """Learn the subject of a folder of photos as a concept, in the folder `out`."""
    name, photos, consent = given.name, given.photos, given.consent
    folder = given.out or STORE / name
    if consent not in CONSENT:
        raise InputError(f"--consent must be one of {', '.join(CONSENT)}. Got {consent!r}.")
    check_trainable(run.model)
    if run.dtype in QUANTISED:
        raise InputError(f"--dtype {run.dtype} cannot be learnt with. Use --dtype bfloat16.")
    check_folder_writable(folder)
    check_not_read(folder, [concept_folder(name) for name in given.after])
    if not given.resume:
        work.writes(folder / MANIFEST)
    leads = int(os.environ.get("RANK", "0")) == 0  # of several processes one reports and writes
    others = [_further(words) for words in given.also]
    for one in (photos, *(other.photos for other in others)):
        _look_over(work, one, run.model, settings, folder, leads)
    looks = not given.class_noun or settings.preview_every > 0
    seeing = _seeing(given.clip_model, given.dino_model, looks)
    noun = given.class_noun or _proposed(work, photos, seeing)
    concepts = work.concepts(given.after)
    with work.model(own_device(run)) as model:
        first = LearnWish(name, noun, photos, given.identifier, given.masks)
        wishes = with_class_images([first, *others], given.class_images)
        subjects = [subject_of(work, model, settings, wish) for wish in wishes]
        steps = learn_steps(
            model,
            *subjects,
            settings=settings,
            cache=Cache.user("classes", [Origin("concept", one.name) for one in subjects]),
            after=concepts,
            run=folder,
            resume=given.resume,
            scorer=_scorer(model, seeing, given.dino_model) if settings.preview_every else None,
        )
        left = _Left()
        last = yield from watched(steps, _title, left.see, kept=left.said)
    assert last.concept is not None, "the last step carries the concept"
    if not leads:
        return Result({})
    concept = _recorded(last.concept, work, consent)
    concept.save(folder)
    work.note(*last.warnings)
    return _told(last, concept, folder)


def _recorded(concept: Concept, work: Work, consent: str) -> Concept:
    """The concept with consent and the SHA-256 of its photos in its record: `forget` finds by them
    what was cached from the photos."""
    hashes = sorted({one.sha256 for one in work.ingredients if one.role == "photos"})
    record = {**concept.record, "consent": consent, "photo_hashes": hashes}
    return replace(concept, record=record)


def own_device(run: RunSettings) -> RunSettings:
    """Of several processes on one machine (torchrun) each takes a GPU of its own."""
    number = os.environ.get("LOCAL_RANK")
    if number is None or run.device != "auto" or not is_available():
        return run
    return replace(run, device=f"cuda:{number}")


def _told(last: LearnStep, concept: Concept, folder: Path) -> Result:
    """The word to use in prompts, and the best checkpoint."""
    numbers: dict[str, object] = {"concept": str(folder), "name": concept.name}
    numbers |= {"phrase": concept.phrase, "phrases": concept.phrases}
    lines = [
        f'{folder}   write {{{name}}} in a prompt; it expands to "{phrase}"'
        for name, phrase in concept.phrases.items()
    ]
    if last.preview is not None:
        best = folder / "checkpoints" / f"step-{last.preview.step:06d}"
        numbers["best"] = str(best)
        lines.append(f"{best}   scored best; see {folder / 'learn.png'}")
    return Result(numbers, tuple(lines), (str(folder),))


def _further(words: str) -> LearnWish:
    """ "mia:dog:photos/mia" -> name, class noun, folder."""
    parts = words.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise InputError(f"--also must be NAME:CLASS:PHOTOS, like mia:dog:mia/. Got {words!r}.")
    return LearnWish(parts[0], parts[1], Path(parts[2]))


def _look_over(
    work: Work, photos: Path, model: str, settings: LearnSettings, out: Path, leads: bool
) -> None:
    """Refuse photos that nothing can be learnt from, before the model is loaded."""
    report = preflight(photos, model, settings.method, out, settings.buckets)
    report.refuse()
    work.note(*(report.all_warnings if leads else ()))


def _seeing(clip_model: str | None, dino_model: str | None, wanted: bool) -> ClipFeatures | None:
    """CLIP, where it was given and somebody will ask it."""
    if clip_model is None and dino_model is not None:
        raise InputError("--dino-model scores pictures only; add --clip-model to score prompts.")
    return looker(clip_model) if clip_model and wanted else None


def _proposed(work: Work, photos: Path, seeing: ClipFeatures | None) -> str:
    """The class noun that CLIP believes in most; said, because the user may know better."""
    if seeing is None:
        raise InputError("Give --class, like --class cat, or --clip-model to propose one.")
    (noun, share), *_ = found = nouns(photos, seeing)
    others = ", ".join(f"{other} {chance:.0%}" for other, chance in found[1:])
    work.note(
        f"CLIP proposes --class {noun} ({share:.0%}; {others}). If that is wrong, give --class."
    )
    return noun


def _scorer(
    model: DiffusionModel, seeing: ClipFeatures | None, dino: str | None
) -> PreviewScorer | None:
    """CLIP and DINO where they are given, else the recogniser in the toy world, else nobody."""
    if seeing is not None:
        subject = DinoFeatures(load_dino(dino)) if dino else seeing
        return FeaturePreviewScorer(subject, seeing, CLIP_SCALE)
    if not shows_toys(model.name):
        return None
    recogniser = ToyFeatures(load_recogniser())
    return FeaturePreviewScorer(recogniser, recogniser)


@dataclass
class _Left:
    """What a stop before the first checkpoint leaves behind: class images in the cache."""

    before: int = 0  # of the classes and sizes before this one
    images: int = 0
    index: int = -1

    def see(self, step: LearnStep) -> None:
        if step.phase == "prior":
            self.before += self.images if step.index < self.index else 0
            self.images, self.index = step.kept, step.index

    def said(self) -> str:
        count = self.before + self.images
        if not count:
            return ""
        return f"{count} class images are cached; running the same command again reuses them."


def _title(step: LearnStep) -> str:
    if step.phase == "learn":
        return f"{LEARNING}, loss {step.loss:.3f}"
    return "Drawing the class" if step.phase == "prior" else LEARNING
