"""What a user selects in a photo: words, points, a box; and where to look for it first.

Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from understudy.errors import InputError
from understudy.pictures import region as regions
from understudy.pictures.region import Region


@dataclass(frozen=True)
class Selection:
    """What is selected.

    words: of the prompt; their masks are joined. points: x, y in pixels of the photo; with words
    they choose among the things found, without they are on the subject. box: x, y, width, height:
    nothing outside it is selected.
    """

    words: tuple[str, ...] = ()
    points: tuple[tuple[int, int], ...] = ()
    box: tuple[int, int, int, int] | None = None

    @classmethod
    def of(cls, texts: Sequence[str]) -> Selection:
        """`--select` options read: "cat", "120,80", "40,20,200,160".

        Raises InputError for an empty one, for other counts of numbers, and for two boxes.
        """
        words: list[str] = []
        points: list[tuple[int, int]] = []
        boxes: list[tuple[int, int, int, int]] = []
        for text in texts:
            numbers = _numbers(text)
            if not text.strip():
                raise InputError("--select must be a word, X,Y or X,Y,W,H. Got nothing.")
            if numbers is None:
                words.append(text.strip())
            elif len(numbers) == 2:
                points.append((numbers[0], numbers[1]))
            elif len(numbers) == 4:
                boxes.append((numbers[0], numbers[1], numbers[2], numbers[3]))
            else:
                raise InputError(
                    f"--select must be a word of the prompt, a point X,Y or a box X,Y,W,H in "
                    f"pixels. Got {text!r}."
                )
        if len(boxes) > 1:
            raise InputError("--select takes one box. Draw it around all of the subject.")
        return cls(tuple(words), tuple(points), boxes[0] if boxes else None)

    def check(self, photo: tuple[int, int]) -> None:
        """Raise InputError for a point or box outside a photo of (height, width)."""
        height, width = photo
        for x, y in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise InputError(f"--select {x},{y} is outside the {width} x {height} photo.")
        if self.box is not None:
            x, y, wide, tall = self.box
            inside = 0 <= x and 0 <= y and x + wide <= width and y + tall <= height
            if not inside or min(wide, tall) < 2:
                raise InputError(
                    f"--select {x},{y},{wide},{tall} must lie within the {width} x {height} photo "
                    "and have at least 2 pixels a side."
                )


def _numbers(text: str) -> list[int] | None:
    """The whole numbers of "1,2"; None for anything that is not numbers alone."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.lstrip("-").isascii() and part.lstrip("-").isdigit() for part in parts):
        return None
    return [int(part) for part in parts]


def first_regions(
    selection: Selection, size: tuple[int, int], shape: tuple[int, int]
) -> list[Region]:
    """Where a model looks first in a photo of this size (height, width).

    Around the box, if there is one. Else at the whole photo. For a word in a photo that is far
    wider or taller than the model's pictures (`shape`): at overlapping parts of it, because its
    mirrored border would show subjects twice; with points at one part that has them in its middle.
    """
    if selection.box is not None:
        return [around_box(selection, size, shape)]
    found = regions.tiles(size, shape)
    if not selection.words or len(found) == 1:
        return [regions.whole(size, shape)]
    if not selection.points:
        return found
    x, y = (sum(values) / len(values) for values in zip(*selection.points, strict=True))
    (near,) = centred([(found[0], (x + 0.5, y + 0.5))], size)
    inside = all(
        near.x <= px < near.x + near.width and near.y <= py < near.y + near.height
        for px, py in selection.points
    )
    return [near] if inside else [regions.whole(size, shape)]


def centred(
    seen: Sequence[tuple[Region, tuple[float, float]]], size: tuple[int, int]
) -> list[Region]:
    """Regions moved, within a photo of this size, so that what was seen is in their middle.

    seen: each region with the x and y of what is in it. A subject that two regions have cut is then
    whole in both; of regions that come to lie within a quarter of their side one is left.
    """
    found: list[Region] = []
    for region, (x, y) in seen:
        left = min(max(0, round(x - region.width / 2)), size[1] - region.width)
        top = min(max(0, round(y - region.height / 2)), size[0] - region.height)
        apart = [max(abs(left - one.x), abs(top - one.y)) for one in found]
        if not apart or min(apart) > min(region.size) / 4:
            found.append(replace(region, x=left, y=top))
    return found


def around_box(selection: Selection, size: tuple[int, int], shape: tuple[int, int]) -> Region:
    """A region around the selected box."""
    assert selection.box is not None
    return regions.around(selection.box, size, shape)
