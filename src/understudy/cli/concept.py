"""`understudy concept`: shows, exports, imports and removes concepts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli import show
from understudy.cli.loading import load_model
from understudy.cli.options import said
from understudy.cli.results import JsonOption
from understudy.errors import InputError, OutputError
from understudy.files.atomic import check_folder_writable, check_writable
from understudy.jobs.work import MANIFEST, STORE, concept_folder, own_concept_folder
from understudy.settings import RunSettings

if TYPE_CHECKING:
    from understudy.concept import Concept

app = typer.Typer(
    name="concept", help="Show, export, import and remove concepts.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="A concept's name, or its folder.")]
Model = Annotated[
    str | None, typer.Option(help="The model it belongs to.", show_default="as it was learnt on")
]


@app.callback()
def options() -> None:
    """Show, export, import and remove concepts."""


@app.command("show")
def show_concept(name: Name, json: JsonOption = False) -> None:
    """Show a concept: its words, learning method, settings and model."""
    folder = concept_folder(name)
    from understudy.concept import Concept

    concept = Concept.load(folder)
    facts = _facts(concept, folder)
    record = facts["record"]
    width = max(map(len, [*facts, *record]))
    lines = [f"{key:{width}}  {value}" for key, value in facts.items() if key != "record"]
    how = [f"{key:{width}}  {_shown(value)}" for key, value in record.items()]
    show.result(facts, json, *lines, "", *how)


def _shown(value: Any) -> str:
    """A value of a concept's record, as --show-settings prints settings."""
    return ", ".join(map(str, value)) if isinstance(value, list) else said(value)


def _facts(concept: Concept, folder: Path) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in folder.glob("weights-*.safetensors"))
    changed = {name.split(".")[0] for name in concept.tensors}
    return {
        "name": concept.name,
        "folder": str(folder),
        "learnt by": concept.kind,
        "phrases": ", ".join(f"{{{one}}} for {words!r}" for one, words in concept.phrases.items()),
        "model": f"{concept.base_model} ({concept.base_fingerprint[:12]})",
        "changes": ", ".join(sorted(changed)),
        "size": f"{size / 10**6:.1f} MB",
        "record": dict(concept.record),
    }


@app.command()
def export(
    name: Name,
    to: Annotated[
        str,
        typer.Option(
            help="Format: kohya, lora, peft, comfyui, ai-toolkit, bfl, embedding or folder."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="A .safetensors file; a new folder for peft and folder.")
    ],
    rank: Annotated[
        int, typer.Option(help="Rank of the LoRA that approximates a full change.", min=1)
    ] = 32,
    full: Annotated[bool, typer.Option("--full", help="Write float32 instead of float16.")] = False,
    model: Model = None,
    json: JsonOption = False,
) -> None:
    """Write a concept in the format of another program.

    kohya: a LoRA for A1111, Forge, ComfyUI, InvokeAI. lora: one for diffusers. peft: a folder for
    PEFT. Flow models: comfyui, ai-toolkit, and bfl for the code of FLUX's authors. embedding: a
    Textual Inversion. folder: a whole diffusers model.
    """
    (check_folder_writable if to in ("folder", "peft") else check_writable)(out)
    show.replaced(out)
    folder = concept_folder(name)
    from torch import float16, float32

    from understudy.concept import Concept
    from understudy.concept.exchange import export_concept

    concept = Concept.load(folder)
    base = load_model(RunSettings(model=model or concept.base_model, device="cpu"))
    dtype = float32 if full else float16
    done = export_concept(base, concept, out, to, rank=rank, dtype=dtype)
    if done.kept < 1:
        show.note(
            f"a LoRA of rank {rank} keeps {done.kept:.1%} of the learnt change; "
            "a higher --rank keeps more."
        )
    if done.words is not None:
        show.note(f"the learnt words are in {done.words}; readers of the LoRA need both files.")
    facts = {"written": str(done.path), "format": to, "kept": done.kept}
    facts["phrase"] = concept.phrase
    facts |= {} if done.words is None else {"words": str(done.words)}
    show.result(facts, json, f'{done.path}   write "{concept.phrase}" in a prompt')


@app.command("import")
def import_concept(
    source: Annotated[Path, typer.Argument(help="A LoRA or embedding file, or a model folder.")],
    name: Annotated[str | None, typer.Option(help="Name in prompts: {rex}.")] = None,
    class_noun: Annotated[str | None, typer.Option("--class", help="Class noun, like cat.")] = None,
    identifier: Annotated[
        str | None, typer.Option(help="The trigger word it was trained with.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="concepts/NAME")
    ] = None,
    model: Annotated[str, typer.Option(help="The model it was made for.")] = "toybox",
    json: JsonOption = False,
) -> None:
    """Import a LoRA or embedding of kohya, diffusers, PEFT or A1111.

    No code in the file is executed.
    """
    if not source.exists():
        raise InputError(f"There is no file {source}. Check the path.")
    from understudy.concept.exchange import import_concept as take
    from understudy.concept.exchange.exchange import rows_wanted
    from understudy.learn.identifier import spare_words

    rows = rows_wanted(source)
    base = load_model(RunSettings(model=model, device="cpu"))
    words = tuple(spare_words(base, rows)[-rows:]) if rows else ()
    concept = take(
        base, source, name=name, class_noun=class_noun, identifier=identifier, words=words
    )
    folder = out or STORE / concept.name
    if (folder / MANIFEST).exists():
        raise OutputError(f"{folder} holds a concept already. Give another --name or --out.")
    concept.save(folder)
    for line in concept.record.get("left_out", []):
        show.note(f"left out: {line}.")
    facts = {"concept": str(folder), "name": concept.name, "phrase": concept.phrase}
    words_for = f'write {{{concept.name}}} in a prompt; it expands to "{concept.phrase}"'
    show.result(facts, json, f"{folder}   {words_for}")


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove a concept: its weights, checkpoints and previews. Photos are left alone."""
    folder = own_concept_folder(name)
    if not yes and not typer.confirm(f"Remove {folder} and what was learnt?", err=True):
        raise InputError(f"{folder} was not removed. Use --yes to remove it without confirmation.")
    from understudy.concept.folder import remove as wipe

    left = wipe(folder)
    kept = f"   {left} other files in it were kept" if left else ""
    show.result({"removed": str(folder), "left": left}, json, f"{folder} removed{kept}")
