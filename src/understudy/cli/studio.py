"""`understudy studio`: all tasks in a local web application."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli import show
from understudy.errors import ExtraMissing, InputError

if TYPE_CHECKING:
    from understudy.studio.config import Config


def studio(
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)
    ] = 8400,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for the network, "
            "with a token."
        ),
    ] = "127.0.0.1",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of jobs, uploads, results and concepts.",
            show_default="UNDERSTUDY_DATA, or ~/.local/share/understudy",
        ),
    ] = None,
    models: Annotated[
        list[Path], typer.Option(help="Folder with models or generators; may be repeated.")
    ] = [],  # noqa: B006
    concepts: Annotated[
        list[Path], typer.Option(help="Folder of further concepts; may be repeated.")
    ] = [],  # noqa: B006
    devices: Annotated[
        str, typer.Option(help="Devices, separated by commas; each runs one job at a time.")
    ] = "auto",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token; UNDERSTUDY_TOKEN gives the token itself. Without either, "
            "one is made if --host is not this machine only."
        ),
    ] = None,
) -> None:
    """Serve the studio: learn, swap, edit, drag and generate in the browser, until Ctrl-C.

    Jobs run in separate processes and do not depend on an open page. After a restart of the
    server or the machine they continue. The HTTP API is described at /docs.
    """
    try:
        from understudy.studio.server import serve
    except ImportError as error:
        raise ExtraMissing("studio", "understudy studio") from error
    from understudy.studio.config import Config, data_folder

    for folder in (*models, *concepts):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder. Check the path.")
    config = Config(
        data=(data or data_folder()).resolve(),
        host=host.lower(),
        port=port,
        token=_token(token_file),
        models=tuple(folder.resolve() for folder in models),
        concepts=tuple(folder.resolve() for folder in _with_own(concepts)),
        devices=tuple(part.strip() for part in devices.split(",") if part.strip()) or ("auto",),
    )
    serve(config, partial(_announce, config))


def _announce(config: Config, address: str) -> None:
    """The pages name no folder of this machine, so the terminal does."""
    lines = [f"{address}  (Ctrl-C stops the studio; no job is lost)"]
    if config.host in ("0.0.0.0", "::"):
        lines.append("other machines: this machine's name or address in place of the one above")
    lines.append(f"models and checkpoint files go into {config.data / 'models'}")
    show.result({}, False, *lines)


def _with_own(concepts: list[Path]) -> list[Path]:
    """The folders given, and concepts/ of the working folder, where `understudy learn` writes."""
    return [*concepts, Path("concepts")]


def _token(file: Path | None) -> str:
    """The token of a file or of the environment; "" without."""
    if file is None:
        return os.environ.get("UNDERSTUDY_TOKEN", "").strip()
    from understudy.files.reading import read_bytes

    return read_bytes(file, most=4096).decode("utf-8", errors="replace").strip()
