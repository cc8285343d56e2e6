"""The job `swap`: concepts take the places of a photo's subjects.

Invert the photo with the concepts applied, choose the schedule, swap, put the photo's own pixels
around the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, no_grad

from understudy.concept import applied
from understudy.errors import InputError
from understudy.files.cache import Cache
from understudy.jobs.comparison import drawn_of, scorer_of
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.framing import Wanted
from understudy.jobs.outline import note_outline
from understudy.jobs.results import recipe_of, write_edited
from understudy.jobs.selecting import Selected
from understudy.jobs.source import (
    InputPicture,
    Inverted,
    inversions,
    inverted,
    source_in,
    source_of,
)
from understudy.jobs.subjects import SwapSubjects, checked_swap, split, subjects_of
from understudy.jobs.words import check_negative_prompt
from understudy.jobs.work import Work, decoded
from understudy.models.interface import DiffusionModel
from understudy.pictures.tensors import to_pixels
from understudy.settings import InvertSettings, RunSettings, SwapSettings
from understudy.settings.inputs import SwapInputs
from understudy.settings.marks import MarkSettings
from understudy.settings.swap import COUNTS, inversion_for
from understudy.swap import swap_steps
from understudy.swap.appearance import appearance_of, check_appearance
from understudy.swap.blending import check_background
from understudy.swap.layout import layout_plan
from understudy.swap.photoswap import framed, parts_read
from understudy.swap.refine import appearance_count
from understudy.swap.schedule_search import candidates
from understudy.swap.where import old_subject
from understudy.transfer.step import SwapStep
from understudy.transfer.texts import check_read

EACH = "each"  # of --region: each swap in a region of its own
FOUND = ("nothing", "inversion", "features")  # in the cache, from least to most


def swap(
    work: Work,
    settings: SwapSettings,
    run: RunSettings,
    invert: InvertSettings | None = None,
    marks: MarkSettings | None = None,
    *,
    given: SwapInputs,
) -> Events[Result]:
    """Swap concepts into a photo, or into the picture of a seed.

    region "each": the swaps are made one after the other, each in a region of its own.
    """
    settings.check_place(given.mask is not None or bool(given.select))
    subjects, selected = checked_swap(work, given)
    asked = invert or inversion_for(settings, run.model)
    check_negative_prompt(settings.negative, asked)
    if given.region == EACH:
        each = _Each(work, given, settings, run, asked, subjects.target)
        return (yield from each.result(selected, marks))
    with work.model(run) as model:
        wanted = Wanted(
            given.region, given.prompt, (subjects.target,), subjects.concepts, words=subjects.words
        )
        source = source_of(work, model, given, selected, wanted)
        shown = None if given.photos is None else work.photos(given.photos, model.picture_size)
        made = yield from swapped(
            model, source, subjects, settings, asked, shown, inversions(work),
            told=partial(note_outline, work, selected),
        )  # fmt: skip
        if settings.budget and not made.scored:
            work.note("no scorer is available for this model; using the preset's values.")
        facts: dict[str, object] = {
            "prompt": given.prompt,
            "target_prompt": subjects.target,
            "swap": given.swap,
        }
        facts |= {"method": asked.method, **made.facts}
        recipe = recipe_of(work, model, settings, run, asked, facts=facts, seed=given.seed)
    kept = settings.paste and given.photo is not None
    result = made.picture
    if source.frame is not None:
        result = source.frame.put_back(result, source.picture if settings.paste else None)
    out = given.out
    write_edited(out, result, recipe, marks, photo=given.photo, keeps_photo=kept)
    made.inverted.save_features(asked.guidance)
    told = {key: value for key, value in facts.items() if key != "cache"}
    return Result({"picture": str(out), **told}, (f'{out}   "{subjects.target}"',), (str(out),))


@dataclass(frozen=True)
class _Each:
    """Swaps of a photo one after the other, each in the region around its own subject.

    A swap's source is the photo with the results of the swaps before it. target: the prompt of all
    swaps together, for the recipe.
    """

    work: Work
    given: SwapInputs
    settings: SwapSettings
    run: RunSettings
    asked: InvertSettings
    target: str

    def result(self, selected: Selected, marks: MarkSettings | None) -> Events[Result]:
        """Swap, write the photo. Raises InputError for a seed, a mask, and a selection that names
        no swapped word."""
        given, work, settings = self.given, self.work, self.settings
        swaps, photo, prompt = given.swap, given.photo, given.prompt
        _check_each(swaps, photo, selected)
        assert photo is not None, "checked"
        opened, found, chosen = work.photo(photo), list[str](), list[object]()
        with work.model(self.run) as model:
            shown = None if given.photos is None else work.photos(given.photos, model.picture_size)
            for swap in swaps:
                word = split(swap).word
                mine = replace(selected, texts=[word] if word in selected.texts else [])
                subjects = subjects_of(work, [swap], prompt)
                wanted = Wanted(
                    "auto", prompt, (subjects.target,), subjects.concepts, words=subjects.words
                )
                source = source_in(work, model, prompt, opened, mine, wanted)
                cache = inversions(work)
                one = yield from swapped(
                    model, source, subjects, settings, self.asked, shown, cache
                )
                pixels = (
                    to_pixels(one.picture)
                    if source.frame is None
                    else source.frame.put_back(
                        one.picture, source.picture if settings.paste else None
                    )
                )
                opened = replace(opened, pixels=pixels)
                found.append(one.inverted.found)
                chosen.append(one.chosen)
            facts: dict[str, object] = {"prompt": prompt, "target_prompt": self.target}
            facts |= {"swap": swaps, "method": self.asked.method}
            told = {**facts, "cache": max(found, key=FOUND.index), "chosen": chosen}
            recipe = recipe_of(work, model, settings, self.run, self.asked, facts=told)
        write_edited(
            given.out, opened.pixels, recipe, marks, photo=photo, keeps_photo=settings.paste
        )
        values = {"picture": str(given.out), **facts, "chosen": chosen}
        return Result(values, (f'{given.out}   "{self.target}"',), (str(given.out),))


def _check_each(swaps: list[str], photo: Path | None, selected: Selected) -> None:
    if photo is None or selected.file is not None:
        raise InputError(
            "--region each is for the swaps of a photo, and finds each subject itself. Leave out "
            "--seed and --mask; --select may name swapped words."
        )
    words = {split(one).word for one in swaps}
    for text in selected.texts:
        if text not in words:
            raise InputError(
                f"--select with --region each must be a swapped word: {', '.join(sorted(words))}. "
                f"Got {text!r}."
            )


@dataclass(frozen=True)
class Swapped:
    """A swapped picture. chosen: step counts and noise of the candidate taken by a search.

    scored: a scorer compared candidates. inverted: the source; save its features for later swaps
    with `inverted.save_features` once the picture is written.
    """

    picture: Float[Tensor, "1 3 h w"]
    scored: bool
    chosen: dict[str, int | str] | None
    inverted: Inverted

    @property
    def facts(self) -> dict[str, object]:
        """What the recipe says of it."""
        found: dict[str, object] = {"cache": self.inverted.found}
        return {**found, "chosen": self.chosen} if self.scored else found


def swapped(
    model: DiffusionModel,
    source: InputPicture,
    subjects: SwapSubjects,
    settings: SwapSettings,
    asked: InvertSettings,
    photos: Float[Tensor, "n 3 h w"] | None = None,
    cache: Cache | None = None,
    told: Callable[[InputPicture], None] | None = None,
) -> Events[Swapped]:
    """Invert the source and swap, with the concepts applied to the model.

    photos: of the concept; the search compares candidates with them, and refining takes its looks
    from them. Without them the model draws the concept. cache: of inversions and features; None
    keeps nothing. told: is given the source with the mask of the old subjects, before the swap.
    """
    check_read(model, settings.guidance, settings.negative)
    check_appearance(model, settings)
    check_background(model, settings)
    room = settings.features if cache is not None else 0
    parts = partial(parts_read, settings)
    source = located(model, source, subjects, settings)
    if told is not None:
        told(source)
    with applied(model, *subjects.concepts):
        found = yield from inverted(model, source, asked, cache=cache, parts=parts, room=room)
        made = yield from replaced(model, found, source, subjects, settings, photos)
    return made


@no_grad()
def located(
    model: DiffusionModel, source: InputPicture, subjects: SwapSubjects, settings: SwapSettings
) -> InputPicture:
    """The source with the mask of the subjects that are replaced. Call it before the concepts are
    applied: learning a subject changes what its class word attends to."""
    if source.picture is None or not settings.blend or settings.where != "subject":
        return source
    where = old_subject(model, source.picture, source.prompt, subjects.replacements)
    return replace(source, subject=where)


def replaced(
    model: DiffusionModel,
    found: Inverted,
    source: InputPicture,
    subjects: SwapSubjects,
    settings: SwapSettings,
    photos: Float[Tensor, "n 3 h w"] | None = None,
) -> Events[Swapped]:
    """Swap in an inverted source. The concepts must be applied; the rest is as in `swapped`."""
    shown = None
    reads = appearance_count(settings) > 0 and source.picture is not None
    if reads and len(subjects.replacements) == 1:
        photos = drawn_of(model, settings, subjects) if photos is None else photos
        shown = appearance_of(model, photos, subjects.replacements[0].phrase)
    search = scorer_of(model, settings, source, subjects, photos) if settings.budget else None
    steps = swap_steps(
        model,
        found.source(source.picture, source.subject),
        subjects.wanted(source.mask),
        settings,
        search=search,
        appearance=shown,
    )
    last = yield from watched(
        steps, "Swapping", kept=lambda: found.kept, picture=lambda step: decoded(model, step.clean)
    )
    picture = decoded(model, last.target)
    whole = found.source(source.picture, source.subject)
    target = subjects.wanted(source.mask)
    picture = framed(
        model, whole, picture, last, settings, source.mask, (target,),
        agree=source.frame is not None,
    ).cpu()  # fmt: skip
    scored = search is not None
    return Swapped(picture, scored, taken(last, settings) if scored else None, found)


def taken(last: SwapStep, settings: SwapSettings) -> dict[str, int | str]:
    """The step counts and the noise seed of the candidate that was taken.

    began_with: the picture from which its last steps were repeated: "swap", "photo", or "layout"
    (drawn on the photo's layout); left out where none were.
    """
    found, begun = candidates(settings), last.begun[:1]
    one = found[last.targets[0] % len(found)]
    plan = layout_plan(settings) if "layout" in begun else one.plan
    ends = (plan.self_output, plan.self_map, plan.cross_map)
    counts = dict(zip(COUNTS, (len(steps) for steps in ends), strict=True))
    return {**counts, "noise_seed": one.seed, **({"began_with": begun[0]} if begun else {})}
