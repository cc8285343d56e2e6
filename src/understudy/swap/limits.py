"""What a swap may change around the old subject: less if the new one is of the same class.

Subjects of one class in the same pose have nearly the same outline. Of held-out toys,
1 % of the right answer's area lies more than 2 pixels of 128 outside the old outline where classes
are equal, 17 % where they are not (`scripts/bench outlines`). A narrow limit keeps the pose, and
what stands beside or before the subject. A crown or a hat that the old subject lacks is the
exception: it may stand above the old outline where the swap has drawn one. Knows words and numbers
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from understudy.transfer.source_target import Replacement


@dataclass(frozen=True)
class Limits:
    """How far a swap may go from the old subject. Shares of a side are of the picture's longer one.

    Attributes:
        rim: cells of latents around the old subject that are drawn anew. Refining is narrower.
        reach: cells around it in which a difference of the prompts counts.
        old_edge, new_edge: shares of the side around the two subjects in which swapped pixels are
            pasted; the feathered seam lies in them, not on the subjects.
        bare_edge: the same around parts of the old subject that the new one does not cover, of
            which no outline must stay.
        leaves: share of the side by which the new subject may leave the old outline; None = any.
        above: share of the side within which a part of the new subject may stand above the old
            outline all the same; 0 = none may. See `BothSubjects.beyond`.
        missed: share of the side within which strong changes of colour that touch the subjects
            count as parts of them that the masks missed; 0 = none does.
        held: share of the steps of refining that take A from the source; see `refine.py`.
        posed: whether refining may begin with the photo, whose pose it keeps; see `refine.py`.
        polish: whether candidates may begin with the photo in two passes; see `polish.py`.
        drawn: whether candidates may be drawn on the photo's layout; see `layout.py`.
        layout: how many points of identity a point of layout is worth in the choice of a candidate.
    """

    rim: int
    reach: int
    old_edge: float
    new_edge: float
    bare_edge: float
    leaves: float | None
    above: float
    missed: float
    held: float
    posed: bool
    polish: bool
    drawn: bool
    layout: float


SAME = Limits(
    rim=2,
    reach=1,
    old_edge=0.02,
    new_edge=0.01,
    bare_edge=0.03,
    leaves=0.03,
    above=0.2,
    missed=0.0,
    held=0.6,
    posed=True,
    polish=False,
    drawn=True,
    layout=1.6,
)
KEEP = replace(SAME, rim=1, above=0.0)
OTHER = Limits(
    rim=2,
    reach=4,
    old_edge=0.035,
    new_edge=0.035,
    bare_edge=0.045,
    leaves=None,
    above=0.0,
    missed=0.06,
    held=0.0,
    posed=False,
    polish=True,
    drawn=False,
    layout=0.8,
)


def limits_of(outline: str, replacements: Sequence[Replacement], *, masked: bool = False) -> Limits:
    """KEEP to "keep" the old outline, OTHER to be "free" of it.

    "auto": SAME where every word is replaced by a subject of its own class ("cat" by "sks cat"),
    unless the swap is masked: a given mask says itself how far the new subject may go.
    """
    if outline != "auto":
        return KEEP if outline == "keep" else OTHER
    if masked:
        return OTHER
    same = [_noun(one.phrase) == _noun(one.word) for one in replacements]
    return SAME if same and all(same) else OTHER


def with_part(limits: Limits) -> Limits:
    """The same for a new subject that has a part the old one lacks, as the swap has shown.

    The source's maps A say that nothing is there, and the photo's layout lacks it, too.
    """
    return replace(limits, held=limits.held / 2, layout=OTHER.layout)


def _noun(phrase: str) -> list[str]:
    return phrase.casefold().split()[-1:]
