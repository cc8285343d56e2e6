"""One row a case: measured once, kept as a line of JSON, summed up in a table.

A run that is killed goes on where it stopped. Rows carry the model's fingerprint: those of another
model are kept in the file and left out of the sum.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from understudy.evaluate.results import Row, add_row, read_rows
from understudy.pictures.photo import Pixels

RESULTS = Path(__file__).parent / "results"


@dataclass
class Rows:
    """The rows of one measurement with one model and one choice of settings."""

    path: Path
    mark: str  # of model and settings

    def read(self) -> list[Row]:
        return [row for row in read_rows(self.path) if row.get("mark") == self.mark]

    def measure(self, cases: Iterable[tuple[str, Callable[[], Row]]]) -> list[Row]:
        """Measure each named case that has no row yet; returns the rows of all, in order."""
        done = {row["case"]: row for row in self.read()}
        rows: list[Row] = []
        for name, measure in cases:
            if name not in done:
                started = time.monotonic()
                row = {"method": self.path.stem, "case": name, "mark": self.mark, **measure()}
                row["seconds"] = round(time.monotonic() - started, 2)
                add_row(self.path, row)
                done[name] = row
                print(f"{self.path.stem} {name} {brief(row)}", flush=True)
            rows.append(done[name])
        return rows


def brief(row: Row) -> str:
    """A row's numbers in one line."""
    numbers = {k: v for k, v in row.items() if isinstance(v, float)}
    return " ".join(f"{name} {value:.3f}" for name, value in numbers.items())


@dataclass(frozen=True)
class Spread:
    """Mean, its standard error, and the extremes of a column."""

    mean: float
    error: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        n, mean = len(values), sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / max(n - 1, 1)
        return cls(mean, math.sqrt(variance / n), min(values), max(values), n)


def spreads(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, Spread]:
    """Each column's spread over the rows that have it as a finite number (true counts 1)."""
    found: dict[str, Spread] = {}
    for column in columns:
        values = [float(row[column]) for row in rows if row.get(column) is not None]
        values = [value for value in values if math.isfinite(value)]
        if values:
            found[column] = Spread.of(values)
    return found


def keep_sheet(file: Path, pixels: Pixels, most: int = 400_000) -> None:
    """Write a sheet as a JPEG of at most so many bytes: by its quality, then by its size."""
    image, stream = Image.fromarray(pixels), io.BytesIO()
    for scale, quality in product((1.0, 0.75, 0.5), (88, 80, 70)):
        stream = io.BytesIO()
        size = (round(image.width * scale), round(image.height * scale))
        image.resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=quality)
        if stream.tell() <= most:
            break
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(stream.getvalue())


def page(
    file: Path, record: Any, intro: Sequence[str], heads: Sequence[str], rows: Iterable[Sequence]
) -> str:
    """Write `file` as JSON, and beside it Markdown: an introduction and a table; returns that."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    cells = [heads, ["---"] * len(heads), *rows]
    lines = [*intro, "", *(f"| {' | '.join(map(str, row))} |" for row in cells)]
    text = "\n".join(lines) + "\n"
    file.with_suffix(".md").write_text(text)
    return text


def report(
    name: str, title: str, conditions: Mapping[str, Any], table: Mapping[str, Spread]
) -> str:
    """Write results/<name>.json and .md; returns the Markdown."""
    numbers = {column: vars(spread) for column, spread in table.items()}
    record = {"conditions": dict(conditions), "table": numbers}
    intro = [f"# {title}", "", ", ".join(f"{k} {v}" for k, v in conditions.items())]
    cells = (
        [column, *(f"{x:.3f}" for x in (s.mean, s.error, s.low, s.high)), s.count]
        for column, s in table.items()
    )
    heads = ("", "mean", "±", "lowest", "highest", "n")
    return page(RESULTS / name, record, intro, heads, cells)
