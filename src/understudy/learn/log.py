"""The log of a run: one JSON line per step, strips of previews, one plot.

run/learn.jsonl · run/previews/step-000100.png · run/learn.png
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from understudy.errors import OutputError
from understudy.files import spec
from understudy.files.atomic import replacing, unwritable
from understudy.files.reading import parse_json, read_bytes
from understudy.learn.preview import Preview, PreviewScores, alarms
from understudy.learn.training import TrainStep
from understudy.pictures.photo import write_pixels
from understudy.pictures.sheet import Curve, Row, Tile, chart, contact_sheet
from understudy.pictures.tensors import to_pixels

MAX_LOG = 2**30  # bytes
# One line is a step or a preview: numbers by name, and the alarms of a preview.
DECLARED = spec.Record(
    {"step": spec.Number(0, 1e9, whole=True)},
    {"alarms": spec.Items(spec.Text(2_000), most=1_000)},
    others=spec.Maybe(spec.Number(-1e300, 1e300)),
)


class Log:
    """The log of a run in `folder`; lines after step `since` of an earlier attempt are cut."""

    def __init__(self, folder: Path, since: int = 0) -> None:
        self.folder = folder
        self.file = folder / "learn.jsonl"
        # A resumed run repeats the steps after its checkpoint, so their earlier lines go.
        self.lines = [line for line in read_log(self.file) if line["step"] <= since]
        with replacing(self.file) as staged:
            staged.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def step(self, step: int, taken: TrainStep, seconds: float) -> None:
        """One step's numbers."""
        self._add({"step": step, **asdict(taken), "seconds": round(seconds, 4)})

    def preview(self, preview: Preview, start: Preview) -> None:
        """One preview: its numbers, and its pictures as a strip."""
        numbers = {"validation": preview.validation, "prior_validation": preview.prior_validation}
        warned = {"alarms": list(alarms(preview, start))}
        self._add({"step": preview.step, **numbers, **asdict(preview.scores), **warned})
        half = len(preview.pictures) // 2
        tiles = [
            Tile(to_pixels(picture), label)
            for picture, label in zip(preview.pictures.split(1), preview.labels, strict=True)
        ]
        rows = [Row(f"step {preview.step}", tiles[:half]), Row("its class", tiles[half:])]
        write_pixels(self.folder / "previews" / f"step-{preview.step:06d}.png", contact_sheet(rows))

    def previews(self) -> list[Preview]:
        """The numbers of all previews so far; their pictures are in files."""
        none, found = torch.empty(0, 3, 1, 1), list[Preview]()
        for line in self.lines:
            if "validation" in line:
                scores = PreviewScores(**{k: line[k] for k in asdict(PreviewScores()) if k in line})
                prior = line.get("prior_validation", math.nan)
                found.append(Preview(line["step"], none, (), line["validation"], prior, scores))
        return found

    def plot(self) -> Path:
        """Draw the plot again: losses above, scores below."""
        losses = [
            Curve("loss", _points(self.lines, "loss"), smooth=True),
            Curve("validation loss", _points(self.lines, "validation")),
        ]
        scores = [
            Curve(name, _points(self.lines, name))
            for name in ("identity", "prompt", "drift", "copy")
        ]
        panels = [curves for curves in (losses, scores) if any(curve.points for curve in curves)]
        path = self.folder / "learn.png"
        write_pixels(path, chart(panels, along="step"))
        return path

    def _add(self, line: dict[str, Any]) -> None:
        # JSON has no NaN: what was not measured is left out of the line.
        plain = {k: v for k, v in line.items() if not isinstance(v, float) or math.isfinite(v)}
        self.lines.append(plain)
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(plain) + "\n")
        except OSError as error:
            raise unwritable(self.file, error) from error


def read_log(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; a torn last one is left out. Raises OutputError."""
    if not file.exists():
        return []
    text = read_bytes(file, most=MAX_LOG, error=OutputError).decode("utf-8", errors="replace")
    found: list[dict[str, Any]] = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].split("\n")[:-1], 1):
        said = parse_json(line, f"line {number} of {file}", error=OutputError)
        try:
            DECLARED.check(said, "it")
        except spec.Unfit as problem:
            raise OutputError(f"Line {number} of {file} is damaged: {problem}.") from None
        found.append(said)
    return found


def _points(lines: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in lines if name in line]
