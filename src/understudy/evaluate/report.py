"""Results as Markdown, CSV and one HTML page that needs nothing beside itself, no network either.

Tables with intervals, dot-and-whisker plots as inline SVG, sheets of pictures as inline PNG, and
what it all was made with. Knows nothing of what was measured.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from understudy.evaluate.results import Row
from understudy.evaluate.statistics import Estimate
from understudy.files.atomic import replacing
from understudy.pictures.photo import png_bytes
from understudy.pictures.sheet import Row as SheetRow
from understudy.pictures.sheet import contact_sheet


@dataclass(frozen=True)
class Table:
    """A heading, the names of the columns, and lines of cells, the first cell naming the line."""

    title: str
    heads: Sequence[str]
    lines: Sequence[Sequence[str]]

    @classmethod
    def of_estimates(
        cls, title: str, heads: Sequence[str], body: Mapping[str, Sequence[Estimate]]
    ) -> Table:
        """A line a method: mean and interval in each cell."""
        lines = [[name, *(written(cell) for cell in cells)] for name, cells in body.items()]
        return cls(title, ["", *heads], lines)


def written(found: Estimate) -> str:
    """Like "0.571 [0.482, 0.660]"; a dash where there is nothing to say."""
    if math.isnan(found.mean):
        return "-"
    if math.isnan(found.low):
        return _number(found.mean)
    return f"{_number(found.mean)} [{_number(found.low)}, {_number(found.high)}]"


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


@dataclass(frozen=True)
class Plot:
    """A caption and an SVG element."""

    caption: str
    svg: str


def whiskers(name: str, says: str, found: Mapping[str, Estimate]) -> Plot:
    """A dot a method, a line from end to end of its interval, the numbers beside them."""
    shown = {k: e for k, e in found.items() if not math.isnan(e.mean)}
    ends = [v for e in shown.values() for v in (e.mean, e.low, e.high) if not math.isnan(v)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = (high - low) * 0.06 or 0.5
    low, high = low - room, high + room
    left, wide, line = 190, 360, 24
    height = line * len(shown) + 30

    def x(value: float) -> float:
        return left + wide * (value - low) / (high - low)

    parts: list[str] = []
    for k, (method, e) in enumerate(shown.items()):
        y = line * k + 18
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(method)}</text>')
        if not math.isnan(e.low):
            ends_at = f'x1="{x(e.low):.1f}" x2="{x(e.high):.1f}" y1="{y}" y2="{y}"'
            parts.append(f'<line {ends_at} class="whisker"/>')
        parts.append(f'<circle cx="{x(e.mean):.1f}" cy="{y}" r="4.5"/>')
        parts.append(f'<text x="{left + wide + 12}" y="{y + 4}">{_number(e.mean)}</text>')
    for value in (low + room, high - room):
        parts.append(
            f'<text x="{x(value):.1f}" y="{height - 4}" class="axis" text-anchor="middle">'
            f"{_number(value)}</text>"
        )
    label = f'role="img" aria-label="{escape(name)}"'
    svg = f'<svg viewBox="0 0 {left + wide + 80} {height}" {label}>{"".join(parts)}</svg>'
    return Plot(f"{name}: {says}", svg)


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows under a title."""

    title: str
    rows: Sequence[SheetRow]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is to be said of a run.

    warnings: what was left out or looks wrong, a line each; never hidden. rows: the measurements
    behind the tables, for CSV.
    """

    title: str
    intro: str
    tables: Sequence[Table]
    plots: Sequence[Plot] = ()
    sheets: Sequence[Sheet] = ()
    warnings: Sequence[str] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rows: Sequence[Row] = ()

    def write(self, folder: Path) -> list[Path]:
        """Write report.md, report.csv and report.html into `folder`; returns their paths."""
        texts = {"md": markdown(self), "csv": comma_separated(self.rows), "html": page(self)}
        files: list[Path] = []
        for suffix, text in texts.items():
            files.append(folder / f"report.{suffix}")
            with replacing(files[-1]) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")
        return files


def markdown(report: Report) -> str:
    """Title, warnings, tables, conditions."""
    lines = [f"# {report.title}", "", report.intro, ""]
    if report.warnings:
        lines += ["## Warnings", "", *(f"- {_cell(w)}" for w in report.warnings), ""]
    for table in report.tables:
        lines += [f"## {table.title}", "", _line(table.heads), _line(["---"] * len(table.heads))]
        lines += [*(_line(cells) for cells in table.lines), ""]
    lines += ["## Made with", "", "```json", json.dumps(dict(report.conditions), indent=1), "```"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def comma_separated(rows: Sequence[Row]) -> str:
    """A line a row; columns in the order in which rows bring them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


STYLE = """
:root { color-scheme: light dark; --ink: #26262a; --paper: #faf9f6; --faint: #77777e;
  --line: #d9d7d0; --mark: #b4552d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9e7e2; --paper: #1b1b1e;
  --faint: #9a9aa2; --line: #3a3a40; --mark: #e08a5f; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .86rem; }
th, td { padding: .35rem .7rem; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; } td { font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { color: var(--faint); font-size: .86rem; }
svg { width: 100%; } svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .axis { fill: var(--faint); font-size: 11px; } svg circle { fill: var(--mark); }
svg .whisker { stroke: var(--mark); stroke-width: 2; }
img { max-width: 100%; } .warning { border-left: 4px solid var(--mark); padding-left: .8rem; }
pre { overflow-x: auto; font-size: .8rem; color: var(--faint); }
"""
# Nothing may be loaded, sent or run, whatever names and errors hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(report: Report) -> str:
    """One HTML page with everything in it."""
    body = [f"<h1>{escape(report.title)}</h1><p>{escape(report.intro)}</p>"]
    body += [f'<p class="warning">{escape(warning)}</p>' for warning in report.warnings]
    body += [_html(table) for table in report.tables]
    figures = [
        f"<figure>{plot.svg}<figcaption>{escape(plot.caption)}</figcaption></figure>"
        for plot in report.plots
    ]
    if figures:
        body.append(f'<h2>Plots</h2><div class="plots">{"".join(figures)}</div>')
    for sheet in report.sheets:
        data = base64.b64encode(png_bytes(contact_sheet(sheet.rows, side=160))).decode()
        image = f'<img alt="{escape(sheet.title)}" src="data:image/png;base64,{data}">'
        body.append(f"<h2>{escape(sheet.title)}</h2>{image}")
    said = escape(json.dumps(dict(report.conditions), indent=1))
    body.append(f"<h2>Made with</h2><pre>{said}</pre>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _html(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads)
    lines = "".join(
        f'<tr><th scope="row">{escape(cells[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
        + "</tr>"
        for cells in table.lines
    )
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
