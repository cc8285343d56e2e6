"""Rows that survive a kill at any byte, failures that are kept, and reports of hostile words."""

from __future__ import annotations

import csv
import io
import math
import random
from multiprocessing import get_context
from pathlib import Path

import pytest

import killable
from understudy.errors import InputError, OutputError, PictureError
from understudy.evaluate.report import Report, Table, comma_separated, markdown, page, whiskers
from understudy.evaluate.results import (
    ResultsFolder,
    Row,
    RowJob,
    add_row,
    latest,
    read_rows,
    row_steps,
    sharded,
)
from understudy.evaluate.setup import pick, seed_of, told
from understudy.evaluate.statistics import Estimate, estimate
from understudy.files.spec import Unfit
from understudy.settings import LearnSettings


def jobs(count: int = 8) -> list[RowJob]:
    return [RowJob("m", str(n), lambda n=n: {"score": n / 7, "word": "ü|<"}) for n in range(count)]


def scores(rows: list[Row]) -> list[Row]:
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return sorted(kept, key=lambda row: int(row["case"]))


def test_a_file_cut_anywhere_gives_the_same_rows(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    for _ in row_steps(whole, jobs()):
        pass
    data, wanted = whole.read_bytes(), scores(read_rows(whole))
    for cut in random.Random(0).sample(range(len(data)), 50):
        part = tmp_path / f"{cut}.jsonl"
        part.write_bytes(data[:cut])
        rows = [step.row for step in row_steps(part, jobs())]
        assert scores(rows) == wanted == scores(list(latest(read_rows(part)).values()))


def test_separators_inside_a_row_do_not_split_it(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"method": "m", "case": f"a{code}b", "error": f"{code}c{code}"}
        for code in ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n")
    ]
    for row in rows:
        add_row(tmp_path / "rows.jsonl", row)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "rows.jsonl", list[str]()

    def job(case: str, mark: str = "") -> RowJob:
        def make() -> Row:
            asked.append(case)
            if case == "bad" and len(asked) < 4:
                raise PictureError("it is\nnot there")
            return {"score": math.inf}

        return RowJob("m", case, make, mark)

    first = [step.row for step in row_steps(path, [job("a"), job("bad"), job("b")])]
    assert first[1]["error"] == "it is not there" and asked == ["a", "bad", "b"]
    assert read_rows(path)[0]["score"] is None  # JSON knows no infinity
    steps = list(row_steps(path, [job("a"), job("bad"), job("b")]))
    assert asked == ["a", "bad", "b", "bad"] and [s.found for s in steps] == [True, False, True]
    list(row_steps(path, [job("a", "other"), job("a", "other")]))
    assert asked[4:] == ["a"] or asked[4:] == ["a", "a"]


def test_runs_of_other_settings_are_refused(tmp_path: Path) -> None:
    run = ResultsFolder(tmp_path)
    run.begin({"side": 64, "methods": {"a": {"steps": 1}}}, resume=False)
    run.begin({"side": 64, "methods": {"b": {}}}, resume=True)
    assert set(run.read()["methods"]) == {"a", "b"}
    with pytest.raises(InputError, match="another side: 64, not 128"):
        run.begin({"side": 128, "methods": {}}, resume=True)
    with pytest.raises(InputError, match="another method a"):
        run.begin({"side": 64, "methods": {"a": {"steps": 2}}}, resume=True)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="not the record"):
        run.read()


