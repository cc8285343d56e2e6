"""Compares swap methods on a benchmark: our methods, and PNGs of other programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import InputError, PictureError
from understudy.evaluate import results, swapbench
from understudy.evaluate.bench import Bench, Measure, side_of
from understudy.evaluate.methods import METHODS
from understudy.evaluate.protocols.published import PHOTOSWAP, RIVAL
from understudy.evaluate.report import Report, Sheet, Table, whiskers
from understudy.evaluate.results import ResultsFolder, Row, RowJob, RowStep
from understudy.evaluate.setup import Setup
from understudy.evaluate.statistics import Estimate, duel, estimate
from understudy.evaluate.toy_bench import BENCH, SIDE
from understudy.evaluate.truth import pictures
from understudy.files.atomic import write_json
from understudy.files.reading import as_json
from understudy.pictures.photo import Pixels, read_photo, write_pixels
from understudy.pictures.recipe import Recipe, ingredient, versions
from understudy.pictures.sheet import Row as SheetRow
from understudy.pictures.sheet import Tile, contact_sheet
from understudy.pictures.tensors import to_pixels, to_tensor, write_picture
from understudy.settings.evaluate import CasesSettings


def evaluation_steps(
    run: ResultsFolder,
    bench: Bench,
    methods: Sequence[str],
    setup: Setup | None = None,
    outside: Mapping[str, Path] | None = None,
    *,
    shard: str = "1/1",
    resume: bool = False,
) -> Iterator[RowStep]:
    """Answer and score each case by each method, a row at a time, into the folder of `run`.

    outside: name -> folder of PNGs, one a case, named like the case, in the size of the bench.
    Raises what `ResultsFolder.begin` raises, and InputError for a method that needs a right answer
    where none is known; a case that fails is a row with its error.
    """
    theirs = dict(outside or {})
    for name in theirs.keys() & METHODS.keys():
        raise InputError(f"{name!r} is a built-in method. Use another name for the outside one.")
    for name in methods:
        if METHODS[name].needs_answer and not bench.knows_answers:
            raise InputError(f"{name} needs right answers, which only SwapBench has. Leave it out.")
    facts = {name: METHODS[name].facts(setup) for name in methods}
    facts |= {name: {"outside": True} for name in theirs}
    run.begin({**bench.conditions, "methods": facts, "versions": versions()}, resume=resume)
    jobs = [
        _outside(run, bench, name, case, theirs[name])
        if name in theirs
        else _ours(run, bench, name, case, setup)
        for case in bench.names
        for name in [*methods, *theirs]
    ]
    return results.row_steps(
        run.rows, results.sharded(jobs, shard, lambda job: bench.subject(job.case))
    )


def _ours(run: ResultsFolder, bench: Bench, name: str, case: str, setup: Setup | None) -> RowJob:
    def make() -> Row:
        given = bench.case(case)
        picture = METHODS[name].make(given, setup)
        file = run.folder / "pictures" / name / f"{case}.png"
        said = {"method": name, "case": case, "bench": bench.conditions["bench"]["version"]}
        recipe = Recipe(command="evaluate swap", arguments=said, seed=given.seed)
        write_picture(file, picture, recipe.to_text())
        return _scored(run, bench, case, file)

    return RowJob(name, case, make)


def _outside(run: ResultsFolder, bench: Bench, name: str, case: str, folder: Path) -> RowJob:
    file = folder / f"{case}.png"

    def make() -> Row:
        found = _scored(run, bench, case, file)
        return {**found, "picture": results.adopted(run.folder, file, name)}

    mark = ingredient("result", file).sha256[:16] if file.is_file() else ""
    return RowJob(name, case, make, mark)


def _scored(run: ResultsFolder, bench: Bench, case: str, file: Path) -> Row:
    """The row of a PNG, ours or anybody's, by what is in the file."""
    opened, wanted = read_photo(file), tuple(bench.case(case).source.shape[-2:])
    if opened.size != wanted:
        (height, width), (tall, wide) = opened.size, wanted
        raise PictureError(
            f"{file} has {width} x {height} pixels; expected {wide} x {tall}. It was not "
            "scored. Make it again at that size."
        )
    found = bench.score(case, to_tensor(opened.pixels))
    return {**found, "picture": f"pictures/{file.parent.name}/{file.name}"}


# Given to others


