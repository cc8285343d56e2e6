"""`understudy models`: what can be loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from understudy.cli import show

app = typer.Typer(name="models", help="The models there are.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """The models there are."""


@app.command("list")
def list_models(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what --model takes by name.

    Any diffusers folder or hub id is taken as well.
    """
    from understudy.models.registry import available

    known = available()
    show.result({"models": list(known)}, json, *known)
