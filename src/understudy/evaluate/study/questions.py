"""Questions of a study: pairs of methods, sides at random, one sheet a rater.

A study is a folder: study.json, which says which method is which and is never served, and
pictures under names that say nothing, written again so that no recipe travels with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from understudy.errors import InputError, OutputError
from understudy.files import spec
from understudy.files.atomic import write_json
from understudy.files.reading import read_json
from understudy.pictures.photo import Pixels, read_photo, write_pixels
from understudy.settings.evaluate import StudySettings

FORMAT = 1
MANIFEST = "study.json"
ASKED = {  # DreamBooth's own two questions; Photoswap names its three without printing them
    "subject": "Which of the two images best reproduces the identity (e.g. item type and details) "
    "of the reference item?",
    "prompt": "Which of the two images is best described by the reference text?",
    "background": "Which of the two images keeps the background of the original image better?",
    "overall": "The reference item should take the place of the one in the original image. Which "
    "of the two images does that better overall?",
}
_PICTURE = spec.Text(pattern=r"[0-9a-f]{20}\.png")
_QUESTION = spec.Record(
    {
        "id": spec.Text(pattern="[0-9a-f]{12}"),
        "kind": spec.Text(choices=("ask", "repeat", "catch")),
        "task": spec.Text(choices=tuple(ASKED)),
        "case": spec.Text(400),
        "references": spec.Items(_PICTURE, 0, 1_000),
        "source": spec.Text(pattern=r"([0-9a-f]{20}\.png)?"),
        "text": spec.Text(),
        "left": _PICTURE,
        "right": _PICTURE,
        "methods": spec.Record({"left": spec.Text(400), "right": spec.Text(400)}),
    },
    {
        "of": spec.Text(pattern="([0-9a-f]{12})?"),
        "answer": spec.Text(choices=("", "left", "right")),
    },
)
DECLARED = spec.Record(
    {
        "format": spec.Number(FORMAT, FORMAT, whole=True),
        "raters": spec.Number(1, 100_000, whole=True),
        "sheets": spec.Items(spec.Items(_QUESTION, 1, 100_000), 1, 100_000),
    },
    {"settings": spec.Table(spec.Data())},
)


@dataclass(frozen=True)
class Contest:
    """One case as people are shown it: what was asked for, and each method's picture of it.

    good: a picture that answers the case beyond doubt, for catch questions.
    """

    case: str
    subject: str
    references: tuple[Path | Pixels, ...]
    results: Mapping[str, Path | Pixels]
    good: Path | Pixels
    source: Path | Pixels | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One comparison of two pictures.

    kind: "ask", "repeat" (of the question `of`, sides changed), or "catch", whose answer is known.
    left and right are pictures; methods say whose they are, to nobody but us.
    """

    id: str
    kind: str
    task: str
    case: str
    references: tuple[str, ...]
    source: str
    text: str
    left: str
    right: str
    methods: Mapping[str, str]  # side -> method
    of: str = ""
    answer: str = ""

    def shown(self) -> dict[str, Any]:
        """What a rater may know."""
        return {
            "id": self.id, "asked": ASKED[self.task], "references": list(self.references),
            "source": self.source, "text": self.text, "left": self.left, "right": self.right,
        }  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Sheets of questions, each to be answered by `raters` people."""

    sheets: tuple[tuple[Question, ...], ...]
    raters: int

    def question(self, sheet: int, name: str) -> Question | None:
        return next((q for q in self.sheets[sheet] if q.id == name), None)


def make(
    folder: Path, contests: Sequence[Contest], tasks: Sequence[str], settings: StudySettings
) -> Study:
    """Write a study into `folder`. Raises OutputError if there is one, InputError without pairs."""
    if (folder / MANIFEST).exists():
        raise OutputError(f"{folder} already has a study. Use another --out.")
    drawn = np.random.default_rng(settings.seed)
    pool = list(contests)
    order = [pool[i] for i in drawn.permutation(len(pool))][: settings.cases or None]
    shelf = _Shelf(folder, settings.seed)
    asked = [
        _question(shelf, drawn, contest, task, pair)
        for contest in order
        for pair in combinations(sorted(contest.results), 2)
        for task in tasks
    ]
    if not asked:
        raise InputError("A study needs at least one case with results of two methods. Got none.")
    asked = [asked[i] for i in drawn.permutation(len(asked))]
    sheets: list[tuple[Question, ...]] = []
    for first in range(0, len(asked), settings.per_sheet):
        part = asked[first : first + settings.per_sheet]
        part += [_repeat(shelf, part[i]) for i in _some(drawn, len(part), settings.repeats)]
        part += list(_catches(shelf, drawn, order, tasks, settings.catches))
        # A repeat must not follow its question at once: shuffle, then move it to the end.
        mixed = [part[i] for i in drawn.permutation(len(part))]
        sheets.append((*(q for q in mixed if not q.of), *(q for q in mixed if q.of)))
    study = Study(tuple(sheets), settings.raters)
    said: dict[str, Any] = {"format": FORMAT, "raters": settings.raters}
    said["settings"] = settings.to_dict()
    said["sheets"] = [[asdict(question) for question in sheet] for sheet in sheets]
    write_json(folder / MANIFEST, said)
    return study


def read(folder: Path) -> Study:
    """The study of a folder. Raises InputError, naming the file, for anything else."""
    file = folder / MANIFEST
    if not file.exists():
        raise InputError(f"{folder} is not a study: it has no {MANIFEST}.")
    said: Any = read_json(file)
    if isinstance(said, dict) and said.get("format") != FORMAT:
        written = spec.shown(said.get("format"))
        raise InputError(f"{file} is of format {written}; expected {FORMAT}.")
    try:
        DECLARED.check(said, "it")
    except spec.Unfit as problem:
        raise InputError(f"{file} is damaged: {problem}.") from None
    sheets = tuple(tuple(_question_of(q) for q in sheet) for sheet in said["sheets"])
    ids = [question.id for sheet in sheets for question in sheet]
    if len(set(ids)) != len(ids):
        raise InputError(f"{file} is damaged: two questions have the same id.")
    return Study(sheets, said["raters"])


def _question_of(said: dict[str, Any]) -> Question:
    said["references"] = tuple(said["references"])
    return Question(**said)


class _Shelf:
    """Writes pictures under names that say nothing, each once, and hands out ids."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed, self.count = folder / "pictures", seed, 0

    def put(self, picture: Path | Pixels) -> str:
        pixels = read_photo(picture).pixels if isinstance(picture, Path) else picture
        digest = hashlib.sha256(f"{self.seed}{pixels.shape}".encode() + pixels.tobytes())
        name = f"{digest.hexdigest()[:20]}.png"
        if not (self.folder / name).exists():
            write_pixels(self.folder / name, pixels)
        return name

    def id(self) -> str:
        self.count += 1
        return hashlib.sha256(f"{self.seed} question {self.count}".encode()).hexdigest()[:12]


