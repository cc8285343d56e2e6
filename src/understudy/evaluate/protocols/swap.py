"""SwapBench run and summed up: methods of ours, and PNGs of anybody's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import InputError, PictureError
from understudy.evaluate import swapbench
from understudy.evaluate.methods import METHODS
from understudy.evaluate.recogniser import Recogniser
from understudy.evaluate.report import Report, Sheet, Table, whiskers
from understudy.evaluate.rows import Job, Row, RowStep, Run, latest, read_rows, row_steps, sharded
from understudy.evaluate.stage import Stage
from understudy.evaluate.statistics import Estimate, duel, estimate
from understudy.evaluate.swap_scores import CHOICES, COPIED, MEASURES, Answers, score
from understudy.evaluate.truth import pictures
from understudy.files import replacing
from understudy.image import to_pixels, to_tensor, write_picture
from understudy.photo import Pixels, read_photo, write_pixels
from understudy.recipe import Recipe, ingredient, versions
from understudy.settings_evaluate import CasesSettings, SwapBenchSettings
from understudy.sheet import Row as SheetRow
from understudy.sheet import Tile, contact_sheet

DUELS = ("identity", "background, dB", "overall")  # Photoswap's: subject, background, overall


def evaluation_steps(
    run: Run,
    wish: SwapBenchSettings,
    ruler: Recogniser,
    methods: Sequence[str],
    stage: Stage | None = None,
    outside: Mapping[str, Path] | None = None,
    *,
    resume: bool = False,
) -> Iterator[RowStep]:
    """Answer and score each case by each method, a row at a time, into the folder of `run`.

    outside: name -> folder of PNGs, one a case, named like 003-shape.png, of `wish.side` pixels.
    Raises what `Run.begin` raises; a case that fails is a row with its error.
    """
    theirs = dict(outside or {})
    for name in theirs.keys() & METHODS.keys():
        raise InputError(f"{name!r} is a method of ours. Give the outside one another name.")
    facts = {name: METHODS[name].facts(stage) for name in methods}
    facts |= {name: {"outside": True} for name in theirs}
    run.begin({**conditions(wish), "methods": facts, "versions": versions()}, resume=resume)
    numbers = list(swapbench.cases(wish.size))[: wish.limit or None]
    scores = _Scores(run, ruler, wish.side)
    jobs = [
        scores.outside(name, number, theirs[name])
        if name in theirs
        else scores.ours(name, number, stage)
        for number in numbers
        for name in [*methods, *theirs]
    ]
    jobs = sharded(jobs, wish.shard, lambda job: int(job.case[:3]) // len(swapbench.ORDER))
    return row_steps(run.rows, jobs)


def conditions(wish: CasesSettings) -> dict[str, Any]:
    """What makes two runs the same benchmark."""
    bench = {"name": swapbench.NAME, "version": swapbench.VERSION}
    return {"bench": bench, "size": wish.size, "side": wish.side, "choices": dict(CHOICES)}


class _Scores:
    """Makes jobs; keeps the answers of the last case, which several methods share."""

    def __init__(self, run: Run, ruler: Recogniser, side: int) -> None:
        self.run, self.ruler, self.side = run, ruler, side
        self._last: tuple[int, Answers] | None = None

    def answers(self, number: int) -> Answers:
        if self._last is None or self._last[0] != number:
            found = Answers.of(swapbench.case(number), self.ruler, self.side)
            self._last = (number, found)
        return self._last[1]

    def ours(self, name: str, number: int, stage: Stage | None) -> Job:
        def make() -> Row:
            picture = METHODS[name].make(self.answers(number), stage)
            file = self.run.folder / "pictures" / name / f"{swapbench.case_name(number)}.png"
            said = {"method": name, "case": number, "bench": swapbench.VERSION}
            write_picture(file, picture, Recipe(command="evaluate swap", arguments=said).to_text())
            return self.scored(number, file)

        return Job(name, swapbench.case_name(number), make)

    def outside(self, name: str, number: int, folder: Path) -> Job:
        file = folder / f"{swapbench.case_name(number)}.png"

        def make() -> Row:
            return self.scored(number, file)

        mark = ingredient("result", file).sha256[:16] if file.is_file() else ""
        return Job(name, swapbench.case_name(number), make, mark)

    def scored(self, number: int, file: Path) -> Row:
        """The row of a PNG, ours or anybody's, by what is in the file."""
        opened, answers = read_photo(file), self.answers(number)
        if opened.size != (self.side, self.side):
            height, width = opened.size
            raise PictureError(
                f"{file} has {width} x {height} pixels; wanted {self.side} x {self.side}. It was "
                "not scored; make it anew in that size."
            )
        found = score(to_tensor(opened.pixels), answers, self.ruler)
        facts = {"kind": answers.case.kind, "subject": answers.case.subject.name, "seed": number}
        inside = self.run.folder.resolve() in file.resolve().parents
        shown = file.relative_to(self.run.folder) if inside else file.resolve()
        return {**facts, **found, "picture": str(shown)}


