"""Summaries of drag studies: one line a method, and the first cases as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from understudy.errors import InputError
from understudy.evaluate.gan_scores import drawn_pictures, trunk_features
from understudy.evaluate.protocols.drag import VERSION, Column, DragStudy
from understudy.evaluate.report import Report, Sheet, Table, whiskers, written
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
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.pictures.metrics import frechet_distance
from understudy.pictures.photo import Pixels, read_photo
from understudy.pictures.sheet import Row as SheetRow
from understudy.pictures.sheet import Tile
from understudy.pictures.tensors import to_tensor
from understudy.vision.perceptual import RecogniserFeatures, between
from understudy.vision.recogniser import Recogniser

SHOWN = 6  # cases on a sheet
FACES, FIRST = 500, 9_000_000  # pictures of the generator that no drag begins from; their seeds
By = Mapping[str, Mapping[str, Row]]  # method -> case -> row


def summed(
    run: ResultsFolder, study: DragStudy, generator: StyleGAN2, recogniser: Recogniser
) -> Report:
    """The tables, one a number of points, of all rows so far, of drags of this generator.

    InputError for another study's."""
    said, rows = run.read(), list(latest(read_rows(run.rows)).values())
    if said.get("bench") != {"name": study.title, "version": VERSION}:
        raise InputError(f"{run.folder} holds results of {said.get('bench')}, not {study.title!r}.")
    whole = [row for row in rows if "error" not in row]
    require(whole, ("pair", "count", "picture", "before"), run.rows)
    good = [_whole(run, recogniser, study, row) for row in whole]
    by = {name: {r["case"]: r for r in good if r["method"] == name} for name in said["methods"]}
    by = {name: found for name, found in by.items() if found}
    counts = list(dict.fromkeys(row["count"] for row in good))
    first, faces = study.columns[0], None
    if study.fid:
        drawn = drawn_pictures(generator, range(FIRST, FIRST + FACES), said.get("truncation", 1.0))
        faces = trunk_features(recogniser, drawn)
    return Report(
        title=f"{study.title}, {len({row['pair'] for row in good})} pairs",
        intro=_intro(study, recogniser.name, len({r["case"] for r in rows if "error" in r})),
        tables=[_table(run, recogniser, study, by, count, faces) for count in counts],
        plots=[
            whiskers(f"{first.head}, {count} points", "", _estimates(by, first, count))
            for count in counts
        ],
        sheets=[_sheet(run, study, by, count) for count in counts],
        warnings=[f"{r['method']} {r['case']}: {r['error']}" for r in rows if "error" in r],
        conditions=said,
        rows=good,
    )


def _intro(study: DragStudy, network: str, left_out: int) -> str:
    distance = (
        "Distance: mean distance of the landmarks found afterwards to their targets, in pixels of "
        "128. Left, as tracked: the same, of the handles where the drag believes them to be. "
    )
    fid = (
        f"FID in features of the {network}, at equal numbers only: of edited pictures to those "
        f"before, and to {FACES} other faces of the generator. "
    )
    return (
        f"{study.says} {distance}{fid if study.fid else ''}Bootstrap 95 % intervals over pairs; "
        f"seconds of the processor on a CPU, nothing drawn on the way. Left out: {left_out}."
    )


def _whole(run: ResultsFolder, recogniser: Recogniser, study: DragStudy, row: Row) -> Row:
    """The row, with what the ruler says of its picture where the study asks."""
    if not any(column.key == "perceptual" for column in study.columns):
        return row
    ours, theirs = (to_tensor(_pixels(run, row[key])) for key in ("picture", "goal"))
    return {**row, "perceptual": float(between(RecogniserFeatures(recogniser))(ours, theirs))}


def _of(rows: Mapping[str, Row], count: str) -> list[Row]:
    return [row for row in rows.values() if row["count"] == count]


def _estimates(by: By, column: Column, count: str) -> dict[str, Estimate]:
    return {
        name: estimate([number(r, column.key) for r in _of(rows, count) if column.key in r])
        for name, rows in by.items()
    }


def _table(
    run: ResultsFolder,
    recogniser: Recogniser,
    study: DragStudy,
    by: By,
    count: str,
    faces: Tensor | None,
) -> Table:
    columns = [*study.columns, Column("drag_seconds", "seconds ↓"), Column("steps", "steps ↓")]
    cells = {column.head: _estimates(by, column, count) for column in columns}
    fids = ["FID ↓", "FID to faces ↓"] if faces is not None else []
    lines = list[list[str]]()
    for name, rows in by.items():
        found = _of(rows, count)
        line = [name, *(written(one[name]) for one in cells.values())]
        if faces is not None:
            line += _fids(run, recogniser, found, faces) if len(found) > 1 else ["-", "-"]
        line.append(f"{sum(r.get('stop') == 'reached' for r in found)} of {len(found)}")
        lines += [line] if found else []
    heads = ["", *cells, *fids, "reached ↑"]
    return Table(f"{count} point{'' if count == '1' else 's'}", heads, lines)


def _fids(
    run: ResultsFolder, recogniser: Recogniser, rows: Sequence[Row], faces: Tensor
) -> list[str]:
    """Of edited pictures: to those before, and to faces of other seeds."""
    edited, before = (
        trunk_features(recogniser, (to_tensor(read_photo(run.folder / r[k]).pixels) for r in rows))
        for k in ("picture", "before")
    )
    return [f"{max(0.0, frechet_distance(edited, other)):.3f}" for other in (before, faces)]


def _sheet(run: ResultsFolder, study: DragStudy, by: By, count: str) -> Sheet:
    """The first cases, every method beside the other."""
    cases = list(dict.fromkeys(r["case"] for rows in by.values() for r in _of(rows, count)))
    first, lines = study.columns[0], list[SheetRow]()
    for case in cases[:SHOWN]:
        found = {name: rows[case] for name, rows in by.items() if case in rows}
        one = next(iter(found.values()))
        tiles = [Tile(_pixels(run, one["before"]), "before")]
        tiles += [
            Tile(_pixels(run, r["picture"]), f"{name} {number(r, first.key):.2f}")
            for name, r in found.items()
            if study.methods[name].settings is not None
        ]
        if "goal" in one:
            tiles.append(Tile(_pixels(run, one["goal"]), "wanted"))
        lines.append(SheetRow(case, tiles))
    return Sheet(f"{study.title}, {count} points: the first cases", lines)


def _pixels(run: ResultsFolder, name: str) -> Pixels:
    """A picture of a row."""
    return read_photo(picture_file(run.folder, name)).pixels
