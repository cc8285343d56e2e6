"""The DreamBooth data set as its authors publish it: subjects, classes, and 25 prompts for each.

A folder a subject, and prompts_and_classes.txt beside them, whose lists are read, never executed.
The toy world writes a data set of its own in the same form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy import toybox
from understudy.errors import InputError, PictureError
from understudy.evaluate import swapbench
from understudy.files.atomic import replacing
from understudy.files.reading import read_bytes
from understudy.pictures.folders import list_folder
from understudy.pictures.photo import write_pixels

PROMPTS = "prompts_and_classes.txt"
LIVE = ("cat", "dog")  # the classes whose subjects get the live prompts
_CLASS = re.compile(r"^([\w-]+),([^,\n]+)$", re.MULTILINE)
_PROMPT = re.compile(r"""(['"])((?:(?!\1).)*)\1\.format\(""")


@dataclass(frozen=True)
class BenchSubject:
    """A subject: its name, its class noun, its photos, and its prompts with {0} and {1} in them."""

    name: str
    noun: str
    photos: tuple[Path, ...]
    prompts: tuple[str, ...]

    def prompt(self, number: int, phrase: str) -> str:
        """Prompt `number` with a phrase for the subject, like "sks dog", or the bare noun."""
        return " ".join(self.prompts[number].replace("{0} {1}", phrase).split())


@dataclass(frozen=True)
class DataSet:
    """What is there, and notes on what was left out."""

    subjects: tuple[BenchSubject, ...]
    notes: tuple[str, ...]


def read_data_set(folder: Path) -> DataSet:
    """The subjects of a folder, in the order of its list of classes.

    Raises InputError where the list of prompts is missing or cannot be read, or no subject is left.
    A subject that is listed without photos, or has photos and is not listed, becomes a note.
    """
    file = next((f for f in (folder / PROMPTS, folder / "dataset" / PROMPTS) if f.is_file()), None)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Check the path.")
    if file is None:
        raise InputError(
            f"{folder} has no {PROMPTS}, which lists classes and prompts. It comes with the data "
            "set (github.com/google/dreambooth, folder dataset)."
        )
    classes, objects, live = _lists(file)
    subjects: list[BenchSubject] = []
    notes: list[str] = []
    for name, noun in classes.items():
        try:
            photos = list_folder(file.parent / name).files
        except PictureError as error:
            notes.append(f"subject {name} was left out: {error}")
            continue
        subjects.append(BenchSubject(name, noun, photos, live if noun in LIVE else objects))
    for entry in sorted(file.parent.iterdir()):
        if entry.is_dir() and entry.name not in classes and not entry.name.startswith("."):
            notes.append(f"folder {entry.name} was left out: {PROMPTS} does not list it.")
    if not subjects:
        raise InputError(f"{file.parent} has no folder for any of the {len(classes)} subjects.")
    return DataSet(tuple(subjects), tuple(notes))


def _lists(file: Path) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """Classes, object prompts, live prompts."""
    text = read_bytes(file).decode("utf-8", errors="replace").replace("\r\n", "\n")
    head, _, rest = text.partition("Object Prompts")
    objects, found, live = rest.partition("Live Subject Prompts")
    classes = {name: noun.strip() for name, noun in _CLASS.findall(head) if name != "subject_name"}
    lists = [tuple(words for _, words in _PROMPT.findall(part)) for part in (objects, live)]
    if not classes or not found or not all(lists):
        raise InputError(
            f"{file} is not as published: expected 'Classes', 'Object Prompts' and 'Live Subject "
            f"Prompts'. Got {len(classes)} classes, {len(lists[0])} and {len(lists[1])} prompts."
        )
    for words in (*lists[0], *lists[1]):
        if words.count("{0} {1}") != 1:
            raise InputError(f"{file}: the prompt {words!r} has no {{0}} {{1}} for the subject.")
    return classes, lists[0], lists[1]


def write_toy_set(folder: Path, subjects: int, side: int) -> Path:
    """The same form filled with toys that no training knows: four photos each, twelve places."""
    places = [f"a photo of a {{0}} {{1}} {words}" for words in toybox.BACKGROUNDS.values()]
    toys = [swapbench.subject(number) for number in range(subjects)]
    for toy in toys:
        for k, photo in enumerate(toy.photos):
            write_pixels(folder / toy.name / f"{k:02d}.png", toybox.render(photo, side).picture)
    names = [f"{toy.name},{toy.identity.class_name}" for toy in toys]
    with replacing(folder / PROMPTS) as temporary:
        temporary.write_text(_published(names, places), encoding="utf-8")
    return folder


def _published(classes: Sequence[str], prompts: Sequence[str]) -> str:
    lines = "\n".join(f"'{words}'.format(unique_token, class_token)," for words in prompts)
    block = f"prompt_list = [\n{lines}\n]\n"
    listed = "\n".join(classes)
    return (
        f"Classes\n\nsubject_name,class\n{listed}\n\nPrompts\n\n"
        f"Object Prompts\n\n{block}\nLive Subject Prompts\n\n{block}"
    )
