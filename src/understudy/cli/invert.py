"""`understudy invert`: a photo to what the model can replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli import show, stage
from understudy.cli.options import knobs
from understudy.errors import InputError
from understudy.files import cache_folder, check_writable
from understudy.settings import InvertSettings, RunSettings

SUFFIX = ".inversion.safetensors"


@knobs
def invert(
    photo: Annotated[Path, typer.Argument(help="The photo to invert.")],
    prompt: Annotated[str, typer.Option(help="What the photo shows.")],
    settings: InvertSettings,
    run: RunSettings,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default=f"PHOTO{SUFFIX}")
    ] = None,
    concept: Annotated[list[str], typer.Option(help="Worn while inverting; may be repeated.")] = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Invert a photo, so that a swap can replay it."""
    file = out or Path(photo.stem + SUFFIX)
    if file.suffix != ".safetensors":
        raise InputError(f"--out must end in .safetensors. Got {file.name!r}.")
    check_writable(file)
    opened, _ = stage.open_photo(photo)
    dress = stage.load_concepts(concept)
    from understudy.image import to_tensor
    from understudy.photo import fit

    model = stage.load_model(run)
    picture = to_tensor(fit(opened.pixels, model.picture_size))
    with stage.wearing(model, dress):
        inversion, fidelity = stage.inverted(model, picture, prompt, settings)
    inversion.save(file)
    numbers = {"inversion": str(file), "method": settings.method, "psnr": fidelity}
    show.result(numbers, json, f"{file}   rebuilds the photo at {fidelity:.1f} dB")