def _question(
    shelf: _Shelf,
    drawn: np.random.Generator,
    contest: Contest,
    task: str,
    pair: tuple[str, str],
    kind: str = "ask",
) -> Question:
    left, right = pair if drawn.random() < 0.5 else pair[::-1]
    prompt = task == "prompt"
    return Question(
        id=shelf.id(), kind=kind, task=task, case=contest.case,
        references=() if prompt else tuple(shelf.put(one) for one in contest.references),
        source="" if contest.source is None or prompt else shelf.put(contest.source),
        text=contest.text if prompt else "",
        left=shelf.put(contest.results[left]), right=shelf.put(contest.results[right]),
        methods={"left": left, "right": right},
    )  # fmt: skip


def _repeat(shelf: _Shelf, asked: Question) -> Question:
    methods = {"left": asked.methods["right"], "right": asked.methods["left"]}
    return replace(
        asked, id=shelf.id(), kind="repeat", of=asked.id, left=asked.right, right=asked.left,
        methods=methods,
    )  # fmt: skip


def _catches(
    shelf: _Shelf,
    drawn: np.random.Generator,
    contests: Sequence[Contest],
    tasks: Sequence[str],
    count: int,
) -> Iterator[Question]:
    """A picture beyond doubt beside one of another subject: who looks can only be right."""
    for _ in range(count):
        contest = contests[int(drawn.integers(len(contests)))]
        others = [c for c in contests if c.subject != contest.subject and c.text != contest.text]
        others = others or [c for c in contests if c.subject != contest.subject]
        if not others:
            return
        wrong = others[int(drawn.integers(len(others)))].good
        task = tasks[int(drawn.integers(len(tasks)))]
        known = replace(contest, results={"good": contest.good, "wrong": wrong})
        found = _question(shelf, drawn, known, task, ("good", "wrong"), "catch")
        yield replace(found, answer="left" if found.methods["left"] == "good" else "right")


def _some(drawn: np.random.Generator, among: int, count: int) -> list[int]:
    return [int(i) for i in drawn.permutation(among)[: min(count, among)]]
