"""The main job on toys nobody has seen, beside the right answer: learn, invert, swap, compare.

Photos of a held-out toy and a scene with another toy come from the toy world, which also renders
the right answer: the same scene with the learnt toy in the other's place and pose. Knows no files
but the built-in weights; draws no bars, but lets a caller watch the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, no_grad

from understudy import toybox
from understudy.concept import applied
from understudy.edit import edit_steps
from understudy.evaluate import truth
from understudy.invert.inversion import Inversion
from understudy.jobs.events import Events, watched
from understudy.jobs.source import InputPicture, inverted
from understudy.jobs.subjects import SwapSubjects
from understudy.jobs.swap import located, replaced
from understudy.jobs.work import decoded
from understudy.learn import Subject, learn_steps
from understudy.models.interface import DiffusionModel
from understudy.pictures import metrics
from understudy.pictures.photo import Pixels
from understudy.pictures.sheet import Row, Tile, contact_sheet
from understudy.pictures.tensors import to_pixels
from understudy.settings import DemoSettings, EditSettings, LearnSettings, SwapSettings
from understudy.settings.swap import inversion_for
from understudy.toybox import Scene
from understudy.transfer.source_target import Replacement, Target
from understudy.vision.recogniser import Recogniser

FIRST_SEED = 30_000_000  # far from the seeds of training; its toys are reserved ones besides
NAME = "rex"


@dataclass(frozen=True)
class DemoCase:
    """What is asked: photos of a toy, a source scene, and the right answer.

    prompt is the source's; noun is the class of both toys.
    """

    noun: str
    photos: tuple[Scene, ...]
    source: Scene
    right: Scene
    prompt: str


def case(seed: int, photos: int = 4) -> DemoCase:
    """The demo of a seed: a held-out toy, and a scene with another held-out toy of its class."""
    scenes = toybox.subject_photos(FIRST_SEED + 2 * seed, photos, held_out=True)
    toy = scenes[0].subjects[0].identity
    other = toybox.sample_identity(FIRST_SEED + 2 * seed + 1, toy.class_name, held_out=True)
    source = toybox.sample_scene(
        FIRST_SEED + 2 * seed + 1,
        identity=other,
        subjects=1,
        props=1,
        occluded=False,
        held_out=True,
    )
    right = toybox.recast(source, 0, toy)
    prompt = toybox.plain_caption(source, colour=False)
    return DemoCase(toy.class_name, tuple(scenes), source, right, prompt)


@dataclass(frozen=True)
class DemoPictures:
    """What was made, and what it is to be compared with; pictures "1 3 h w" in [-1, 1].

    reworded is what prompt-to-prompt makes of the same inversion, prompts and concept. rebuilt is
    the source through the autoencoder alone: the ceiling of any edit in the latent.
    target_prompt: what the swap was asked for.
    """

    case: DemoCase
    photos: Float[Tensor, "n 3 h w"]
    source: Float[Tensor, "1 3 h w"]
    swapped: Float[Tensor, "1 3 h w"]
    reworded: Float[Tensor, "1 3 h w"]
    right: Float[Tensor, "1 3 h w"]
    rebuilt: Float[Tensor, "1 3 h w"]
    target_prompt: str


def run_case(
    model: DiffusionModel, given: DemoCase, settings: DemoSettings
) -> Events[DemoPictures]:
    """Do the whole job for one case with the preset "best". Nothing is taken from any cache.

    Where the pictures are toys, the recogniser chooses among the preset's candidates. It sees the
    photos and the source only.
    """
    size = model.picture_size
    photos = truth.pictures(given.photos, size)
    source = InputPicture(given.prompt, truth.pictures([given.source], size))
    asked = {
        "steps": settings.learn_steps,
        "learning_rate": settings.learning_rate,
        "prior_samples": settings.prior_samples,
        "seed": settings.seed,
    }
    how = LearnSettings.filled(asked, model.name)
    learning = learn_steps(model, Subject(NAME, given.noun, photos), settings=how)
    title = f"Learning the {given.noun} from {len(photos)} photos"
    learnt = (yield from watched(learning, title)).concept
    shown = source.picture
    assert learnt is not None and shown is not None
    target = given.prompt.replace(given.noun, learnt.phrase, 1)
    subjects = SwapSubjects((Replacement(given.noun, learnt.phrase),), (learnt,), target)
    run = {"steps": settings.steps, "guidance": settings.guidance}
    swapping = SwapSettings.filled(run, model.name)
    source = located(model, source, subjects, swapping)
    with applied(model, *subjects.concepts):
        inverting = inversion_for(swapping, model.name)
        found = yield from inverted(model, source, inverting, cache=None)
        swapped = yield from replaced(model, found, source, subjects, swapping, photos)
        reworded = yield from _reworded(model, found.inversion, target, subjects, run)
    rebuilt = decoded(model, no_grad()(model.encode)(shown.to(model.device)))
    return DemoPictures(
        case=given,
        photos=photos,
        source=shown,
        swapped=swapped.picture,
        reworded=reworded.cpu(),
        right=truth.pictures([given.right], size),
        rebuilt=rebuilt.cpu(),
        target_prompt=target,
    )


def _reworded(
    model: DiffusionModel,
    inversion: Inversion,
    target: str,
    subjects: SwapSubjects,
    run: dict[str, Any],
) -> Events[Float[Tensor, "1 3 h w"]]:
    """What prompt-to-prompt makes of the same inversion and prompts."""
    how = EditSettings.filled({**run, "method": "p2p"}, model.name)
    steps = edit_steps(model, inversion, Target(target, subjects.replacements), how)
    last = yield from watched(steps, "Prompt-to-prompt, to compare")
    return decoded(model, last.target)


@dataclass(frozen=True)
class Scores:
    """How one picture fares as an answer.

    identity: mean cosine with the photos' identity (1 = the same toy); background: PSNR in dB
    outside what may change; pose: mean distance of the key points from the right answer's, as
    a share of the toy's size.
    """

    name: str
    identity: float
    background: float
    pose: float


def score(made: DemoPictures, recogniser: Recogniser) -> list[Scores]:
    """The swap, prompt-to-prompt, the right answer, the unchanged source; then the ceiling."""
    size = (int(made.source.shape[-2]), int(made.source.shape[-1]))
    changed = truth.changed(made.case.source, made.case.right, size)
    right = truth.shown(made.case.right, size)
    photos = recogniser.identity(made.photos)
    pictures = {
        "swap": made.swapped,
        "prompt-to-prompt": made.reworded,
        "right answer": made.right,
        "no swap": made.source,
    }
    found: list[Scores] = []
    for name, picture in pictures.items():
        seen = recogniser.recognise(picture)
        shared = right.visible & seen.confident()
        subject_size = metrics.subject_size(right.mask)
        found.append(
            Scores(
                name,
                metrics.subject_fidelity(seen.identity, photos).item(),
                metrics.background_psnr(picture, made.source, changed).item(),
                metrics.pose_error(seen.points, right.points, shared, subject_size).item(),
            )
        )
    ceiling = metrics.background_psnr(made.rebuilt, made.source, changed).item()
    return [*found, Scores("autoencoder alone", float("nan"), ceiling, float("nan"))]


def table(scores: list[Scores]) -> str:
    """The scores as aligned text; a dash where a number has no meaning."""
    lines = [f"{'':20}{'identity':>10}{'background dB':>16}{'pose error':>13}"]
    for row in scores:
        numbers = (_number(row.identity), _number(row.background, 1), _number(row.pose))
        lines.append(f"{row.name:20}{numbers[0]:>10}{numbers[1]:>16}{numbers[2]:>13}")
    return "\n".join(lines)


def sheet(made: DemoPictures, scores: list[Scores]) -> Pixels:
    """Photos, source, swap, right answer and prompt-to-prompt on one page."""
    identity = {row.name: f"{row.name}, {row.identity:.2f}" for row in scores}
    photos = [Tile(to_pixels(photo)) for photo in made.photos.split(1)]
    answers = [
        Tile(to_pixels(made.source), "source"),
        Tile(to_pixels(made.swapped), f"identity: {identity['swap']}"),
        Tile(to_pixels(made.right), identity["right answer"]),
        Tile(
            to_pixels(made.reworded),
            identity["prompt-to-prompt"],
        ),
    ]
    rows = [
        Row(f"learnt: a {made.case.noun} never seen before, from these photos alone", photos),
        Row(f'"{made.case.prompt}"  to  "{made.target_prompt}"', answers),
    ]
    return contact_sheet(rows, title="understudy demo: one toy replaced by another")


def _number(value: float, digits: int = 2) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