# Given to others


def write_cases(folder: Path, wish: CasesSettings) -> Iterator[RowStep]:
    """Write what a method is given: per case source.png, photos and case.json, and no answer."""
    numbers = list(swapbench.cases(wish.size))[: wish.limit or None]
    for index, number in enumerate(numbers):
        case = swapbench.case(number)
        here, row = folder / case.name, {"method": "given", "case": case.name}
        answers_size = {"side": wish.side, "bench": conditions(wish)["bench"]}
        said = {
            **answers_size, "case": case.name, "prompt": case.prompt, "swap": case.noun,
            "class": case.subject.identity.class_name, "answer": f"{case.name}.png",
        }  # fmt: skip
        drawn = pictures((*case.subject.photos, case.source), wish.side).split(1)
        for k, photo in enumerate(drawn[:-1]):
            write_pixels(here / f"photo-{k}.png", to_pixels(photo))
        write_pixels(here / "source.png", to_pixels(drawn[-1]))
        with replacing(here / "case.json") as temporary:
            temporary.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        yield RowStep(index, len(numbers), row, False)


# Summed up


def summed(run: Run) -> Report:
    """Tables, intervals, duels, plots and sheets of all rows so far."""
    said, rows = run.read(), list(latest(read_rows(run.rows)).values())
    bench = said.get("bench", {})
    if bench != {"name": swapbench.NAME, "version": swapbench.VERSION}:
        raise InputError(
            f"{run.folder} holds results of {bench}, not of {swapbench.NAME} "
            f"{swapbench.VERSION}. Score the pictures again with this version."
        )
    good = [row for row in rows if "error" not in row]
    methods = [name for name in said["methods"] if any(r["method"] == name for r in good)]
    by = {name: {r["case"]: r for r in good if r["method"] == name} for name in methods}
    counts = ", ".join(f"{name} {len(by[name])}" for name in methods)
    return Report(
        title=f"{swapbench.NAME} {swapbench.VERSION}, {said['size']}, {said['side']} pixels",
        intro=f"Mean and bootstrap 95 % interval; toys drawn anew. Cases: {counts}.",
        tables=[_overview(by), *_duels(by), *_kinds(by)],
        plots=[whiskers(m.name, m.says, _column(by, m.name)) for m in MEASURES],
        sheets=_sheets(run, by, int(said["side"])),
        warnings=[
            *_copiers(by),
            *(f"{r['method']} {r['case']}: {r['error']}" for r in rows if "error" in r),
        ],
        conditions={k: v for k, v in said.items()},
        rows=good,
    )


By = Mapping[str, Mapping[str, Row]]  # method -> case -> row


def _column(by: By, name: str) -> dict[str, Estimate]:
    return {
        method: estimate(
            [_number(r, name) for r in rows.values()], [r["subject"] for r in rows.values()]
        )
        for method, rows in by.items()
    }


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return float("nan") if value is None else float(value)


def _overview(by: By) -> Table:
    columns = {m.name: _column(by, m.name) for m in MEASURES}
    heads = [f"{m.name} {'↑' if m.higher else '↓'}" for m in MEASURES]
    return Table.of_estimates(
        "All cases", heads, {k: [columns[m.name][k] for m in MEASURES] for k in by}
    )


def _kinds(by: By) -> list[Table]:
    """Identity and overall, kind by kind."""
    tables: list[Table] = []
    for name in ("identity", "overall"):
        body = {
            method: [
                estimate([_number(r, name) for r in rows.values() if r["kind"] == kind],
                         [r["subject"] for r in rows.values() if r["kind"] == kind])
                for kind in swapbench.KINDS
            ]
            for method, rows in by.items()
        }  # fmt: skip
        tables.append(Table.of_estimates(f"{name}, by kind of case", list(swapbench.KINDS), body))
    return tables


