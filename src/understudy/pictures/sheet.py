"""Contact sheets: labelled pictures in rows, for demos and reports.

Pixels are uint8 arrays (h, w, 3), as in `photo`. Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from understudy.errors import InputError
from understudy.pictures.photo import Pixels, fit

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


@dataclass(frozen=True)
class Curve:
    """A named series of points (x, y). smooth: drawn as a running mean over faint dots."""

    name: str
    points: Sequence[tuple[float, float]]
    smooth: bool = False


COLOURS = ((31, 98, 163), (201, 92, 30), (62, 130, 66), (140, 70, 150))


def chart(panels: Sequence[Sequence[Curve]], along: str = "", width: int = 760) -> Pixels:
    """Panels of curves above each other, on one x axis that is called `along`.

    Raises InputError where there is no point to draw.
    """
    xs = [x for panel in panels for curve in panel for x, _ in curve.points]
    if not xs:
        raise InputError("A chart needs at least one point. Got none.")
    height, left = 200, 3 * MARGIN
    page = Image.new("RGB", (width, len(panels) * (height + MARGIN) + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    low, high = min(xs), max(max(xs), min(xs) + 1)
    for number, panel in enumerate(panels):
        box = (left, MARGIN + number * (height + MARGIN), width - MARGIN, height)
        _draw_panel(draw, panel, box, (low, high))
    bottom = page.height - int(1.3 * MARGIN)
    for x, place in ((low, left), (high, width - 3 * MARGIN)):
        _write(draw, (place, bottom), f"{x:g}", 12, FAINT, 60)
    _write(draw, (width // 2, bottom), along, 12, FAINT, 120)
    return np.asarray(page)


def _draw_panel(
    draw: ImageDraw.ImageDraw,
    panel: Sequence[Curve],
    box: tuple[int, int, int, int],
    along: tuple[float, float],
) -> None:
    """One panel's frame, its ends of y, its curves and their names."""
    left, top, right, height = box
    ys = [y for curve in panel for _, y in curve.points]
    low, high = min(ys), max(max(ys), min(ys) + 1e-9)
    draw.rectangle((left, top, right, top + height), outline=FAINT)
    for value, y in ((high, top), (low, top + height - 14)):
        _write(draw, (4, y), f"{value:.3g}", 12, FAINT, left - 8)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - along[0]) / (along[1] - along[0])
        return left + across * (right - left), top + height * (high - point[1]) / (high - low)

    for number, curve in enumerate(panel):
        colour = COLOURS[number % len(COLOURS)]
        where = [place(point) for point in curve.points]
        for x, y in where if curve.smooth or len(where) == 1 else ():
            draw.point((x, y), fill=colour)
        if len(where) > 1:
            draw.line(_running_mean(where) if curve.smooth else where, fill=colour, width=2)
        _write(draw, (left + 8, top + 4 + 16 * number), curve.name, 12, colour, 240)


def _running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each point's y averaged with those before it, a tenth of all points deep."""
    deep = max(len(points) // 10, 1)
    means: list[tuple[float, float]] = []
    for number, (x, _) in enumerate(points):
        some = [y for _, y in points[max(number - deep + 1, 0) : number + 1]]
        means.append((x, sum(some) / len(some)))
    return means


def strip(
    rows: Sequence[tuple[str, Sequence[bool]]], width: int, colours: Sequence[tuple[int, int, int]]
) -> Pixels:
    """A row of cells under each other for each name, filled where true; `width` pixels wide."""
    text, cell = 15, 22
    picture = Image.new("RGB", (width, 2 * MARGIN + len(rows) * (cell + GAP)), PAPER)
    draw = ImageDraw.Draw(picture)
    room = max(draw.textlength(name, font=ImageFont.load_default(text)) for name, _ in rows)
    left = MARGIN + int(room) + GAP
    for number, ((name, filled), colour) in enumerate(zip(rows, colours, strict=True)):
        y = MARGIN + number * (cell + GAP)
        _write(draw, (MARGIN, y + 2), name, text, INK, int(room) + GAP)
        side = (width - MARGIN - left) / max(len(filled), 1)
        for index, on in enumerate(filled):
            x = left + index * side
            box = (x, y, x + max(side - 1, 1), y + cell)
            draw.rectangle(box, fill=colour if on else (228, 226, 220))
    return np.asarray(picture)


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
