"""The subject to be learnt and its prompt, checked before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept
from understudy.concept.value import OWN_WORDS
from understudy.errors import InputError, PromptError
from understudy.learn.batches import wordings_of
from understudy.learn.captions import prompt_of
from understudy.learn.identifier import choose_identifier
from understudy.models.interface import DiffusionModel
from understudy.settings import LearnSettings


@dataclass(frozen=True, eq=False)
class PhotoGroup:
    """Photos of one size, (n, 3, h, w) in [-1, 1], and what is known of each.

    masks: 1 where the subject is. captions: "" for a photo that has none. weights: how often each
    photo is drawn, relative to the others. The last two are empty where no photo has any.
    """

    photos: Float[Tensor, "n 3 h w"]
    masks: Float[Tensor, "n 1 h w"] | None = None
    captions: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.photos.shape[-2]), int(self.photos.shape[-1])


@dataclass(frozen=True, eq=False)
class Subject:
    """Somebody to learn: the name prompts use, the class noun, photos (n, 3, h, w) in [-1, 1].

    identifier: a word of your own instead of a rare one. masks: 1 where the subject is. groups:
    the photos that are learnt from, by size, with captions and weights; empty: `photos` and `masks`
    alone. Previews compare with `photos`. class_images: by size, images (m, 3, h, w) of the class
    to learn along with the photos; empty: the model draws them. has_writing: photos are never
    mirrored.
    """

    name: str
    class_noun: str
    photos: Float[Tensor, "n 3 h w"]
    identifier: str | None = None
    masks: Float[Tensor, "n 1 h w"] | None = None
    groups: tuple[PhotoGroup, ...] = ()
    class_images: Mapping[tuple[int, int], Tensor] = field(
        default_factory=dict[tuple[int, int], Tensor]
    )
    has_writing: bool = False

    @property
    def all_groups(self) -> tuple[PhotoGroup, ...]:
        """What is learnt from, by size."""
        return self.groups or (PhotoGroup(self.photos, self.masks),)


@dataclass(frozen=True, eq=False)
class NamedSubject:
    """A subject and its words: identifier as prompts say it ("" for HiPer), its tokens, and all the
    prompts its photos go by. captioned: by caption, the prompt it becomes. warnings: what speaks
    against the identifier."""

    subject: Subject
    identifier: str
    tokens: tuple[str, ...]
    wordings: tuple[str, ...]
    class_prompt: str
    warnings: tuple[str, ...] = ()
    captioned: Mapping[str, str] = field(default_factory=dict[str, str])


def name_subjects(
    model: DiffusionModel, subjects: Sequence[Subject], settings: LearnSettings, *,
    taken: Collection[str] = (),
) -> tuple[NamedSubject, ...]:  # fmt: skip
    """The words of every subject. taken: identifiers that are used already.

    Raises InputError for a name, noun or word that cannot be, PromptError for a template without
    {subject} or over the token limit.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise InputError(f"Every subject needs a --name of its own. Got {', '.join(names)}.")
    if len(subjects) > 1 and settings.method == "hiper":
        raise InputError("--method hiper learns one subject at a time. Leave out --also.")
    named_subjects: list[NamedSubject] = []
    used = list(taken)
    for subject in subjects:
        named = _named(model, subject, settings, used)
        used += named.identifier.split()
        named_subjects.append(named)
    return tuple(named_subjects)


def _named(
    model: DiffusionModel, subject: Subject, settings: LearnSettings, used: Sequence[str]
) -> NamedSubject:
    noun, template = subject.class_noun, settings.prompt
    if not noun.strip() or set(noun) & set("{}"):
        raise InputError(f"--class must be a noun such as cat or 'teddy bear'. Got {noun!r}.")
    if "{subject}" not in template:
        raise PromptError(f"--prompt must say where the {{subject}} is. Got {template!r}.")
    words, tokens, warnings = _words(model, subject, settings, used)
    # Textual Inversion learns the whole subject in its words; the other methods learn "identifier
    # noun".
    said = words if settings.method in OWN_WORDS else f"{words} {noun}".strip()
    wordings = wordings_of(template, said, settings.varied_prompts)
    # Over the token limit fails here, before minutes of class images.
    for wording in wordings:
        model.tokenize(wording)
    captioned: dict[str, str] = {}
    for caption in {c: None for group in subject.all_groups for c in group.captions if c}:
        captioned[caption] = prompt_of(caption, said, noun, subject.name, wordings[0])
        _check_caption(model, caption, captioned[caption])
    class_prompt = template.replace("{subject}", noun)
    return NamedSubject(subject, words, tokens, wordings, class_prompt, tuple(warnings), captioned)


