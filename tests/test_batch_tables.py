"""Odd, damaged and hostile tables and results of a batch: refused in one line, row by row."""

from __future__ import annotations

import io
import json
import os
import random
import threading
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pytest
from pyarrow import parquet

from test_batch import prompts
from understudy.batch.places import Place
from understudy.batch.results import Results, as_parquet, read_part
from understudy.batch.table import BadRow, count, rows
from understudy.batch.tasks import Refused, Task, tasks
from understudy.errors import InputError
from understudy.files.reading import MAX_JSON


def parquet_file(file: Path, columns: dict[str, Any]) -> Path:
    parquet.write_table(arrow.Table.from_arrays(list(columns.values()), list(columns)), file)
    return file


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "verb,verb\na,b\n", "every column, each once"),
        ("a.csv", ",verb\na,b\n", "every column, each once"),
        ("a.csv", "x" * 200_000 + ",seed\n1,2\n", "cannot be read as CSV"),
        ("a.jsonl", '{"verb": "' + "x" * MAX_JSON, "a line of more than"),
        ("a.csv", '"' + "x" * MAX_JSON, "a line of more than"),
        ("a.parquet", "PAR1", "cannot be read as Parquet"),
        ("a.parquet", "", "cannot be read as Parquet"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(
    name: str, text: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    place = Place(str(tmp_path / name))
    with pytest.raises(InputError, match=told):
        count(place)
    with pytest.raises(InputError, match=told) as refused:
        list(rows(place))
    assert "\n" not in str(refused.value)


def test_a_table_is_an_ordinary_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("fifo.jsonl", "zero.csv", "folder.jsonl", "none.parquet"):
        with pytest.raises(InputError, match=name):
            list(rows(Place(str(tmp_path / name))))


def test_rows_that_no_job_can_hold_are_refused_one_by_one(tmp_path: Path) -> None:
    good = json.dumps(prompts(1)[0])
    odd = ['{"verb": "\\ud800"}', '{"verb": "generate", "seed": 1' + "0" * 30 + "}", "[" * 99, "1"]
    (tmp_path / "a.jsonl").write_text("\n".join([*odd, good]))
    *bad, task = tasks(rows(Place(str(tmp_path / "a.jsonl"))))
    assert isinstance(task, Task) and all(isinstance(one, Refused) for one in bad)
    (tmp_path / "a.csv").write_text(f"verb,seed\n{'x' * 200_000},1\ngenerate,2\n")
    first, second = rows(Place(str(tmp_path / "a.csv")))
    assert isinstance(first, BadRow) and second == {"verb": "generate", "seed": 2}
    deep = ".".join("a" * 999)
    (tmp_path / "a.csv").write_text(f"{deep},verb\n1,generate\n")
    (row,) = rows(Place(str(tmp_path / "a.csv")))
    assert isinstance(row, BadRow)


def test_parquet_values_that_json_cannot_say_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    for value in (b"\xff", datetime(2026, 1, 1), Decimal("1.5")):
        (row,) = rows(Place(str(parquet_file(file, {"verb": ["generate"], "seed": [value]}))))
        assert isinstance(row, BadRow) and "not text, a number or a list" in str(row)
    twice = arrow.Table.from_arrays([arrow.array(["a"])] * 2, names=["verb", "verb"])
    parquet.write_table(twice, file)
    with pytest.raises(InputError, match="every column, each once"):
        list(rows(Place(str(file))))


def test_damaged_parquet_is_refused_in_one_line(tmp_path: Path) -> None:
    file = parquet_file(tmp_path / "a.parquet", {"verb": ["generate"] * 9, "seed": [*range(9)]})
    data, luck, refused = file.read_bytes(), random.Random(1), 0
    for _ in range(200):
        harmed = bytearray(data)
        for _ in range(luck.choice([1, 4, 30])):
            harmed[luck.randrange(len(harmed))] = luck.randrange(256)
        file.write_bytes(harmed[: luck.choice([None, luck.randrange(len(harmed))])])
        try:
            list(tasks(rows(Place(str(file)))))
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_foreign_files_among_the_results_are_refused(tmp_path: Path) -> None:
    parquet_file(tmp_path / "mine.parquet", {"index": [1]})
    with pytest.raises(InputError, match="not a file of batch results"):
        Results(Place(str(tmp_path))).begin()
    (tmp_path / "mine.parquet").rename(tmp_path / "part-00000.parquet")
    with pytest.raises(InputError, match="not a file of batch results"):
        Results(Place(str(tmp_path))).begin()


def test_parquet_is_read_by_the_thread_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of Arrow that still holds Python's stream aborts a process that ends meanwhile."""
    names = [f"inputs.c{k}" for k in range(20)]
    table = parquet_file(
        tmp_path / "a.parquet", {name: arrow.array([f"{k}" for k in range(2000)]) for name in names}
    )
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(as_parquet([{"index": k, "key": f"k{k}"} for k in range(2000)]))
    readers = set[int]()

    class Watched(io.FileIO):
        def readinto(self, buffer: Any, /) -> int:
            readers.add(threading.get_ident())
            return super().readinto(buffer)

        def read(self, size: int | None = -1, /) -> bytes:
            readers.add(threading.get_ident())
            return super().read(-1 if size is None else size)

    monkeypatch.setattr("builtins.open", Watched)
    assert len(list(rows(Place(str(table))))) == len(list(read_part(Place(str(part))))) == 2000
    assert readers == {threading.get_ident()}
