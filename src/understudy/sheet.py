"""Contact sheets: labelled pictures in rows, for demos, reports and eyes.

Pixels are uint8 arrays (h, w, 3), as in `photo`. Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from understudy.errors import InputError
from understudy.photo import Pixels, fit

PAPER, INK, FAINT = (250, 249, 246), (38, 38, 42), (120, 120, 126)
MARGIN, GAP = 20, 12  # pixels


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet and what is written under it."""

    pixels: Pixels
    label: str = ""


@dataclass(frozen=True)
class Row:
    """Pictures side by side under a heading."""

    heading: str
    tiles: Sequence[Tile]


def contact_sheet(rows: Sequence[Row], side: int = 192, title: str = "") -> Pixels:
    """Rows of square tiles of `side` pixels, each row with its heading, each tile with its label.

    Raises InputError for a sheet without any picture.
    """
    widest = max((len(row.tiles) for row in rows), default=0)
    if not widest:
        raise InputError("A contact sheet needs at least one picture. Got none.")
    text = max(12, side // 13)  # font size, pixels
    top = MARGIN + (3 * text if title else 0)
    row_height = int(2 * text) + side + int(1.8 * text) + GAP
    width = 2 * MARGIN + widest * side + (widest - 1) * GAP
    sheet = Image.new("RGB", (width, top + len(rows) * row_height + MARGIN - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        _write(draw, (MARGIN, MARGIN), title, int(text * 1.5), INK, width - 2 * MARGIN)
    for number, row in enumerate(rows):
        _draw_row(sheet, draw, row, top + number * row_height, side, text)
    return np.asarray(sheet)


def _draw_row(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, row: Row, y: int, side: int, text: int
) -> None:
    _write(draw, (MARGIN, y), row.heading, text, FAINT, sheet.width - 2 * MARGIN)
    for column, tile in enumerate(row.tiles):
        x = MARGIN + column * (side + GAP)
        picture_top = y + int(1.8 * text)
        sheet.paste(Image.fromarray(fit(tile.pixels, (side, side))), (x, picture_top))
        label_top = picture_top + side + int(0.4 * text)
        _write(draw, (x, label_top), tile.label, text, INK, side)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    words: str,
    size: int,
    colour: tuple[int, int, int],
    room: int,
) -> None:
    """One line of text; smaller, if it must be, to stay within `room` pixels."""
    font = ImageFont.load_default(size)
    while size > 8 and draw.textlength(words, font=font) > room:
        size -= 1
        font = ImageFont.load_default(size)
    draw.text(at, words, fill=colour, font=font)
