"""Results of a batch as Parquet files, each written whole: one row a key, never two.

`results/part-00000.parquet` and so on: a data set that pandas, polars, DuckDB and Arrow read by its
folder. Rows are in the order in which they ended; the column `index` has the order of the table.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from understudy.batch.places import Place
from understudy.batch.table import arrow_parquet, parquet_of
from understudy.errors import InputError

TEXTS = ("key", "verb", "status", "error", "error_kind", "values", "recipe", "scores")
LISTS = ("files", "digests")
_PART = re.compile(r"part-([0-9]{5,9})\.parquet")
AT_ONCE = 500  # rows of a part
SECONDS = 30.0  # after which a part is written, however few rows have ended: what a kill can lose


class Results:
    """The results of a batch, in memory until a part is full. One process writes."""

    def __init__(self, folder: Place) -> None:
        self.folder = folder
        self._rows: list[Mapping[str, Any]] = []
        self._written = time.monotonic()
        self._next = 0

    def begin(self) -> set[str]:
        """The keys that are done. Rows that failed are removed: they are tried again."""
        done: set[str] = set()
        for part in self.folder.files(".parquet"):
            number = _PART.fullmatch(part.name)
            if number is None:
                raise InputError(f"{part.text} is not a file of batch results. Move it away.")
            rows = list(read_part(part))
            good = [row for row in rows if row["status"] == "done" and row["key"] not in done]
            if len(good) < len(rows):
                if good:
                    part.write(as_parquet(good))
                else:
                    part.remove()
            done |= {row["key"] for row in good}
            self._next = max(self._next, int(number[1]) + 1)
        return done

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row; write a part where it is time to. Raises OutputError."""
        self._rows.append(row)
        if len(self._rows) >= AT_ONCE or time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory."""
        if self._rows:
            (self.folder / f"part-{self._next:05d}.parquet").write(as_parquet(self._rows))
            self._next += 1
            self._rows = []
        self._written = time.monotonic()


def read_results(folder: Place) -> list[dict[str, Any]]:
    """All results, in the order of the table."""
    found = [row for part in folder.files(".parquet") for row in read_part(part)]
    return sorted(found, key=lambda row: (row["index"], row["key"]))


def read_part(part: Place) -> Iterator[dict[str, Any]]:
    """The rows of a part. Raises InputError for a file that is none of ours."""
    with part.opened() as stream, parquet_of(part):
        # Without Arrow's threads: one that still holds the stream ends a process that exits.
        found = arrow_parquet().ParquetFile(stream, pre_buffer=False).read(use_threads=False)
        for row in found.to_pylist():
            if not {"index", "key", "status"} <= row.keys():
                raise InputError(f"{part.text} is not a file of batch results. Move it away.")
            yield row


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as the bytes of a Parquet file."""
    import pyarrow as arrow

    parquet = arrow_parquet()
    columns = {"index": arrow.array([row["index"] for row in rows], arrow.int64())}
    columns["seed"] = arrow.array([row.get("seed") for row in rows], arrow.int64())
    columns["seconds"] = arrow.array([row.get("seconds", 0.0) for row in rows], arrow.float64())
    for name in TEXTS:
        columns[name] = arrow.array([row.get(name, "") for row in rows], arrow.string())
    for name in LISTS:
        kind = arrow.list_(arrow.string())
        columns[name] = arrow.array([list(row.get(name, ())) for row in rows], kind)
    stream = io.BytesIO()
    parquet.write_table(arrow.table(columns), stream, compression="zstd")
    return stream.getvalue()