def _duels(by: By) -> list[Table]:
    """Win, tie, lose of each real method against each other, as in Photoswap's table."""
    ours = [name for name in by if name not in ("right-answer", "autoencoder")]
    lines: list[list[str]] = []
    for k, a in enumerate(ours):
        for b in ours[k + 1 :]:
            shared = sorted(by[a].keys() & by[b].keys())
            cells = [a, b]
            for m in (m for name in DUELS for m in MEASURES if m.name == name):
                pairs = [[_number(by[x][case], m.name) for case in shared] for x in (a, b)]
                found = duel(pairs[0], pairs[1], tie=m.tie, higher=m.higher)
                cells.append(" / ".join(f"{share:.0f}" for share in found.shares()))
            lines.append([*cells, str(len(shared))])
    ties = ", ".join(f"{m.name} {m.tie:g}" for m in MEASURES if m.name in DUELS)
    heads = ["one", "other", "subject", "background", "overall", "cases"]
    title = f"Win / tie / lose of the one, % of cases (a tie: within {ties})"
    return [Table(title, heads, lines)] if lines else []


def _copiers(by: By) -> list[str]:
    found = {name: e.mean for name, e in _column(by, "copying").items()}
    return [
        f"{name} looks cut out of the photos: copying {value:.2f} on average (over {COPIED})."
        for name, value in found.items()
        if value > COPIED
    ]


def _sheets(run: Run, by: By, side: int) -> list[Sheet]:
    """Best, median and worst cases of each method, by `overall`."""
    sheets: list[Sheet] = []
    for method, rows in by.items():
        order = sorted(rows.values(), key=lambda r: (-_number(r, "overall"), r["case"]))
        places = dict.fromkeys((0, len(order) // 2, len(order) - 1))
        lines = [
            _line(run, order[k], name, side)
            for k, name in zip(places, ("best", "median", "worst"), strict=False)
        ]
        sheets.append(Sheet(f"{method}: best, median and worst case", lines))
    return sheets


PER_PAGE = 8  # cases


def all_cases(run: Run) -> Iterator[Pixels]:
    """Every case of a run beside every method's picture of it, `PER_PAGE` cases a contact sheet."""
    said, rows = run.read(), list(latest(read_rows(run.rows)).values())
    good = sorted((row for row in rows if "error" not in row), key=lambda row: row["case"])
    methods = [name for name in said["methods"] if name not in ("right-answer", "no-swap")]
    by = {(row["case"], row["method"]): row for row in good}
    names = list(dict.fromkeys(row["case"] for row in good))
    for start in range(0, len(names), PER_PAGE):
        lines: list[SheetRow] = []
        for name in names[start : start + PER_PAGE]:
            case, side = swapbench.case(int(name[:3])), int(said["side"])
            shown = pictures((case.subject.photos[0], case.source, case.right), side).split(1)
            photo, source, right = (to_pixels(one) for one in shown)
            tiles = [Tile(photo, "a photo"), Tile(source, "source")]
            tiles += [
                _tile(run, by[name, method], photo, method)
                for method in methods
                if (name, method) in by
            ]
            heading = f'{name}: "{case.prompt}", swap {case.noun}'
            lines.append(SheetRow(heading, [*tiles, Tile(right, "right answer")]))
        yield contact_sheet(lines, side=192)


def _line(run: Run, row: Row, name: str, side: int) -> SheetRow:
    case = swapbench.case(int(row["seed"]))
    shown = pictures((case.subject.photos[0], case.source, case.right), side).split(1)
    photo, source, right = (to_pixels(one) for one in shown)
    tiles = [Tile(photo, "a photo"), Tile(source, "source"), _tile(run, row, source)]
    return SheetRow(f'{name}: {case.name}, "{case.prompt}"', [*tiles, Tile(right, "right answer")])


def _tile(run: Run, row: Row, empty: Pixels, name: str = "") -> Tile:
    """The row's picture over its scores, `empty` blackened where the file is gone."""
    words = f"{name} id {_number(row, 'identity'):.2f} all {_number(row, 'overall'):.2f}".strip()
    try:
        return Tile(read_photo(run.folder / row["picture"]).pixels, words)
    except PictureError:
        return Tile(0 * empty, "its picture is gone")