def test_a_shard_that_has_nothing_to_do_is_refused() -> None:
    with pytest.raises(InputError, match="split into 5 parts at most"):
        sharded(jobs(10), "6/7", lambda job: int(job.case) // 2)


def test_shards_split_units_and_lose_nothing() -> None:
    parts = [sharded(jobs(10), f"{k}/3", lambda job: int(job.case) // 2) for k in (1, 2, 3)]
    assert sorted(int(job.case) for part in parts for job in part) == list(range(10))
    assert [job.case for job in parts[0]] == ["0", "1", "6", "7"]


def test_what_was_told() -> None:
    said = told(["learn.steps=7", "learn.flip=true", "swap.blend=false"])
    assert said == {"learn": {"steps": 7, "flip": True}, "swap": {"blend": False}}
    assert LearnSettings.from_dict(said["learn"]).steps == 7
    shares = told(["swap.refine_steps=0.4", "swap.cross_map_steps=3"])
    assert shares == {"swap": {"refine_steps": 0.4, "cross_map_steps": 3}}
    refused = {
        "learn": "VERB.KNOB=VALUE",
        "lean.steps=1": "one of learn",
        "learn.step=1": "has no 'step'",
        "learn.steps=many": "expected a whole number. Got 'many'",
        "swap.refine_steps=half": "a share like 0.4. Got 'half'",
        "learn.flip=yes": "true or false",
        "learn.steps=0": "at least",
    }
    for word, complaint in refused.items():
        with pytest.raises(InputError, match=complaint):
            told([word])
    assert pick("a, b,a", "abc") == ["a", "b"]
    with pytest.raises(InputError, match="must be among a, b"):
        pick("d", "ab")
    assert seed_of("cat", 3) == seed_of("cat", 3) != seed_of("cat", 4)


HOSTILE = '<script>alert("x")</script> | "q"'


def test_reports_escape_what_they_are_told() -> None:
    found = {HOSTILE: estimate([0.1, 0.2, 0.4]), "b": Estimate(0.5, math.nan, math.nan, 1, 1)}
    table = Table.of_estimates(HOSTILE, [HOSTILE], {name: [e] for name, e in found.items()})
    report = Report(
        title=HOSTILE, intro=HOSTILE, tables=[table], warnings=[HOSTILE + "\n# no heading"],
        plots=[whiskers("m", HOSTILE, found)], conditions={"x": HOSTILE},
        rows=[{"case": HOSTILE, "a": 1.5}, {"case": "2", "b": None}],
    )  # fmt: skip
    html, text = page(report), markdown(report)
    assert "<script" not in html and "&lt;script" in html
    assert "\n# no heading" not in text and table.lines[1] == ["b", "0.500"]
    assert "0.233 [0.100, 0.400]" in text
    lines = list(csv.reader(io.StringIO(comma_separated(report.rows))))
    assert lines == [["case", "a", "b"], [HOSTILE, "1.5", ""], ["2", "", ""]]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write .*rows.jsonl"):
        add_row(tmp_path / "file" / "rows.jsonl", {"method": "m", "case": "1"})


@pytest.mark.parametrize("column", [["a list"], {"a": "table"}])
def test_a_row_that_would_not_be_read_is_not_written(tmp_path: Path, column: object) -> None:
    """It would look measured, and be measured again in every run."""
    with pytest.raises(Unfit, match="words"):
        add_row(tmp_path / "rows.jsonl", {"method": "m", "case": "1", "words": column})
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.slow
def test_killed_fifty_times_the_rows_are_those_of_an_unbroken_run(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the fork server is spoken to through a socket of this machine
    context = get_context("forkserver")
    context.set_forkserver_preload(["killable"])
    whole = context.Process(target=killable.run, args=(tmp_path / "whole",))
    whole.start()
    whole.join()
    rows, kills, luck = tmp_path / "killed" / "rows.jsonl", 0, random.Random(0)
    while kills < 50 or whole.exitcode is None:
        worker = context.Process(target=killable.run, args=(tmp_path / "killed",))
        worker.start()
        # Let it do a row or so, then kill it at any moment; the last one may finish.
        before = rows.stat().st_size if rows.exists() else 0
        while worker.is_alive() and (rows.stat().st_size if rows.exists() else 0) <= before:
            worker.join(0.01)
        worker.join(luck.random() * 0.3)
        if worker.is_alive():
            worker.kill()
            kills += 1
        worker.join()
        assert worker.exitcode in (0, -9)
        if worker.exitcode == 0 and kills < 50:
            pytest.fail(f"finished after {kills} kills")
    killable.run(tmp_path / "killed")

    def told(folder: str) -> dict[tuple[str, str], Row]:
        found = latest(read_rows(tmp_path / folder / "rows.jsonl"))
        return {k: {n: v for n, v in r.items() if n != "seconds"} for k, r in found.items()}

    assert len(told("whole")) == 128 and told("killed") == told("whole")
    made = [(row["method"], row["case"]) for row in read_rows(rows)]
    assert len(made) == len(set(made)) == 128  # no work was done twice
