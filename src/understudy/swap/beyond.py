"""Parts of a new subject that the old one lacks, as a swap drew them: a crown, a hat.

Refining draws no such part where nothing of it is there to begin with: in a row that begins with
the photo, or with a candidate that lacks it. All rows therefore begin with the latents of the
candidate that shows most of it.
Knows latents and masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from understudy.device_copies import chosen
from understudy.pictures.tensors import grown
from understudy.swap.where import covered
from understudy.transfer.source_target import Source

BRIDGE = 0.03  # of the side: from the old outline to what counts as above it; see limits.py


@dataclass(frozen=True)
class Beyond:
    """Parts above the old outline that rows of a swap have in common.

    parts: "k 1 h w" in pictures, equal for all rows of a target. drawn: "k c lh lw", latents that
    show them.
    """

    parts: Float[Tensor, "k 1 h w"]
    drawn: Float[Tensor, "k c lh lw"]

    @classmethod
    def shared(
        cls,
        parts: Float[Tensor, "k 1 h w"],
        latents: Float[Tensor, "k c lh lw"],
        targets: Sequence[int],
    ) -> Beyond | None:
        """Each row with the largest parts among the rows of its target; None where none has any.

        targets: of which target each row is.
        """
        areas = parts.flatten(1).sum(1).tolist()
        if not any(areas):
            return None
        best = {one: -1 for one in targets}
        for row, one in enumerate(targets):
            best[one] = row if best[one] < 0 or areas[row] > areas[best[one]] else best[one]
        rows = [best[one] for one in targets]
        return cls(chosen(parts, rows), chosen(latents, rows))

    def rows(self, kept: Sequence[int]) -> Beyond:
        """The parts of some rows, in this order."""
        return Beyond(chosen(self.parts, kept), chosen(self.drawn, kept))

    def on(self, latents: Float[Tensor, "m c lh lw"]) -> Float[Tensor, "k c lh lw"]:
        """Latents, of all rows or of one for all, with these parts."""
        where, latents = covered(self._bridged, self.drawn), latents.to(self.drawn)
        return latents + where * (self.drawn - latents)

    def added_to(self, source: Source) -> Source:
        """The source with the parts of all rows in its subject's place, if this is known."""
        if source.subject is None:
            return source
        parts = self._bridged.amax(0, keepdim=True)
        return replace(source, subject=source.subject.to(parts).maximum(parts))

    @property
    def _bridged(self) -> Float[Tensor, "k 1 h w"]:
        """The parts with a rim: nothing of the photo is to stay between a part and its subject."""
        return grown(self.parts, max(1, round(BRIDGE * max(self.parts.shape[-2:]))))
