"""`understudy invert`: a photo to what the model can replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show, stage
from understudy.cli.options import knobs
from understudy.errors import InputError
from understudy.files.atomic import cache_folder, check_writable
from understudy.settings import InvertSettings, RunSettings

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.invert.inversion import Inversion
    from understudy.models.interface import DiffusionModel

SUFFIX = ".inversion.safetensors"


@knobs
def invert(
    photo: Annotated[Path, typer.Argument(help="The photo to invert.")],
    prompt: Annotated[str, typer.Option(help="Prompt that describes the photo.")],
    settings: InvertSettings,
    run: RunSettings,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default=f"PHOTO{SUFFIX}")
    ] = None,
    concept: Annotated[
        list[str], typer.Option(help="Concept to apply while inverting; may be repeated.")
    ] = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Invert a photo: find the noise from which the model draws it."""
    file = out or Path(photo.stem + SUFFIX)
    if file.suffix != ".safetensors":
        raise InputError(f"--out must end in .safetensors. Got {file.name!r}.")
    check_writable(file)
    opened, _ = stage.open_photo(photo)
    dress = stage.load_concepts(concept)
    from understudy.invert import inversion_steps
    from understudy.pictures.photo import fit
    from understudy.pictures.tensors import to_tensor

    model = stage.load_model(run)
    picture = to_tensor(fit(opened.pixels, model.picture_size))
    cache = cache_folder() / "inversions"
    with stage.wearing(model, dress):
        steps = inversion_steps(model, picture, prompt, settings, cache=cache)
        inversion = show.last(steps, "Inverting").inversion
    assert inversion is not None, "the last step carries the inversion"
    inversion.save(file)
    quality = _quality(model, picture, inversion)
    numbers = {"inversion": str(file), "method": settings.method, **quality}
    told = ", ".join(f"{name} {value:.1f} dB" for name, value in quality.items())
    show.result(numbers, json, f"{file}   {told}")


def _quality(model: DiffusionModel, picture: Tensor, inversion: Inversion) -> dict[str, float]:
    """PSNR in dB of the photo through the autoencoder alone, and replayed where that is known."""
    from torch import no_grad

    from understudy.pictures.metrics import psnr

    with no_grad():
        known = {"autoencoder": model.encode(picture.to(model.device))}
        if inversion.path is not None:
            known["replayed"] = inversion.path[-1:].to(model.device)
        decoded = {name: model.decode(latents).cpu() for name, latents in known.items()}
    return {name: round(psnr(made, picture).item(), 2) for name, made in decoded.items()}