def _check_caption(model: DiffusionModel, caption: str, prompt: str) -> None:
    try:
        model.tokenize(prompt)
    except PromptError as error:
        raise PromptError(f"The caption {caption!r} cannot be used. {error}") from error


def _words(
    model: DiffusionModel, subject: Subject, settings: LearnSettings, used: Sequence[str]
) -> tuple[str, tuple[str, ...], list[str]]:
    """The identifier, its tokens, and warnings: none for HiPer, as many words as vectors for
    Textual Inversion and pivotal tuning, one otherwise."""
    if settings.method == "hiper":
        return "", (), []
    count = settings.vectors if settings.method in OWN_WORDS else 1
    words: list[str] = []
    tokens: list[str] = []
    warnings: list[str] = []
    for number in range(count):
        # Further vectors take further rare words: each is one row of the embedding table.
        own = subject.identifier if number == 0 else None
        learns = settings.method in OWN_WORDS
        found = choose_identifier(
            model, own, seed=settings.seed, avoid=(*used, *words), whole=learns
        )
        words.append(found.word)
        tokens += found.strings
        warnings += [found.warning] if found.warning else []
    return " ".join(words), tuple(tokens), warnings


def blank_concept(
    model: DiffusionModel,
    named_subjects: Sequence[NamedSubject],
    settings: LearnSettings,
    after: Sequence[Concept],
) -> Concept:
    """The concept before anything is learnt, so that a bad name fails before minutes of work."""
    first, *others = named_subjects
    groups = [group for named in named_subjects for group in named.subject.all_groups]
    record = {
        "photos": sum(len(named.subject.photos) for named in named_subjects),
        "sizes": [f"{width}x{height}" for height, width in dict.fromkeys(g.size for g in groups)],
        "captioned": sum(bool(caption) for group in groups for caption in group.captions),
        "masked": any(group.masks is not None for group in groups),
        "class_images": sum(
            len(next(iter(named.subject.class_images.values()), ())) for named in named_subjects
        ),
        "tokens": [string for named in named_subjects for string in named.tokens],
        **settings.to_dict(),
    }
    if after:
        record["after"] = [concept.name for concept in after]
    blank = Concept(
        name=first.subject.name,
        identifier=first.identifier,
        class_noun=first.subject.class_noun,
        kind=settings.method,
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors={},
        record=record,
    )
    also: dict[str, str] = {}
    for named in others:
        said = f"{named.identifier} {named.subject.class_noun}"
        also[named.subject.name] = named.identifier if blank.phrase == blank.identifier else said
    return replace(blank, also=also)


def facts_of(
    model: DiffusionModel, named_subjects: Sequence[NamedSubject], settings: LearnSettings
) -> dict[str, object]:
    """What makes a run this run, as plain data: who is learnt from what, on what, how."""
    digest = hashlib.sha256()
    for named in named_subjects:
        for group in named.subject.all_groups:
            # The digest covers pixels, not file names: renamed photos are the same run.
            for pictures in (group.photos, group.masks):
                if pictures is not None:
                    digest.update(pictures.cpu().contiguous().numpy().tobytes())
            if group.captions or group.weights:
                digest.update(repr((group.captions, group.weights)).encode())
        for images in named.subject.class_images.values():
            digest.update(images.cpu().contiguous().numpy().tobytes())
    return {
        "settings": settings.to_dict(),
        "model": model.fingerprint,
        "photos": digest.hexdigest(),
        "name": [named.subject.name for named in named_subjects],
        "class": [named.subject.class_noun for named in named_subjects],
        "identifier": [named.identifier for named in named_subjects],
    }
