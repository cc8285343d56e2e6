"""Contact sheets: every tile at its place, nothing overlaps."""

from __future__ import annotations

import numpy as np
import pytest

from understudy.errors import InputError
from understudy.pictures.sheet import PAPER, Row, Tile, contact_sheet


def flat(*colour: int) -> np.ndarray:
    return np.full((20, 20, 3), colour, dtype=np.uint8)


def test_tiles_and_labels() -> None:
    rows = [Row("photos", [Tile(flat(255, 0, 0), "one"), Tile(flat(0, 255, 0))])]
    rows.append(Row("results", [Tile(flat(0, 0, 255), "a very long label " * 9)]))
    sheet = contact_sheet(rows, side=64, title="A sheet")
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        assert (sheet == colour).all(axis=2).sum() == 64 * 64
    assert (sheet[0, 0] == PAPER).all() and (sheet[-1, -1] == PAPER).all()
    assert np.array_equal(sheet, contact_sheet(rows, side=64, title="A sheet"))


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(InputError, match="at least one picture"):
        contact_sheet([Row("nothing", [])])
