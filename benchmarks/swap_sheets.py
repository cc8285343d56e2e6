"""Keeps a run of `understudy evaluate swap --scorer toys` as results/swapbench_best.jsonl, sheets.

    python -m benchmarks.swap_sheets FOLDER [--method photoswap-best] [--name swapbench_best]

Rows of the method are replaced, those of other methods stay. The sheets show source, swap and right
answer of each case, four cases in a line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.rows import RESULTS, keep_sheet
from understudy.evaluate.results import Row, latest, read_rows
from understudy.evaluate.toy_bench import ToyBench
from understudy.pictures.photo import Pixels
from understudy.pictures.tensors import read_picture, to_pixels
from understudy.settings.evaluate import CasesSettings
from understudy.vision import examiner

GAP, ACROSS, HALF = 8, 4, 32  # pixels between cases, cases in a line, cases on a sheet
LEFT_OUT = ("picture", "seconds")  # of a row: where a picture was, and how busy the machine


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", default="photoswap-best")
    parser.add_argument("--name", default="swapbench_best", help="of the files in results")
    wish = parser.parse_args()
    found = latest(read_rows(wish.folder / "rows.jsonl"))
    rows = [row for (method, _), row in sorted(found.items()) if method == wish.method]
    file = RESULTS / f"{wish.name}.jsonl"
    write_rows(file, rows, wish.method)
    bench = ToyBench(CasesSettings.filled({"size": "full"}), examiner.load_scorer())
    for letter, first in zip("ab", (0, HALF), strict=True):
        part = rows[first : first + HALF]
        if part:
            tiles = [abreast(bench, wish.folder / row["picture"], row["case"]) for row in part]
            keep_sheet(RESULTS / f"{wish.name}_{letter}.jpg", in_lines(tiles))
    print(f"{file}: {len(rows)} rows of {wish.method}")


def write_rows(file: Path, rows: list[Row], method: str) -> None:
    """The method's rows first, then those of other methods that the file has already."""
    kept = [{k: v for k, v in row.items() if k not in LEFT_OUT} for row in rows]
    others = [row for row in read_rows(file) if row["method"] != method]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *others]))


def abreast(bench: ToyBench, swap: Path, name: str) -> Pixels:
    """Source, swap and right answer."""
    case = bench.case(name)
    pictures = [case.source, read_picture(swap), case.known.right]
    return np.concatenate([to_pixels(one) for one in pictures], axis=1)


def in_lines(tiles: list[Pixels]) -> Pixels:
    """The tiles, ACROSS in a line, with a gap of GAP black pixels between them."""
    height, width = tiles[0].shape[:2]
    lines = -(-len(tiles) // ACROSS)
    sheet = np.zeros((lines * height, ACROSS * (width + GAP) - GAP, 3), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // ACROSS * height, number % ACROSS * (width + GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet


if __name__ == "__main__":
    main()