def write_cases(folder: Path, wish: CasesSettings) -> Iterator[RowStep]:
    """Write what a method is given: per case source.png, photos and case.json, and no answer."""
    numbers = list(swapbench.cases(wish.size))[: wish.limit or None]
    side = side_of(wish.side, SIDE)
    for index, number in enumerate(numbers):
        case = swapbench.case(number)
        here, row = folder / case.name, {"method": "given", "case": case.name}
        said = {
            "side": side, "bench": BENCH, "case": case.name, "prompt": case.prompt,
            "swap": case.noun, "subject": case.subject.name,
            "class": case.subject.identity.class_name, "answer": f"{case.name}.png",
        }  # fmt: skip
        drawn = pictures((*case.subject.photos, case.source), side).split(1)
        for k, photo in enumerate(drawn[:-1]):
            write_pixels(here / f"photo-{k}.png", to_pixels(photo))
        write_pixels(here / "source.png", to_pixels(drawn[-1]))
        write_json(here / "case.json", said)
        yield RowStep(index, len(numbers), row, False)


# Summed up


def summed(run: ResultsFolder, bench: Bench) -> Report:
    """Tables, intervals, duels, plots and sheets of all rows so far."""
    said, good, errors = _read(run, bench)
    methods = [name for name in said["methods"] if any(r["method"] == name for r in good)]
    by = {name: {r["case"]: r for r in good if r["method"] == name} for name in methods}
    counts = ", ".join(f"{name} {len(by[name])}" for name in methods)
    columns = {m.name: _column(by, m.name) for m in bench.measures}
    means = {name: {k: e.mean for k, e in column.items()} for name, column in columns.items()}
    return Report(
        title=bench.title,
        intro=f"Mean and bootstrap 95 % interval; subjects resampled. Cases: {counts}.",
        tables=[_overview(bench, columns, methods), *_duels(bench, by), *_kinds(bench, by)],
        plots=[whiskers(m.name, m.says, columns[m.name]) for m in bench.measures],
        sheets=_sheets(run, bench, by),
        warnings=[*bench.warnings(means), *errors],
        conditions=said,
        rows=good,
    )


def _read(run: ResultsFolder, bench: Bench) -> tuple[dict[str, Any], list[Row], list[str]]:
    """The record of a run of this bench, its rows without error by case, and the errors said."""
    said = run.read()
    for name, now in bench.conditions.items():
        if said.get(name) != as_json(now):
            raise InputError(
                f"{run.folder} holds results of another {name}: {said.get(name)}, not {now}. "
                "Score the pictures again with this version."
            )
    rows = results.latest(results.read_rows(run.rows)).values()
    good = [row for row in rows if "error" not in row and row["case"] in bench.names]
    results.require(good, ("subject", "picture"), run.rows)
    errors = [f"{r['method']} {r['case']}: {r['error']}" for r in rows if "error" in r]
    return said, sorted(good, key=lambda row: bench.names.index(row["case"])), errors


By = Mapping[str, Mapping[str, Row]]  # method -> case -> row


def _column(by: By, name: str) -> dict[str, Estimate]:
    return {method: _estimate(list(rows.values()), name) for method, rows in by.items()}


def _estimate(rows: Sequence[Row], name: str) -> Estimate:
    return estimate([results.number(r, name) for r in rows], [r["subject"] for r in rows])


def _overview(
    bench: Bench, columns: Mapping[str, Mapping[str, Estimate]], methods: Sequence[str]
) -> Table:
    heads = [f"{m.name} {'↑' if m.higher else '↓'}" for m in bench.measures]
    body = {name: [columns[m.name][name] for m in bench.measures] for name in methods}
    return Table.of_estimates("All cases", heads, body)


def _kinds(bench: Bench, by: By) -> list[Table]:
    """What the duels of subject and overall look at, kind by kind, where cases are of kinds."""
    kinds = list(
        dict.fromkeys(r["kind"] for rows in by.values() for r in rows.values() if "kind" in r)
    )
    names = [bench.duels[over] for over in ("subject", "overall") if over in bench.duels]
    tables: list[Table] = []
    for name in names if kinds else []:
        body = {
            method: [
                _estimate([r for r in rows.values() if r["kind"] == kind], name) for kind in kinds
            ]
            for method, rows in by.items()
        }
        tables.append(Table.of_estimates(f"{name}, by kind of case", kinds, body))
    return tables


