"""`understudy cache` shows, limits and clears the cache; `understudy forget` wipes a subject."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli import show
from understudy.cli.results import JsonOption
from understudy.errors import InputError
from understudy.files import cache
from understudy.files.atomic import cache_folder
from understudy.files.cache import KINDS, Entry
from understudy.files.sizes import parse_age, parse_size, size_text

app = typer.Typer(
    name="cache", help="Show, limit and clear the cache of inversions and models.",
    no_args_is_help=True,
)  # fmt: skip
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Kind = Annotated[
    list[str],
    typer.Option("--kind", help=f"Only this kind: {', '.join(KINDS)}; may be repeated."),
]


@app.callback()
def options() -> None:
    """Show, limit and clear the cache of inversions and models."""


@app.command("show")
def show_cache(
    kind: Kind = [],  # noqa: B006
    entries: Annotated[bool, typer.Option("--entries", help="List every entry.")] = False,
    json: JsonOption = False,
) -> None:
    """Show where the cache is, its size by kind, and its limit."""
    root, found = cache_folder(), _of_kinds(cache.entries(cache_folder()), kind)
    limit, size = cache.limit_of(root), sum(entry.size for entry in found)
    facts: dict[str, Any] = {"folder": str(root), "size": size, "limit": limit}
    facts["kinds"] = {name: _sums([e for e in found if e.kind == name]) for name in _kinds(found)}
    lines = [f"{root}   {size_text(size)} of at most {size_text(limit)}"]
    lines += [
        f"{name:12} {one['entries']:6} entries {size_text(one['size']):>10}   {KINDS.get(name, '')}"
        for name, one in facts["kinds"].items()
    ]
    if entries:
        facts["entries"] = [_facts(entry) for entry in found]
        lines += ["", *map(_line, found)]
    show.result(facts, json, *lines)


@app.command()
def clear(
    kind: Kind = [],  # noqa: B006
    older_than: Annotated[
        str | None, typer.Option(help="Only entries not used for this long, like 30d or 12h.")
    ] = None,
    yes: Yes = False,
    json: JsonOption = False,
) -> None:
    """Remove cached results. They are made again when they are needed.

    Entries that another process uses are left.
    """
    root = cache_folder()
    before = time.time() - (parse_age(older_than, "--older-than") if older_than else -60)
    found = [e for e in _of_kinds(cache.entries(root), kind) if e.used <= before]
    size = size_text(sum(entry.size for entry in found))
    if found and not yes and not typer.confirm(f"Remove {len(found)} entries, {size}?", err=True):
        raise InputError("nothing was removed. Use --yes to remove without confirmation.")
    paths = {entry.path for entry in found}
    gone = cache.clear(root, lambda entry: entry.path in paths and entry.used <= before)
    freed = sum(entry.size for entry in gone.removed)
    facts = {"removed": len(gone.removed), "size": freed, "in_use": len(gone.busy)}
    lines = [f"{len(gone.removed)} entries removed, {size_text(freed)}"]
    if gone.busy:
        lines.append(f"{len(gone.busy)} entries are in use and were not removed")
    show.result(facts, json, *lines)


@app.command()
def limit(
    size: Annotated[
        str | None, typer.Argument(help="Like 20GB; without it the limit is shown.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show or set the size that the cache may take.

    Entries that were not used for the longest time are removed first. The environment variable
    UNDERSTUDY_CACHE_SIZE overrides the limit.
    """
    root = cache_folder()
    if size is not None:
        most = parse_size(size, "SIZE")
        cache.set_limit(root, most)
        cache.hold(root)
    now = cache.limit_of(root)
    if size is not None and now != parse_size(size, "SIZE"):
        show.note(f"the environment variable {cache.VARIABLE} overrides this: {size_text(now)}.")
    show.result({"limit": now}, json, size_text(now))


def forget(
    name: Annotated[str, typer.Argument(help="A concept's name, or its folder.")],
    photos: Annotated[
        list[Path],
        typer.Option(help="Folder of further photos of the subject; may be repeated."),
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed.")] = False,
    yes: Yes = False,
    json: JsonOption = False,
) -> None:
    """Remove a concept and everything that was cached from it and from its photos.

    That is the concept's folder with its checkpoints and previews, and the inversions and attention
    features made with the concept or from photos of its subject. Class images stay while another
    concept uses them. Photos and results are never removed.
    """
    from understudy.jobs.forget import forget as carry_out
    from understudy.jobs.forget import plan

    found = plan(name, photos)
    facts: dict[str, Any] = {
        "concept": None if found.folder is None else str(found.folder),
        "size": found.size,
        "entries": [_facts(entry) for entry in found.entries],
        "shared": [_facts(entry) for entry in found.shared],
        "removed": False,
    }
    lines = [f"{found.folder}   the concept"] if found.folder else []
    lines += [*map(_line, found.entries)]
    lines += [f"{_line(entry)}   kept: other concepts use it" for entry in found.shared]
    if dry_run:
        show.result(facts, json, *lines, f"{size_text(found.size)} would be removed")
        return
    if not yes:
        show.note(*lines)
        if not typer.confirm(f"Remove {size_text(found.size)}?", err=True):
            raise InputError("nothing was removed. Use --yes to remove without confirmation.")
    done = carry_out(found)
    facts |= {"removed": True, "in_use": [_facts(entry) for entry in done.busy], "left": done.left}
    ends = [f"{size_text(found.size)} removed"]
    if done.left:
        ends.append(f"{done.left} other files in {found.folder} were kept")
    if done.busy:
        ends.append(
            f"{len(done.busy)} entries are in use and were kept; run the command again later"
        )
    show.result(facts, json, *lines, *ends)


def _of_kinds(found: list[Entry], wanted: list[str]) -> list[Entry]:
    for kind in wanted:
        if kind not in KINDS:
            raise InputError(f"--kind must be one of {', '.join(KINDS)}. Got {kind!r}.")
    return [entry for entry in found if not wanted or entry.kind in wanted]


def _kinds(found: list[Entry]) -> list[str]:
    return sorted({entry.kind for entry in found})


def _sums(found: list[Entry]) -> dict[str, Any]:
    return {"entries": len(found), "size": sum(entry.size for entry in found)}


def _facts(entry: Entry) -> dict[str, Any]:
    made_from = [f"{one.role} {one.name}" for one in entry.made_from]
    name = f"{entry.kind}/{entry.path.name}"
    return {"entry": name, "size": entry.size, "used": int(entry.used), "made_from": made_from}


def _line(entry: Entry) -> str:
    facts = _facts(entry)
    kind, _, name = facts["entry"].partition("/")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    origins = ", ".join(facts["made_from"]) or "no record"
    return f"{kind}/{name[:12]}   {size_text(entry.size):>9}   used {when}   {origins}"
