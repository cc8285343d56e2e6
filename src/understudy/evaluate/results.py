"""One row a case and method, kept as a line of JSON the moment it is done.

A run that is killed goes on where it stopped: what has a row is not made again. A line cut short by
a kill counts as never written. Rows of failures are kept, and tried again. Knows nothing of what
is measured.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.errors import InputError, OutputError, UnderstudyError
from understudy.files import spec
from understudy.files.atomic import replacing, unwritable, write_json
from understudy.files.reading import as_json, parse_json, read_bytes, read_json

Row = dict[str, Any]
MAX_ROWS = 2**30  # bytes of a file of rows
# Every measure is a scalar; a few columns are lists (seeds, pictures).
DECLARED_ROW = spec.Record(
    {"method": spec.Text(400), "case": spec.Text(400)},
    {
        "mark": spec.Text(400),
        "error": spec.Text(),
        "seconds": spec.Number(),
        "subject": spec.Text(400),
        "kind": spec.Text(400),
        "count": spec.Text(400),
        "pair": spec.Number(0, whole=True),
        "seed": spec.Number(0, 2**64, whole=True),
        "text": spec.Text(),
        "prompt": spec.Text(),
        **{name: spec.Text(4096) for name in ("picture", "before", "goal")},
        "pictures": spec.Items(spec.Text(4096), 1, 10_000),
        "seeds": spec.Items(spec.Number(0, 2**64, whole=True), 0, 10_000),
    },
    others=spec.Scalar(),
)
DECLARED_RUN = spec.Record(
    {"methods": spec.Table(spec.Data(), most=10_000)},
    {
        "bench": spec.Data(),
        "protocol": spec.Text(400),
        "choices": spec.Table(spec.Data(), most=10_000),
        "versions": spec.Data(),
        "side": spec.Number(1, 65_536, whole=True),
        "folder": spec.Text(4096),
        "truncation": spec.Number(-100, 100),
    },
    others=spec.Data(),
)


def read_rows(path: Path) -> list[Row]:
    """All whole rows of a file, in the order they were written; none if there is no file.

    A line that is no row of ours counts as never written, like one cut short by a kill. Raises
    InputError for a file that cannot be read.
    """
    if not path.exists():
        return []
    found: list[Row] = []
    text = read_bytes(path, most=MAX_ROWS).decode("utf-8", errors="replace")
    # Not str.splitlines: it also splits at U+0085, U+2028 and U+2029, which JSON keeps.
    for line in text.split("\n"):
        try:
            row = parse_json(line, str(path))
            DECLARED_ROW.check(row, "row")
        except (InputError, spec.Unfit):
            continue
        found.append(row)
    return found


def require(rows: Iterable[Row], columns: Iterable[str], path: Path) -> None:
    """Raise InputError, naming the file and the case, for a row without one of the columns."""
    wanted = tuple(columns)
    for row in rows:
        for name in wanted:
            if name not in row:
                raise InputError(
                    f"{path} has a row without {name!r}: method {spec.shown(row['method'])}, case "
                    f"{spec.shown(row['case'])}. Remove that line and run the evaluation again."
                )


def number(row: Row, name: str) -> float:
    """A measure of a row; NaN where it is absent. Raises InputError where it is no number."""
    value = row.get(name)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"A row has {name} {spec.shown(value)}. Expected a number.")
    return float(value)


def picture_file(folder: Path, name: str) -> Path:
    """The file of a picture that a row names: a path relative to the folder of results.

    Raises InputError for a file outside the folder, where a stranger's rows could name any picture
    of this machine, to be shown in reports and studies.
    """
    file = folder / name
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that the system does not take
        inside = False
    if not inside:
        raise InputError(
            f"{folder / 'rows.jsonl'} names the picture {spec.shown(name)}, which is not in "
            f"{folder}. Remove that line."
        )
    return file


def adopted(folder: Path, file: Path, method: str) -> str:
    """Copy the picture of another program's method into the folder of results, as ours are laid
    out; returns its path there. Rows name no picture outside."""
    name = f"pictures/{method}/{file.name}"
    with replacing(picture_file(folder, name)) as staged:
        shutil.copyfile(file, staged)
    return name


def add_row(path: Path, row: Row) -> None:
    """Append a row, flushed to the disk; numbers that are not finite become null.

    Raises spec.Unfit for a row that `read_rows` would not read: what it measured would be lost.
    """
    plain = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
    }
    DECLARED_ROW.check(plain, "row")
    line = json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error) from error


Key = tuple[str, str]  # method, case


@dataclass(frozen=True)
class RowJob:
    """One row to be made: by which method, of which case, and how.

    mark: what the row depends on beside its names; a row with another mark is made again.
    """

    method: str
    case: str
    make: Callable[[], Row]
    mark: str = ""


@dataclass(frozen=True)
class RowStep:
    """A row that is there now: `index` of `total`; made now, or found."""

    index: int
    total: int
    row: Row
    found: bool


def row_steps(path: Path, jobs: Iterable[RowJob]) -> Iterator[RowStep]:
    """Make each job's row unless the file has it, in order.

    An UnderstudyError becomes a row with that error instead of numbers, and the next job goes on.
    """
    done, wanted = latest(read_rows(path)), list(jobs)
    for index, job in enumerate(wanted):
        row = done.get((job.method, job.case))
        if row is not None and "error" not in row and row.get("mark", "") == job.mark:
            yield RowStep(index, len(wanted), row, True)
            continue
        started = time.monotonic()
        made: Row = {"method": job.method, "case": job.case}
        made |= {"mark": job.mark} if job.mark else {}
        try:
            made |= job.make()
        except UnderstudyError as error:
            made["error"] = " ".join(str(error).split())
        made["seconds"] = round(time.monotonic() - started, 3)
        add_row(path, made)
        yield RowStep(index, len(wanted), made, False)


def latest(rows: Iterable[Row]) -> dict[Key, Row]:
    """The last row of each method and case."""
    return {(row["method"], row["case"]): row for row in rows if {"method", "case"} <= row.keys()}


def sharded(jobs: list[RowJob], shard: str, units: Callable[[RowJob], Any]) -> list[RowJob]:
    """The part "2/4" of the jobs; jobs of one unit (a subject to learn) stay together.

    Raises InputError for a part that has no jobs.
    """
    try:
        part, count = (int(word) for word in shard.split("/"))
    except ValueError:
        part, count = 0, 0
    if not 1 <= part <= count:
        raise InputError(f"--shard must be like 2/4: the second of four parts. Got {shard!r}.")
    order = {unit: k for k, unit in enumerate(dict.fromkeys(units(job) for job in jobs))}
    if jobs and part > len(order):
        raise InputError(
            f"--shard {shard} has nothing to do: the work can be split into {len(order)} parts at "
            f"most, because all rows of a subject are made together."
        )
    return [job for job in jobs if order[units(job)] % count == part - 1]


@dataclass(frozen=True)
class ResultsFolder:
    """A folder of results: run.json says of what and how, rows.jsonl has the rows."""

    folder: Path

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def manifest(self) -> Path:
        return self.folder / "run.json"

    def read(self) -> dict[str, Any]:
        """What run.json says. Raises InputError where there is none, or none of ours."""
        if not self.manifest.exists():
            raise InputError(f"{self.folder} holds no results: no {self.manifest.name}.")
        said = read_json(self.manifest)
        try:
            DECLARED_RUN.check(said, "it")
        except spec.Unfit as problem:
            raise InputError(
                f"{self.manifest} is not the record of an evaluation: {problem}."
            ) from None
        return said

    def begin(self, said: dict[str, Any], *, resume: bool) -> None:
        """Write what is going to be measured, or check that it is the same as before.

        said["methods"] maps names to their settings; new names join. Raises OutputError for
        results that are there without `resume`, InputError for results of something else.
        """
        if not self.manifest.exists():
            self._write(said)
            return
        if not resume:
            raise OutputError(
                f"{self.folder} already has results. Continue with --resume, or use another --out."
            )
        before = self.read()
        for name in said.keys() - {"methods", "versions"}:
            self._same(name, before.get(name), said[name])
        for name in said["methods"].keys() & before["methods"].keys():
            self._same(f"method {name}", before["methods"][name], said["methods"][name])
        self._write({**said, "methods": {**before["methods"], **said["methods"]}})

    def _same(self, name: str, before: Any, now: Any) -> None:
        if as_json(now) != before:
            raise InputError(
                f"{self.folder} was started with another {name}: {_short(before)}, not "
                f"{_short(now)}. Use another --out; the two must not be averaged."
            )

    def _write(self, said: dict[str, Any]) -> None:
        write_json(self.manifest, said)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 160 else text[:157] + "..."
