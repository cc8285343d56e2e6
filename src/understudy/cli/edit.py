"""`understudy edit`: new words for a photo."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import results, show, stage, wording
from understudy.cli.options import knobs
from understudy.errors import InputError
from understudy.files.atomic import cache_folder
from understudy.settings import METHODS, EditSettings, InvertSettings, RunSettings
from understudy.settings.marks import MarkSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.edit import WordEdits
    from understudy.invert import Inversion
    from understudy.models.interface import DiffusionModel
    from understudy.pictures.photo import Photo
    from understudy.pictures.recipe import Recipe

INVERSIONS = {"p2p": "null-text", "pnp": "ddim", "hiper": "ddim"}  # what suits each method


Method = Annotated[
    str | None,
    typer.Option(
        help="Inversion method.  [default: null-text for p2p, else ddim]", metavar="|".join(METHODS)
    ),
]
Concepts = Annotated[
    list[str],
    typer.Option(help="Concept to apply, by name or folder; use {name} in --to. May be repeated."),
]
Weights = Annotated[
    list[str],
    typer.Option(help="WORD=2.0: factor on the attention to a word of --to. May be repeated."),
]
Windows = Annotated[
    list[str],
    typer.Option(
        help="WORD=0.4 or WORD=0.1:0.4: share of the steps in which it uses the source's attention."
    ),
]
Blended = Annotated[
    str | None, typer.Option(help="WORD or OLD=NEW: limit the change to the region of these words.")
]
Kept = Annotated[list[str], typer.Option(help="With --blend: words whose region must not change.")]
Mask = Annotated[
    Path | None, typer.Option(help="Mask of the same size as the photo; white may change.")
]
Seed = Annotated[
    int | None,
    typer.Option(help="hiper: start from the noise of this seed instead of the photo's."),
]


@knobs
def edit(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    prompt: Annotated[str, typer.Option(help="Prompt that describes the photo.")],
    to: Annotated[list[str], typer.Option(help="Prompt of the result; may be repeated.")],
    settings: EditSettings,
    run: RunSettings,
    provenance: MarkSettings,
    inversion: Method = None,
    concept: Concepts = [],  # noqa: B006
    reweight: Weights = [],  # noqa: B006
    window: Windows = [],  # noqa: B006
    blend: Blended = None,
    keep: Kept = [],  # noqa: B006
    mask: Mask = None,
    seed: Seed = None,
    out: results.OutOption = Path("edited.png"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Edit a photo by text: prompt-to-prompt, plug-and-play, or HiPer.

    The photo is inverted first. The inversion is cached for later edits of the photo.
    """
    outs = files(out, len(to))
    opened, ingredient = stage.open_photo(photo)
    dress = stage.load_concepts(concept)
    check(settings, dress, seed, inversion)
    words = said_of_words(reweight, window, blend, keep)
    from understudy.edit import edit_steps, prepared

    wording.check_edited_words(prompt, to, words, dress.concepts)
    model = stage.load_model(run)
    region, *drawn = stage.open_mask(mask, opened, model.picture_size) if mask else (None,)
    method = "seed" if seed is not None else inversion or INVERSIONS[settings.method]
    with stage.wearing(model, dress):
        prepared(model, prompt, to, settings, words=words, concepts=dress.concepts)
        source = (
            _inverted(model, opened, prompt, method, settings)
            if seed is None
            else _seeded(model, prompt, seed, settings)
        )
        steps = edit_steps(
            model, source, prompt, to, settings, words=words, concepts=dress.concepts, mask=region
        )
        edited = stage.decoded(model, show.last(steps, "Editing").target)
    facts = {"prompt": prompt, "inversion": method}
    facts |= {"reweight": reweight, "window": window, "blend": blend, "keep": keep}
    made_by = partial(
        stage.made_by,
        "edit",
        model,
        (settings, run),
        ingredients=(ingredient, *dress.ingredients, *drawn),
        seed=seed,
    )
    origin = photo if seed is None else None
    for file, target, picture in zip(outs, to, edited.split(1), strict=True):
        recipe = made_by(arguments={**facts, "target_prompt": target})
        _write(file, picture, recipe, provenance, origin)
    shown = [f'{file}   "{target}"' for file, target in zip(outs, to, strict=True)]
    show.result({"pictures": [str(f) for f in outs], "target_prompts": to, **facts}, json, *shown)