def _duels(bench: Bench, by: By) -> list[Table]:
    """Win, tie, loss of each real method against each other, as in Photoswap's table; and that."""
    ours = [name for name in by if name not in ("right-answer", "autoencoder")]
    measures = {m.name: m for m in bench.measures}
    deciding = [measures[name] for name in bench.duels.values()]
    pairs = [(a, b) for k, a in enumerate(ours) for b in ours[k + 1 :]]
    lines = [[a, b, *_duel(deciding, by[a], by[b])] for a, b in pairs]
    ties = ", ".join(f"{m.name} {m.tie:g}" for m in deciding)
    heads = [*bench.duels, "cases"]
    title = f"Win / tie / loss of the first method, % of cases (tie: within {ties})"
    tables = [Table(title, ["first", "second", *heads], lines)] if lines else []
    swaps = [name for name in by if name.startswith("photoswap-")]
    if RIVAL in by and swaps and PHOTOSWAP.keys() == bench.duels.keys():
        people = [_shares(PHOTOSWAP[over]) for over in bench.duels]
        lines = [["the paper's Photoswap, people's votes", *people, "-"]]
        lines += [
            [f"{name}, measured here", *_duel(deciding, by[name], by[RIVAL])] for name in swaps
        ]
        title = (
            "Photoswap against prompt-to-prompt, both with DreamBooth: the paper's study and ours"
        )
        tables.append(Table(title, ["win / tie / lose, %", *heads], lines))
    return tables


def _duel(
    deciding: Sequence[Measure], one: Mapping[str, Row], other: Mapping[str, Row]
) -> list[str]:
    """How often one method wins, ties and loses by each measure; of how many cases."""
    shared = sorted(one.keys() & other.keys())
    cells: list[str] = []
    for m in deciding:
        ours, theirs = (
            [results.number(rows[case], m.name) for case in shared] for rows in (one, other)
        )
        cells.append(_shares(duel(ours, theirs, tie=m.tie, higher=m.higher).shares()))
    return [*cells, str(len(shared))]


def _shares(shares: Sequence[float]) -> str:
    return " / ".join(f"{share:.0f}" for share in shares)


def _sheets(run: ResultsFolder, bench: Bench, by: By) -> list[Sheet]:
    """Best, median and worst cases of each method, by what the last duel looks at."""
    deciding = {m.name: m for m in bench.measures}[list(bench.duels.values())[-1]]
    sign = -1 if deciding.higher else 1
    sheets: list[Sheet] = []
    for method, rows in by.items():
        order = sorted(
            rows.values(), key=lambda r: (sign * results.number(r, deciding.name), r["case"])
        )
        places = dict.fromkeys((0, len(order) // 2, len(order) - 1))
        lines: list[SheetRow] = []
        for k, name in zip(places, ("best", "median", "worst"), strict=False):
            case = order[k]["case"]
            lines.append(_line(run, bench, case, {"": order[k]}, f"{name}: {case}"))
        sheets.append(Sheet(f"{method}: best, median and worst case", lines))
    return sheets


PER_PAGE = 8  # cases


def all_cases(run: ResultsFolder, bench: Bench) -> Iterator[Pixels]:
    """Every case beside every method's picture of it, `PER_PAGE` cases a contact sheet."""
    _, good, _ = _read(run, bench)
    by: dict[str, dict[str, Row]] = {}
    for row in good:
        if row["method"] not in ("right-answer", "no-swap"):
            by.setdefault(row["case"], {})[row["method"]] = row
    lines = [_line(run, bench, case, rows, case) for case, rows in by.items()]
    for start in range(0, len(lines), PER_PAGE):
        yield contact_sheet(lines[start : start + PER_PAGE], side=192)


def _line(
    run: ResultsFolder, bench: Bench, case: str, rows: Mapping[str, Row], heading: str
) -> SheetRow:
    """A photo, the source, pictures by their method's name, the right answer where it is known."""
    given = bench.case(case)
    tiles = [Tile(to_pixels(given.photos[:1]), "a photo"), Tile(to_pixels(given.source), "source")]
    tiles += [_tile(run, bench, name, row) for name, row in rows.items()]
    if given.known:
        tiles.append(Tile(to_pixels(given.known.right), "right answer"))
    return SheetRow(f'{heading}, "{given.prompt}", swap {given.noun}', tiles)


def _tile(run: ResultsFolder, bench: Bench, name: str, row: Row) -> Tile:
    """The row's picture over the numbers that the duels look at; black where it is gone."""
    numbers = [f"{results.number(row, measure):.2f}" for measure in bench.duels.values()]
    file = results.picture_file(run.folder, row["picture"])
    try:
        return Tile(read_photo(file).pixels, f"{name} {' '.join(numbers)}")
    except PictureError:
        return Tile(to_pixels(0 * bench.case(row["case"]).source - 1), f"{name}: file missing")
