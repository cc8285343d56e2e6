"""Rows of a table: JSON lines, CSV or Parquet, read one after another."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

from understudy.batch.places import Place
from understudy.errors import ExtraMissing, InputError, UnderstudyError, one_line
from understudy.files.reading import MAX_DEPTH, MAX_JSON, parse_json

SUFFIXES = (".jsonl", ".csv", ".parquet")
AT_ONCE = 1000  # rows of a Parquet file that are in memory
LONGEST = MAX_JSON  # characters of a line, and of a cell
Row = dict[str, Any]


class BadRow(InputError):
    """A row that cannot be read; the rows after it can."""


def rows(table: Place) -> Iterator[Row | BadRow]:
    """The rows of a table, in order; a row that cannot be read as the error that says why.

    Nested columns of CSV and Parquet are named with dots, like settings.swap.steps. Empty cells of
    a CSV file are left out. Raises InputError for a table that cannot be read at all.
    """
    readers = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
    suffix = next((end for end in SUFFIXES if table.name.endswith(end)), None)
    if suffix is None:
        known = ", ".join(SUFFIXES)
        raise InputError(f"A table of jobs must be one of {known}. Got {table.name!r}.")
    yield from readers[suffix](table)


def count(table: Place) -> int:
    """The number of rows, as `rows` yields them."""
    if table.name.endswith(".parquet"):
        with table.opened() as stream, parquet_of(table):
            return int(arrow_parquet().ParquetFile(stream).metadata.num_rows)
    return sum(1 for _ in rows(table))


def nested(row: Row) -> Row:
    """{"settings.swap.steps": 20} -> {"settings": {"swap": {"steps": 20}}}."""
    found: Row = {}
    for name, value in row.items():
        *outer, last = name.split(".")
        if len(outer) > MAX_DEPTH:
            raise BadRow(f"The column {name[:40]!r}... has more than {MAX_DEPTH} dots.")
        inside = found
        for one in outer:
            inside = inside.setdefault(one, {})
            if not isinstance(inside, dict):
                raise BadRow(f"The columns {one!r} and {name!r} exclude each other.")
        inside[last] = value
    return found


def _json_lines(table: Place) -> Iterator[Row | BadRow]:
    with table.opened() as stream, io.TextIOWrapper(stream, "utf-8", errors="replace") as lines:
        for number, line in enumerate(_bounded(lines, table), 1):
            if not line.strip():
                continue
            try:
                body = parse_json(line, f"{table.name}, line {number},")
            except InputError as error:
                yield BadRow(str(error))
                continue
            if isinstance(body, dict):
                yield cast(Row, body)
            else:
                yield BadRow(f"{table.name}, line {number}, must be a JSON object.")


def _csv(table: Place) -> Iterator[Row | BadRow]:
    how: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "replace", "newline": ""}
    with table.opened() as stream, io.TextIOWrapper(stream, **how) as lines:
        for number, cells in enumerate(_records(lines, table), 1):
            if isinstance(cells, BadRow):
                yield cells
                continue
            if None in cells or None in cells.values():
                yield BadRow(
                    f"{table.name}, row {number}, does not have as many cells as the first line."
                )
                continue
            try:
                yield nested({name: _cell(name, text) for name, text in cells.items() if text})
            except BadRow as error:
                yield error


def _records(lines: io.TextIOWrapper, table: Place) -> Iterator[dict[Any, Any] | BadRow]:
    """The rows of a CSV file by the names of its first line, each name once."""
    reader = csv.DictReader(_bounded(lines, table))
    try:
        names = reader.fieldnames or []
    except csv.Error as error:
        raise InputError(f"{table.name} cannot be read as CSV: {error}.") from None
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"The first line of {table.name} must name every column, each once.")
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(f"{table.name}, line {reader.line_num}, cannot be read as CSV: {error}.")


def _bounded(lines: io.TextIOWrapper, table: Place) -> Iterator[str]:
    """The lines of a text file. Raises InputError for one that does not end."""
    while line := lines.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise InputError(f"{table.text} has a line of more than {LONGEST:,} characters.")
        yield line


def _cell(name: str, text: str) -> Any:
    """A cell: JSON where it is a number, a list or a truth value of a job's, else the text.

    Prompts and paths that look like numbers stay text: put them into a column of a template.
    """
    if not name.startswith(("settings.", "inputs.")) and name != "seed":
        return text
    try:
        value = parse_json(text, name)
    except InputError:
        return text
    return value if isinstance(value, int | float | bool | list) else text


def _parquet(table: Place) -> Iterator[Row | BadRow]:
    with table.opened() as stream, parquet_of(table):
        file = arrow_parquet().ParquetFile(stream, pre_buffer=False)
        names = file.schema_arrow.names
        if "" in names or len(set(names)) < len(names):
            raise InputError(f"{table.text} must name every column, each once.")
        for batch in file.iter_batches(batch_size=AT_ONCE, use_threads=False):
            for row in batch.to_pylist():
                try:
                    yield _plain(nested({k: v for k, v in row.items() if v is not None}))
                except BadRow as error:
                    yield error


def _plain(row: Row) -> Row:
    """The row, if it is what JSON can say. Raises BadRow for bytes, dates and other types."""
    try:
        json.dumps(row)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRow(f"A row has a value that is not text, a number or a list: {error}.") from None
    return row


@contextmanager
def parquet_of(table: Place) -> Generator[None]:
    """Whatever pyarrow says about a damaged file, as InputError."""
    try:
        yield
    except UnderstudyError:
        raise
    except (ValueError, OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        said = one_line(str(error))[:300]
        raise InputError(f"{table.text} cannot be read as Parquet: {said}.") from error


def arrow_parquet() -> Any:
    """pyarrow.parquet. Raises ExtraMissing."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ExtraMissing("batch", "Parquet") from error
    return parquet
