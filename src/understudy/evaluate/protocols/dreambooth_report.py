"""Reports of the DreamBooth protocol: tables beside the papers', orderings, and sheets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import InputError
from understudy.evaluate.dreambench import BenchSubject
from understudy.evaluate.protocols.dreambooth import CLASS_SECONDS, PLAIN, REAL, SECONDS
from understudy.evaluate.protocols.published import LOWER, MEASURES, beside, orders, own
from understudy.evaluate.report import Report, Sheet, Table, whiskers
from understudy.evaluate.results import (
    ResultsFolder,
    Row,
    latest,
    number,
    picture_file,
    read_rows,
    require,
)
from understudy.evaluate.statistics import Estimate, estimate
from understudy.pictures.photo import Pixels
from understudy.pictures.sheet import Row as SheetRow
from understudy.pictures.sheet import Tile, contact_sheet
from understudy.pictures.tensors import read_picture, to_pixels

WIDEST = 8  # pictures in a line of a subject's sheet
SIDE = 128  # pixels of each


def summed(run: ResultsFolder, notes: Sequence[str] = ()) -> Report:
    """Every measure of all rows so far, the papers' tables beside ours, and their orders in ours.

    Raises InputError where `run` holds something else.
    """
    said, rows = _read(run)
    good = [row for row in rows if "error" not in row]
    methods = [name for name in said["methods"] if any(r["method"] == name for r in good)]
    columns = _columns(said, good)
    estimates = {(c, m): _estimate(good, m, c) for c in columns for m in methods}

    def found(column: str, method: str) -> Estimate:
        nothing = Estimate(math.nan, math.nan, math.nan, 0, 0)
        return estimates.get((column, method), nothing)

    asked = dict.fromkeys(name for measure in MEASURES if (name := own(measure, columns)))
    lower = [name for measure in LOWER if (name := own(measure, columns))]
    rest = [name for name in columns if name not in asked]
    tables = [
        _table(f"Every way of learning ({', '.join(lower)}: lower is better)", asked, found,
               methods, good),
        *beside(columns, methods, found),
    ]  # fmt: skip
    compared = orders(good)
    tables += [compared] if compared else []
    tables += [_table("What else was measured", rest, found, methods, good)] if rest else []
    errors = [f"{r['method']} {r['case']}: {r['error']}" for r in rows if "error" in r]
    count = len({r["subject"] for r in good})
    return Report(
        title="DreamBooth protocol",
        intro=f"{count} subjects, {len(good)} rows. Mean and bootstrap 95 % interval; subjects "
        "resampled. The papers' numbers are of other data and other models: orders compare, "
        "numbers do not.",
        tables=tables,
        plots=[whiskers(c, "", {m: found(c, m) for m in methods}) for c in columns],
        sheets=_sheets(run, good, methods, columns[0]),
        warnings=[*notes, *errors],
        conditions=said,
        rows=good,
    )


def subject_sheets(
    run: ResultsFolder, subjects: Sequence[BenchSubject], wanted: Sequence[str] = ()
) -> Iterator[tuple[str, Pixels]]:
    """A page a subject that has rows, by its name: its photos, then a line of pictures a method.

    wanted: the methods to show; all without it.
    """
    said, rows = _read(run)
    for subject in subjects:
        lines = [
            SheetRow(f"photos of {subject.name}", [_tile(file) for file in subject.photos[:WIDEST]])
        ]
        for method in wanted or said["methods"]:
            own = [r for r in rows if (r["method"], r.get("subject")) == (method, subject.name)]
            drawn = sorted((r for r in own if "text" in r), key=lambda r: r["case"])
            files = [picture_file(run.folder, f) for row in drawn for f in row["pictures"]]
            tiles = [_tile(file) for file in files if file.is_file()][:WIDEST]
            lines += [SheetRow(method, tiles)] if tiles else []
        if len(lines) > 1:
            yield subject.name, contact_sheet(lines, side=SIDE)


def _tile(file: Path) -> Tile:
    return Tile(to_pixels(read_picture(file)))


def _read(run: ResultsFolder) -> tuple[dict[str, Any], list[Row]]:
    said = run.read()
    if said.get("protocol") != "DreamBooth":
        raise InputError(f"{run.folder} holds results of another protocol.")
    rows = list(latest(read_rows(run.rows)).values())
    good = [row for row in rows if "error" not in row]
    require(good, ("subject",), run.rows)
    require((row for row in good if "text" in row), ("pictures", "prompt"), run.rows)
    return said, rows


def _columns(said: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """The names of all measures, subject fidelity first."""
    choices: dict[str, Any] = said.get("choices", {})
    names = [name for name in choices if isinstance(choices[name], dict)]
    there = {name for row in rows for name in row}
    drift = sorted(n for n in there if n.startswith(("PRES", "DIV", "class DIV")))
    return [n for n in (*names, *drift, "copy score", SECONDS, CLASS_SECONDS) if n in there]


def _estimate(rows: Sequence[Row], method: str, name: str) -> Estimate:
    """Over a method's rows that have the column; subjects are drawn together."""
    own = [r for r in rows if r["method"] == method and r.get(name) is not None]
    return estimate([number(r, name) for r in own], [r["subject"] for r in own])


def _table(
    title: str, names: Sequence[str] | dict[str, None], found: Any, methods: Sequence[str],
    rows: Sequence[Row],
) -> Table:  # fmt: skip
    """A line a method, with how many of its subjects are done."""
    body = Table.of_estimates(
        title, list(names), {m: [found(c, m) for c in names] for m in methods}
    )
    lines: list[list[str]] = []
    for method, line in zip(methods, body.lines, strict=True):
        last = "photos" if method == REAL else PLAIN
        done = sum(r["method"] == method and r["case"].endswith(f"/{last}") for r in rows)
        lines.append([*line, str(done)])
    return Table(title, [*body.heads, "subjects"], lines)


def _found(row: Row, name: str) -> float:
    """A measure of a row, 0 where it is absent."""
    value = number(row, name)
    return 0.0 if math.isnan(value) else value


def _sheets(
    run: ResultsFolder, rows: Sequence[Row], methods: Sequence[str], name: str
) -> list[Sheet]:
    """Best, median and worst prompt of each method, by subject fidelity."""
    sheets: list[Sheet] = []
    for method in methods:
        own = [r for r in rows if r["method"] == method and "text" in r]
        order = sorted(own, key=lambda r: (-_found(r, name), r["case"]))
        places = sorted({0, len(order) // 2, len(order) - 1}) if order else []
        lines: list[SheetRow] = []
        for place in places:
            row = order[place]
            files = [picture_file(run.folder, f) for f in row["pictures"]]
            tiles = [_tile(file) for file in files if file.is_file()]
            words = f"{row['prompt']}: {name} {_found(row, name):.3f}"
            lines += [SheetRow(words, tiles)] if tiles else []
        if lines:
            sheets.append(Sheet(f"{method}: best, median and worst prompt", lines))
    return sheets
