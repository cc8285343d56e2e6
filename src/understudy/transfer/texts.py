"""The embeddings of a run: of the source's prompt and the targets', and both unconditional ones.

A negative prompt takes the place of the empty prompt in the targets' unconditional rows alone: the
source is what the photo was inverted with. Null-text inversion has tuned the source's embeddings,
from the negative prompt on, until guided sampling gives the photo; the targets read the same ones,
or they would not keep what they share with the photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from understudy.diffusion.guidance import Guidance, reads_unconditional
from understudy.diffusion.text import Text
from understudy.invert.inversion import Inversion
from understudy.models.interface import DiffusionModel
from understudy.settings.invert import check_negative
from understudy.transfer.batch_layout import Texts
from understudy.transfer.source_target import Target, negative_of


@dataclass(frozen=True)
class RunTexts:
    """What a network reads in a run. empty, source: one row; targets: one a target; negative: one
    row, None where the targets' unconditional embedding is the source's."""

    inversion: Inversion
    empty: Text
    source: Text
    targets: Text
    negative: Text | None = None

    @classmethod
    def of(
        cls,
        model: DiffusionModel,
        inversion: Inversion,
        targets: Sequence[Target],
        how: Guidance,
        scale: float,
    ) -> RunTexts:
        """The texts of a run. Raises PromptError for a prompt that is too long, InputError for
        a negative prompt that the inversion leaves no place for."""
        # One prompt a call: an embedding must not depend on its neighbours, not even by rounding.
        each = [model.embed([t.prompt]) if t.text is None else t.text for t in targets]
        # A model that reads its guidance scale needs it in every row, the source's included.
        said = (model.embed([""]), model.embed([inversion.prompt]), Text.cat(each))
        empty, source, texts = with_scale(said, how, scale)
        negative = negative_of(targets)
        check_negative(negative, inversion)
        own = bool(negative) and inversion.null_embeddings is None
        return cls(inversion, empty, source, texts, model.embed([negative]) if own else None)

    def at(self, index: int) -> Texts:
        """The texts of step `index`."""
        null = self.inversion.uncond(index)
        uncond = self.empty if null is None else null.to(self.source)
        kept = self.inversion.null_embeddings
        one = kept is not None and len(kept) == 1 and kept.equals(self.source)
        return Texts(uncond, self.source, self.targets, one, self.negative)


def check_read(model: DiffusionModel, guidance: float, negative: str) -> None:
    """Refuse a negative prompt that a run would ignore or cannot read; call it before an inversion
    that takes minutes. Raises InputError, PromptError."""
    reads_unconditional(model, guidance, negative)
    model.tokenize(negative)


def with_scale(texts: Sequence[Text], how: Guidance, scale: float) -> tuple[Text, ...]:
    """The texts as a network reads them that is told the guidance scale; else as they are.

    All rows of a call have a scale, or none has.
    """
    return tuple(text.guided(scale) if how.kind == "embedded" else text for text in texts)