def _write(
    file: Path, picture: Tensor, recipe: Recipe, marks: MarkSettings, photo: Path | None
) -> None:
    if photo is None:
        return results.write_generated(file, picture, recipe, marks)
    results.write_edited(file, picture, recipe, marks, photo=photo, keeps_photo=False)


def files(out: Path, count: int) -> list[Path]:
    """The file of each target, writable: --out itself, or numbered where there are several."""
    outs = [out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(1, count + 1)]
    outs = outs if count > 1 else [out]
    for file in outs:
        results.check_place(file)
    return outs


def check(
    settings: EditSettings, dress: stage.Dress, seed: int | None, inversion: str | None
) -> None:
    """Refuse what HiPer lacks, and what only HiPer has, before a model is loaded."""
    if inversion is not None and inversion not in METHODS:
        raise InputError(f"--inversion must be one of {', '.join(METHODS)}. Got {inversion!r}.")
    if settings.method == "hiper" and all(c.tail is None for c in dress.concepts):
        raise InputError(
            "--method hiper edits with a learnt tail. Learn one from the photo with understudy "
            "learn --method hiper, and name it with --concept."
        )
    if seed is not None and settings.method != "hiper":
        raise InputError(f"--seed goes with --method hiper alone. Got {settings.method}.")


def _inverted(
    model: DiffusionModel, photo: Photo, prompt: str, method: str, settings: EditSettings
) -> Inversion:
    from understudy.invert import inversion_steps
    from understudy.pictures.photo import fit
    from understudy.pictures.tensors import to_tensor

    picture = to_tensor(fit(photo.pixels, model.picture_size))
    steps = settings.inversion_steps if settings.method == "pnp" else 0
    given = {"steps": steps or settings.steps, "guidance": settings.guidance, "method": method}
    asked = InvertSettings.filled(given, model.name)
    cache = cache_folder() / "inversions"
    found = show.last(inversion_steps(model, picture, prompt, asked, cache=cache), "Inverting")
    assert found.inversion is not None, "the last step carries the inversion"
    return found.inversion


def _seeded(model: DiffusionModel, prompt: str, seed: int, settings: EditSettings) -> Inversion:
    from understudy.diffusion.sampler import starting_noise
    from understudy.edit.personalised import from_noise

    height, width = (side // model.downscale for side in model.picture_size)
    noise = starting_noise([seed], (model.latent_channels, height, width), like=model)
    return from_noise(model, noise, prompt, steps=settings.steps)


def said_of_words(
    reweight: list[str], window: list[str], blend: str | None, keep: list[str]
) -> WordEdits:
    """The options about words, read. Raises InputError, naming the option."""
    from understudy.edit import WordEdits

    weights = {
        word: _numbers("--reweight", given)[0] for word, given in _pairs("--reweight", reweight)
    }
    windows = {
        word: (ends[0], ends[1]) if len(ends) > 1 else ends[0]
        for word, given in _pairs("--window", window)
        for ends in [_numbers("--window", given)]
    }
    before, _, after = (part.strip() for part in (blend or "").partition("="))
    return WordEdits(
        weights=weights,
        windows=windows,
        blend=(before, after or before) if before else None,
        keep=tuple(keep),
    )


def _pairs(name: str, given: list[str]) -> list[tuple[str, str]]:
    """ "cat=2.0" -> the word and what is said of it."""
    pairs = [(word.strip(), said.strip()) for word, _, said in (g.rpartition("=") for g in given)]
    for (word, said), whole in zip(pairs, given, strict=True):
        if not word or not said:
            raise InputError(f"{name} must be WORD=NUMBER, like cat=0.5. Got {whole!r}.")
    return pairs


def _numbers(name: str, given: str) -> list[float]:
    """ "0.1:0.4" -> [0.1, 0.4]; a weight is one number, a window one or two from 0 to 1."""
    try:
        found = [float(part) for part in given.split(":")]
    except ValueError:
        found = list[float]()
    fits = len(found) == 1 or (name == "--window" and len(found) == 2)
    if name == "--window":
        fits = fits and 0 <= min(found) and found == sorted(found) and max(found) <= 1
    if not fits or not all(abs(number) < 1e6 for number in found):
        wanted = "a share or FROM:TO, from 0 to 1" if name == "--window" else "a number"
        raise InputError(f"{name} wants {wanted} behind the word. Got {given!r}.")
    return found
