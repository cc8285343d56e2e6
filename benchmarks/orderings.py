"""What a run of `understudy evaluate dreambooth` found, kept as results/orderings.md, .csv, .jpg.

    python -m benchmarks.orderings FOLDER [--show cat0 --show dog1]

The sheet shows the subjects named, by default the first three that are done.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import RESULTS, keep_sheet
from understudy.evaluate.dreambench import read_data_set
from understudy.evaluate.learners import LEARNERS
from understudy.evaluate.protocols.dreambooth_report import subject_sheets, summed
from understudy.evaluate.report import comma_separated, markdown
from understudy.evaluate.results import ResultsFolder
from understudy.pictures.photo import Pixels
from understudy.settings import LearnSettings

SHOWN = 3  # subjects, unless they are named


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", action="append", metavar="SUBJECT", help="may be repeated")
    wish = parser.parse_args()
    run = ResultsFolder(wish.folder)
    report = summed(run)
    said = run.read()
    lines = [markdown(report).split("## Made with")[0].rstrip(), "", "## Made with", ""]
    lines += [f"- {name}: {json.dumps(value)}" for name, value in said["choices"].items()]
    lines += [f"- {name}: {plain(facts)}" for name, facts in said["methods"].items()]
    lines += [note for name, facts in said["methods"].items() for note in outdated(name, facts)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "orderings.md").write_text("\n".join(lines) + "\n")
    rows = [{k: v for k, v in row.items() if k not in ("pictures", "seeds")} for row in report.rows]
    (RESULTS / "orderings.csv").write_text(comma_separated(rows))
    sheets = dict(subject_sheets(run, read_data_set(wish.folder / "toys").subjects))
    names = wish.show or list(sheets)[:SHOWN]
    keep_sheet(RESULTS / "orderings.jpg", abreast([sheets[name] for name in names]))
    print(
        f"{RESULTS / 'orderings.md'}: {len(report.rows)} rows; the sheet shows {', '.join(names)}"
    )


def outdated(method: str, facts: dict[str, Any]) -> list[str]:
    """A line where a method learnt with other values than it would be given today."""
    learner = LEARNERS.get(method)
    if learner is None or learner.learns is None:
        return []
    now = LearnSettings.filled(learner.learns, facts["model"]).to_dict()
    changed = [f"{k} {v} (now {now.get(k)})" for k, v in facts["learn"].items() if v != now.get(k)]
    return [f"- {method} learnt with other values than today's: {', '.join(changed)}"] * bool(
        changed
    )


def plain(facts: dict[str, object]) -> str:
    """A method's settings in one line, without those that are empty."""
    flat = {**facts, **{k: "" for k, v in facts.items() if isinstance(v, dict)}}
    for verb, values in facts.items():
        if isinstance(values, dict):
            flat |= {f"{verb}.{k}": v for k, v in values.items()}
    return ", ".join(f"{k}={v}" for k, v in flat.items() if v != "") or "the photos themselves"


def abreast(sheets: list[Pixels]) -> Pixels:
    """Sheets side by side, the shorter ones on white."""
    tallest = max(len(sheet) for sheet in sheets)
    room = [((0, tallest - len(sheet)), (0, 0), (0, 0)) for sheet in sheets]
    filled = [np.pad(s, r, constant_values=255) for s, r in zip(sheets, room, strict=True)]
    return np.concatenate(filled, axis=1)


if __name__ == "__main__":
    main()
