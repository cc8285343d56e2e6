"""The job `invert`: finds the noise from which a model draws a photo."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, no_grad

from understudy.concept import applied
from understudy.errors import InputError
from understudy.files.atomic import check_writable
from understudy.invert.inversion import Inversion
from understudy.jobs.events import Events, Result
from understudy.jobs.framing import Wanted
from understudy.jobs.selecting import Selected
from understudy.jobs.source import inversions, inverted, source_of
from understudy.jobs.words import check_plain
from understudy.jobs.work import Work
from understudy.models.interface import DiffusionModel
from understudy.pictures.metrics import psnr
from understudy.settings import InvertSettings, RunSettings
from understudy.settings.inputs import INVERSION, InvertInputs


def invert(
    work: Work,
    settings: InvertSettings,
    run: RunSettings,
    *,
    given: InvertInputs,
) -> Events[Result]:
    """Invert a photo with the concepts applied, and say how well it can be replayed."""
    file = given.out or Path(given.photo.stem + INVERSION)
    if file.suffix != ".safetensors":
        raise InputError(f"--out must end in .safetensors. Got {file.name!r}.")
    check_writable(file)
    work.writes(file)
    check_plain("--prompt", given.prompt)
    check_plain("--negative", settings.negative)
    if settings.negative and settings.method != "null-text":
        raise InputError(
            f"--negative goes with --method null-text, which tunes from it. Got {settings.method}."
        )
    work.photo(given.photo)
    concepts = work.concepts(given.concept)
    with work.model(run) as model:
        source = source_of(work, model, given, Selected(), Wanted(given.region))
        with applied(model, *concepts):
            found = yield from inverted(model, source, settings, cache=inversions(work))
        found.inversion.save(file)
        assert source.picture is not None, "a photo was given"
        quality = _quality(model, source.picture, found.inversion)
    values = {"inversion": str(file), "method": settings.method, **quality}
    ways = {"autoencoder": "autoencoder alone", "replayed": "reconstruction"}
    told = ", ".join(f"{ways[name]} {value:.1f} dB" for name, value in quality.items())
    return Result(values, (f"{file}   PSNR: {told}",), (str(file),))


def _quality(model: DiffusionModel, picture: Tensor, inversion: Inversion) -> dict[str, float]:
    """PSNR in dB of the photo through the autoencoder alone, and replayed where that is known."""
    with no_grad():
        known = {"autoencoder": model.encode(picture.to(model.device))}
        if inversion.path is not None:
            known["replayed"] = inversion.path[-1:].to(model.device)
        decoded = {name: model.decode(latents).cpu() for name, latents in known.items()}
    return {name: round(psnr(made, picture).item(), 2) for name, made in decoded.items()}
