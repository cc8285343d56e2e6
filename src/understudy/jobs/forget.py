"""`forget`: a concept is removed together with what was cached from it and from its photos.

Nothing outside the concept's folder and the cache is touched; photos stay. Free of torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from understudy.concept import folder as concept_files
from understudy.errors import ConceptError
from understudy.files import cache
from understudy.files.atomic import cache_folder
from understudy.files.cache import Entry
from understudy.files.origins import Origin
from understudy.files.reading import sha256
from understudy.jobs.work import MANIFEST, own_concept_folder
from understudy.pictures.folders import list_folder

SHARED = "classes"  # pictures of a class that the model drew: they show nothing of the subject


@dataclass(frozen=True)
class Plan:
    """What `forget` removes.

    folder: of the concept; None where only cached data are left of it. entries: of the cache.
    shared: class images that other concepts use as well; only the name is removed from them.
    size: bytes of what is removed.
    """

    name: str
    folder: Path | None
    entries: tuple[Entry, ...]
    shared: tuple[Entry, ...]
    size: int


@dataclass(frozen=True)
class Forgotten:
    """busy: entries that another process uses now. left: files in the concept's folder that were
    not written by learning."""

    busy: tuple[Entry, ...]
    left: int


def plan(name: str, photos: Iterable[Path] = ()) -> Plan:
    """Find a concept, and what was cached from it and from its photos.

    photos: further folders of photos of the subject. Raises ConceptError where nothing is known of
    that name, InputError for a folder that cannot be read.
    """
    folder, problem = None, None
    try:
        folder = own_concept_folder(name)
    except ConceptError as error:
        problem = error
    bare = Path(name).name
    hashes = {sha256(file) for one in photos for file in list_folder(one).files}
    if folder is not None:
        hashes.add(sha256(folder / MANIFEST))
        with suppress(ConceptError):  # a damaged concept can be forgotten, too
            record = concept_files.read_manifest(folder)["record"]
            hashes |= {str(one) for one in record.get("photo_hashes", ())}
    found = [
        e for e in cache.entries(cache_folder()) if any(_of(o, bare, hashes) for o in e.made_from)
    ]
    shared = [e for e in found if e.kind == SHARED and _others(e, bare)]
    entries = tuple(e for e in found if e not in shared)
    if problem is not None and not found:
        raise problem
    size = cache.size_of(folder) if folder else 0
    return Plan(bare, folder, entries, tuple(shared), size + sum(e.size for e in entries))


def forget(wanted: Plan) -> Forgotten:
    """Remove what the plan lists, the concept last. Raises OutputError where the disk refuses."""
    root, paths = cache_folder(), {entry.path for entry in wanted.entries}
    cleared = cache.clear(root, lambda entry: entry.path in paths)
    for entry in wanted.shared:
        cache.disown(entry, lambda origin: origin.name == wanted.name)
    left = concept_files.remove(wanted.folder) if wanted.folder else 0
    return Forgotten(cleared.busy, left)


def _of(origin: Origin, name: str, hashes: Collection[str]) -> bool:
    """Whether a file is the concept or one of its photos."""
    named = origin.role == "concept" and origin.name == name
    return named or (bool(origin.sha256) and origin.sha256 in hashes)


def _others(entry: Entry, name: str) -> bool:
    return any(origin.name != name for origin in entry.made_from)
