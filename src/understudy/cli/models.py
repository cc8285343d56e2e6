"""`understudy models`: lists, converts and checks models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli import show
from understudy.cli.results import JsonOption

DIFFUSION = (".safetensors", ".ckpt")  # of a diffusion or flow model in a single file

app = typer.Typer(name="models", help="List, convert and check models.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """The models there are."""


@app.command("list")
def list_models(
    folder: Annotated[
        Path | None, typer.Argument(help="List the models in this folder instead.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the names that --model and --generator accept.

    They also accept a diffusers folder, a hub id, or the folder of a generator.
    """
    from understudy.models.registry import available, built_in, generators, models_in

    if folder:
        found = list(models_in(folder))
        told = {f"{kind}s": [str(f) for f, option in found if option == f"--{kind}"]
                for kind in ("model", "generator")}  # fmt: skip
        lines = [f"{place}   ({option})" for place, option in found]
        return show.result(told, json, *(lines or [f"{folder} holds no models."]))
    from understudy.settings.bases import BASES

    known, drawn = available(), generators()
    flows = {
        base.hub_id: {"licence": base.licence, "gated": base.gated, "train_on": base.train_on}
        for base in BASES
    }
    said = {"models": [*known, *flows], "generators": list(drawn), "licences": flows}
    lines = [_flow_line(name, facts) for name, facts in flows.items()]
    ours = [f"{name}   (built in)" if name in built_in() else name for name in known]
    lines += [f"{name}   (built in; --generator)" for name in drawn]
    show.result(said, json, *ours, *lines)


@app.command()
def convert(
    file: Annotated[
        Path,
        typer.Argument(help="StyleGAN: .pkl, .pt. Diffusion and flow models: .safetensors, .ckpt."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="FILE without its ending")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Convert a checkpoint file to a model folder without executing any of it.

    StyleGAN files of NVIDIA (PyTorch or TensorFlow), PTI, StyleGAN-Human and rosinality become
    generator folders; the format is detected. A file of Stable Diffusion (1.x to 3.5), FLUX,
    Chroma, Qwen-Image or Z-Image becomes a diffusers folder; --model also reads the file itself.
    """
    if file.suffix.lower() in DIFFUSION:
        return _convert_diffusion(file, out or file.with_suffix(""), json)
    from understudy.generators.convert import convert as convert_file

    folder = out or (file.with_suffix("") if file.suffix else Path(f"{file}-generator"))
    show.replaced(folder / "generator.json")
    found = convert_file(file, folder)
    told = {"folder": str(folder), **_facts(found)}
    show.result(told, json, f"{folder}   {_line(told)}")


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="A name, folder or checkpoint file.")],
    json: JsonOption = False,
) -> None:
    """Report what a model is and whether it is complete; nothing is written or executed."""
    from understudy.models.registry import find, generator_folder

    folder = generator_folder(model)
    if Path(model).is_file() and Path(model).suffix.lower() not in DIFFUSION:
        from understudy.generators.convert import read_checkpoint

        told = {"model": model, **_facts(read_checkpoint(model))}
    elif (folder / "generator.json").is_file():
        from understudy.generators.convert import check_folder as check_generator

        told = {"model": model, **_facts(check_generator(folder))}
    else:
        from understudy.models.check import check_any

        told = {"model": model, **check_any(find(model), model)}
    show.result(told, json, f"{model}   {_line(told)}")


def _convert_diffusion(file: Path, folder: Path, json: bool) -> None:
    """The folder that --model would make of the file in the cache, where the user wants it."""
    from understudy.files.atomic import check_folder_writable
    from understudy.models.check import check_any
    from understudy.models.registry import find
    from understudy.models.registry import told as told_of
    from understudy.models.write_folder import copy_folder

    check_folder_writable(folder)
    made = find(str(file))
    told = {"folder": str(folder), **check_any(made, str(file))}
    copy_folder(made, folder)
    show.note(*told_of(str(file)))
    show.result(told, json, f"{folder}   {_line(told)}")


def _flow_line(name: str, facts: dict[str, Any]) -> str:
    """A published flow model in a line for people."""
    gated = ", accept it on the hub first" if facts["gated"] else ""
    instead = f"; to learn use {facts['train_on']}" if facts["train_on"] else ""
    return f"{name}   ({facts['licence']}{gated}{instead})"


def _facts(found: Any) -> dict[str, Any]:
    """What there is to say of a generator's checkpoint."""
    facts = {"kind": found.kind, "written_by": found.written_by, "sha256": found.sha256}
    return {**facts, "tensors": len(found.tensors), "config": dict(found.config)}


def _line(told: dict[str, Any]) -> str:
    """The same in a line for people."""
    config: dict[str, Any] = told.get("config", {})
    size = f"{config['img_resolution']} px" if "img_resolution" in config else "complete"
    more = [f"licence: {told['licence']}"] if told.get("licence") else []
    more += [f"to learn use {told['train_on']}"] if told.get("train_on") else []
    return ", ".join([told["kind"], size, *more]) + (
        f", {told['tensors']} tensors, from {told['written_by']}" if "tensors" in told else ""
    )
