"""The job `edit`: edits a photo by text, with any of the editing methods.

Invert the photo with the concepts applied (FlowEdit, FlowAlign and instructions need no inversion),
edit, write a picture for each target prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, no_grad

from understudy.concept import Concept, applied, with_strengths
from understudy.diffusion.sampler import starting_noise
from understudy.edit import (
    EditStep,
    WordEdits,
    edit_steps,
    flow_edit_steps,
    instruct_steps,
    prepared,
)
from understudy.edit.edit import UNINVERTED
from understudy.edit.instruct import check_references
from understudy.edit.kv_edit import NO_MASK
from understudy.edit.personalised import from_noise
from understudy.errors import InputError
from understudy.files.cache import Cache
from understudy.invert import Inversion
from understudy.jobs.events import Events, Result, watched
from understudy.jobs.framing import Wanted
from understudy.jobs.results import check_place, recipe_of, write_edited, write_generated
from understudy.jobs.selecting import Selected
from understudy.jobs.source import InputPicture, inversions, inverted, source_of
from understudy.jobs.word_edits import blended_words, said_of_words
from understudy.jobs.words import check_edited_words, check_plain
from understudy.jobs.work import Work, decoded
from understudy.models.interface import DiffusionModel
from understudy.pictures.recipe import Recipe
from understudy.pictures.region import Region, cut
from understudy.pictures.tensors import to_tensor
from understudy.settings import EditSettings, InvertSettings, RunSettings
from understudy.settings.edit import inversion_for
from understudy.settings.inputs import EditInputs
from understudy.settings.marks import MarkSettings
from understudy.transfer.source_target import Target, with_mask


def edit(
    work: Work,
    settings: EditSettings,
    run: RunSettings,
    invert: InvertSettings | None = None,
    marks: MarkSettings | None = None,
    *,
    given: EditInputs,
) -> Events[Result]:
    """Edit a photo by its words; one picture for each target prompt."""
    to, seed = given.to, given.seed
    outs = files(given.out, len(to), work)
    words = said_of_words(given.reweight, given.window, given.preserve)
    targets = tuple(Target(target, blended_words(given.blend)) for target in to)
    work.photo(given.photo)
    concepts = with_strengths(work.concepts(given.concept), to)
    check(settings, concepts, seed, given.reference)
    check_edited_words(work, given.prompt, targets, words, concepts)
    selected = Selected.of(given)
    selected.checked(given.photo if seed is None else None)
    if settings.method == "kv-edit" and not selected:
        raise InputError(NO_MASK)
    asked = invert or inversion_for(settings, run.model)
    check_plain("--negative", settings.negative)
    settings.check_inversion(asked)
    with work.model(run) as model:
        if settings.method == "instruct":
            check_references(model, 1 + len(given.reference))
        references = _references(work, model, given.reference)
        if seed is None:
            # Without a blend an edit may change all of the photo.
            shown = to if given.blend else ()
            wanted = Wanted(given.region, given.prompt, shown, concepts, exact=True)
            source = source_of(work, model, given, selected, wanted)
        else:
            source = _from_seed(work, model, given)
        redrawn, cache = _redrawn(model, source), inversions(work)
        edited = yield from reworded(
            model, source, targets, settings, asked, words=words, concepts=concepts, cache=cache,
            references=references,
        )  # fmt: skip
        method = asked.method if seed is None else "seed"
        method = "none" if settings.method in UNINVERTED else method
        facts = {"prompt": given.prompt, "inversion": method, "reweight": given.reweight}
        facts |= {"window": given.window, "blend": given.blend, "preserve": given.preserve}
        said = {**facts, "cache": edited.found}
        recipe = recipe_of(work, model, settings, run, asked, facts=said, seed=seed)
    _write(outs, to, edited.pictures, source, redrawn, recipe, marks, given.photo)
    written = tuple(map(str, outs))
    shown = tuple(f'{file}   "{target}"' for file, target in zip(outs, to, strict=True))
    values = {"pictures": list(written), "target_prompts": to, **facts}
    return Result(values, shown, written)


def _write(
    outs: list[Path],
    to: list[str],
    pictures: Float[Tensor, "k 3 h w"],
    source: InputPicture,
    redrawn: Float[Tensor, "1 3 h w"] | None,
    recipe: Recipe,
    marks: MarkSettings | None,
    photo: Path,
) -> None:
    """Write a picture for each target, put back into the photo where only a region was edited."""
    for number, (file, target) in enumerate(zip(outs, to, strict=True)):
        arguments = {**recipe.arguments, "target_prompt": target}
        picture = pictures[number : number + 1]
        whole = replace(recipe, arguments=arguments, output=number)
        if source.seed is not None:
            write_generated(file, picture, whole, marks)
            continue
        framed = source.frame is not None
        result = picture if source.frame is None else source.frame.put_back(picture, redrawn)
        write_edited(file, result, whole, marks, photo=photo, keeps_photo=framed)


def _from_seed(work: Work, model: DiffusionModel, given: EditInputs) -> InputPicture:
    """The source of HiPer when it does not start from the photo's own noise."""
    drawn = None
    if given.mask is not None:
        photo, grow = work.photo(given.photo), given.grow_mask or 0
        drawn = work.mask(given.mask, photo, model.picture_size, grow)
    return InputPicture(given.prompt, None, given.seed, drawn)


