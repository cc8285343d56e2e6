"""`understudy verify`: where a picture comes from, and whether it was changed since."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli import show
from understudy.cli.results import JsonOption

if TYPE_CHECKING:
    from understudy.pictures.marks import Marks

TYPES = {
    "trainedAlgorithmicMedia": "drawn by a model",
    "compositeWithTrainedAlgorithmicMedia": "a photo changed by a model",
    "algorithmicMedia": "drawn by a program without a model",
}


def verify(
    picture: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.")],
    json: JsonOption = False,
) -> None:
    """Read the provenance marks of a picture and say whether it was changed.

    Reads the recipe, the IPTC digital source type, the C2PA manifest (with the extra
    'provenance') and the invisible watermark. Exit code 1: the marks show that the picture was
    changed after it was written. A picture without marks has exit code 0; it may still come from
    a model.
    """
    from understudy.pictures.marks import read_marks

    marks = read_marks(picture)
    show.result(_told(marks), json, *_lines(marks))
    if marks.findings:
        raise typer.Exit(1)


def _told(marks: Marks) -> dict[str, Any]:
    import dataclasses

    return {
        "recipe": None if marks.recipe is None else dataclasses.asdict(marks.recipe),
        "digital_source_type": marks.source_type,
        "c2pa": None if marks.signature is None else dataclasses.asdict(marks.signature),
        "watermark": None if marks.number is None else f"{marks.number:08x}",
        "findings": list(marks.findings),
        "verdict": _verdict(marks),
    }


def _lines(marks: Marks) -> list[str]:
    recipe, signature = marks.recipe, marks.signature
    made = "none"
    if recipe is not None:
        on = f" on {recipe.model}" if recipe.model else ""
        version = recipe.versions.get("understudy", "")
        made = f"understudy {recipe.command}{on}, version {version}"
    source = marks.source_type
    kind = "none" if source is None else f"{source} ({TYPES.get(source, 'another kind')})"
    if signature is None:
        c2pa = "not read: install the extra 'provenance' (PNG, JPEG and WebP only)"
    elif signature.state == "valid":
        trust = "on a trust list" if signature.trusted else "signer unknown"
        c2pa = f"valid, signed by {signature.signer} ({trust})"
    else:
        c2pa = signature.state
    return [
        f"recipe: {made}",
        f"digital source type: {kind}",
        f"C2PA manifest: {c2pa}",
        f"watermark: {'none' if marks.number is None else f'{marks.number:08x}'}",
        *(f"finding: {finding}" for finding in marks.findings),
        f"verdict: {_verdict(marks)}",
    ]


def _verdict(marks: Marks) -> str:
    if marks.findings:
        return "changed after it was written"
    if not marks.any:
        return "no marks found"
    if marks.signature is not None and marks.signature.state == "valid":
        return "unchanged since it was signed"
    return "the marks agree; without a C2PA manifest a change cannot be ruled out"
