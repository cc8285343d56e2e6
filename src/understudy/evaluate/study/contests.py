"""Results of an evaluation as comparisons for human raters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from understudy.errors import InputError
from understudy.evaluate import photo_bench, swapbench, truth
from understudy.evaluate.dreambench import read_data_set
from understudy.evaluate.results import ResultsFolder, Row, latest, picture_file, read_rows, require
from understudy.evaluate.setup import pick
from understudy.evaluate.study.questions import Contest
from understudy.pictures.tensors import to_pixels

SWAP_TASKS = ("subject", "background", "overall")
DREAMBOOTH_TASKS = ("subject", "prompt")
CONTROLS = ("right-answer", "autoencoder", "real-images")


def contests(
    folder: Path, methods: str = "", data: Path | None = None
) -> tuple[list[Contest], tuple[str, ...]]:
    """The contests of a folder of results, and the papers' questions for them.

    methods: a comma-separated choice; empty takes all but the controls. data: the data set that the
    DreamBooth protocol ran on, or the folder of cases with photos. It is not taken from the
    results, which may come from a stranger: people would be shown whatever folder they name.
    Raises InputError where there is nothing to compare.
    """
    run = ResultsFolder(folder)
    said, rows = run.read(), latest(read_rows(run.rows))
    there = [name for name in said["methods"] if name not in CONTROLS]
    chosen = pick(methods, said["methods"]) if methods else there
    if len(chosen) < 2:
        raise InputError(f"A study compares two methods or more. {folder} has {', '.join(there)}.")
    good = [row for (method, _), row in rows.items() if method in chosen and "error" not in row]
    if said.get("protocol") == "DreamBooth":
        require((row for row in good if "text" in row), ("subject", "pictures"), run.rows)
        if data is None:
            raise InputError("Give --data, the data set whose photos are to be shown.")
        return _drawn(folder, good, data), DREAMBOOTH_TASKS
    require(good, ("picture",), run.rows)
    side, bench = said.get("side", 0), said.get("bench")
    if not side or not isinstance(bench, dict):
        raise InputError(f"{run.manifest} does not say which bench and side it is of.")
    if bench.get("name") == photo_bench.NAME:
        if data is None:
            was = f" The run was on {said['folder']}." if "folder" in said else ""
            raise InputError(f"Give --data, the folder of cases whose photos are to be shown.{was}")
        return _between_photos(folder, good, data, side), SWAP_TASKS
    require(good, ("seed",), run.rows)
    return _swapped(folder, good, side), SWAP_TASKS


def _by_case(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["case"], []).append(row)
    return {case: some for case, some in sorted(found.items()) if len(some) > 1}


def _swapped(folder: Path, rows: Sequence[Row], side: int) -> list[Contest]:
    made: list[Contest] = []
    for name, some in _by_case(rows).items():
        case = swapbench.case(int(some[0]["seed"]))
        drawn = truth.pictures((*case.subject.photos, case.source, case.right), side).split(1)
        *photos, source, right = (to_pixels(one) for one in drawn)
        results = {row["method"]: picture_file(folder, row["picture"]) for row in some}
        made.append(Contest(name, case.subject.name, tuple(photos), results, right, source))
    return made


def _between_photos(folder: Path, rows: Sequence[Row], cases: Path, side: int) -> list[Contest]:
    """No right answer is known: where one is wanted, a photo of the subject stands for it."""
    known = {case.name: case for case in photo_bench.read_cases(cases)[0]}
    made: list[Contest] = []
    for name, some in _by_case(rows).items():
        if name not in known:
            raise InputError(f"{cases} no longer has the case {name}. Restore it.")
        case, opened = known[name], known[name].opened((side, side))
        results = {row["method"]: picture_file(folder, row["picture"]) for row in some}
        photos = tuple(to_pixels(one) for one in opened.photos.split(1))
        source = to_pixels(opened.source)
        made.append(Contest(name, case.subject, photos, results, photos[0], source))
    return made


def _drawn(folder: Path, rows: Sequence[Row], data: Path) -> list[Contest]:
    """One picture of each method a prompt: the first, which has the same seed for all."""
    subjects = {subject.name: subject for subject in read_data_set(data).subjects}
    made: list[Contest] = []
    for name, some in _by_case([row for row in rows if "text" in row]).items():
        subject = subjects.get(some[0]["subject"])
        if subject is None:
            raise InputError(f"{data} has no photos of {some[0]['subject']}. Give the same --data.")
        results = {row["method"]: picture_file(folder, row["pictures"][0]) for row in some}
        text = some[0]["text"]
        made.append(
            Contest(name, subject.name, subject.photos, results, subject.photos[0], None, text)
        )
    return made