@dataclass(frozen=True)
class Edited:
    """Edited pictures, one a target prompt; found: what of the source was in the cache."""

    pictures: Float[Tensor, "k 3 h w"]
    found: str


def reworded(
    model: DiffusionModel,
    source: InputPicture,
    targets: Sequence[Target],
    settings: EditSettings,
    asked: InvertSettings,
    *,
    words: WordEdits | None = None,
    concepts: tuple[Concept, ...] = (),
    cache: Cache | None = None,
    references: Sequence[Float[Tensor, "1 3 _ _"]] = (),
) -> Events[Edited]:
    """Invert the source and edit it, with the concepts applied to the model.

    A source with a seed starts from that seed's noise instead of the photo's. cache: of
    inversions; None keeps nothing. references: further pictures of an instruction.
    """
    with applied(model, *concepts):
        # Wrong prompts and words are reported before minutes of inversion.
        prepared(model, source.prompt, targets, settings, words=words, concepts=concepts)
        targets = with_mask(targets, source.mask)
        found, kept = "nothing", ""
        if settings.method in UNINVERTED:
            steps = _uninverted(model, source, targets, settings, concepts, references)
            last = yield from watched(steps, "Editing")
            return Edited(decoded(model, last.target).cpu(), found)
        if source.seed is None:
            made = yield from inverted(model, source, asked, cache=cache)
            inversion, found, kept = made.inversion, made.found, made.kept
        else:
            inversion = _seeded(model, source.prompt, source.seed, settings)
        steps = edit_steps(model, inversion, targets, settings, words=words, concepts=concepts)
        last = yield from watched(
            steps, "Editing", kept=lambda: kept, picture=lambda step: decoded(model, step.target)
        )
        return Edited(decoded(model, last.target).cpu(), found)


def _uninverted(
    model: DiffusionModel,
    source: InputPicture,
    targets: Sequence[Target],
    settings: EditSettings,
    concepts: tuple[Concept, ...],
    references: Sequence[Float[Tensor, "1 3 _ _"]],
) -> Iterator[EditStep]:
    """The steps of FlowEdit, FlowAlign or an instruction, which need no inversion."""
    assert source.picture is not None, "a photo was given"
    with no_grad():
        latents = model.encode(source.picture.to(model.device))
        more = [model.encode(one.to(model.device)) for one in references]
    if settings.method == "instruct":
        return instruct_steps(model, latents, targets, settings, concepts=concepts, references=more)
    return flow_edit_steps(model, latents, source.prompt, targets, settings, concepts=concepts)


def _references(work: Work, model: DiffusionModel, files: Sequence[Path]) -> list[Tensor]:
    """The pictures "1 3 h w" of --reference, each at its own shape and the model's area."""
    found: list[Tensor] = []
    for file in files:
        photo = work.photo(file, "reference")
        height, width = photo.size
        room = model.picture_size[0] * model.picture_size[1]
        scale, step = min(1.0, (room / (height * width)) ** 0.5), getattr(model, "multiple", 1)
        high, wide = (max(step, int(side * scale) // step * step) for side in photo.size)
        found.append(to_tensor(cut(photo.pixels, Region(0, 0, width, height), (high, wide))))
    return found


def files(out: Path, count: int, work: Work) -> list[Path]:
    """The file of each target, writable: --out itself, or numbered where there are several."""
    outs = [out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(1, count + 1)]
    outs = outs if count > 1 else [out]
    for file in outs:
        check_place(file, work)
    return outs


def check(
    settings: EditSettings,
    concepts: tuple[Concept, ...],
    seed: int | None,
    references: Sequence[Path] = (),
) -> None:
    """Refuse what HiPer lacks, and what only HiPer or an instruction has, before a model is
    loaded."""
    if references and settings.method != "instruct":
        raise InputError(f"--reference goes with --method instruct alone. Got {settings.method}.")
    if settings.method == "hiper" and all(c.tail is None for c in concepts):
        raise InputError(
            "--method hiper needs a concept that was learnt from the photo. Make one with "
            "understudy learn --method hiper, and name it with --concept."
        )
    if seed is not None and settings.method != "hiper":
        raise InputError(f"--seed needs --method hiper. Got {settings.method}.")


def _redrawn(model: DiffusionModel, source: InputPicture) -> Float[Tensor, "1 3 h w"] | None:
    """The framed picture as the autoencoder draws it: what an edit without a change would be."""
    if source.frame is None or source.picture is None:
        return None
    return decoded(model, model.encode(source.picture.to(model.device))).cpu()


def _seeded(model: DiffusionModel, prompt: str, seed: int, settings: EditSettings) -> Inversion:
    height, width = (side // model.downscale for side in model.picture_size)
    noise = starting_noise([seed], (model.latent_channels, height, width), like=model)
    return from_noise(model, noise, prompt, steps=settings.steps)
