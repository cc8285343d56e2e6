"""What swaps and edits start from, and what they lead to, as values.

`Source` is an inverted photo, `Target` one wanted result. An edit has one source and one or several
targets, which share the evaluations of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.text import Text
from understudy.errors import InputError
from understudy.invert.inversion import Inversion
from understudy.invert.source import SourceFeatures


@dataclass(frozen=True)
class Source:
    """An inverted photo.

    Attributes:
        inversion: made by the model with the same concepts applied; it holds the source prompt.
        features: attention features kept by earlier edits of this photo; read and extended.
        photo: the picture that was inverted, for pasting; None = the decoded inversion.
        subject: 1 where the subjects that are replaced are, found before concepts were applied;
            None = found by their words in the model as it is.
    """

    inversion: Inversion
    features: SourceFeatures | None = None
    photo: Float[Tensor, "1 3 h w"] | None = None
    subject: Float[Tensor, "1 1 h w"] | None = None

    @property
    def prompt(self) -> str:
        """The prompt that the photo was inverted with."""
        return self.inversion.prompt


@dataclass(frozen=True)
class Replacement:
    """A word or phrase of the source prompt, and the phrase in its place in the target prompt.

    occurrence: which one of a repeated word is meant, from 0; None = all, as of identical subjects.
    """

    word: str
    phrase: str
    occurrence: int | None = None


@dataclass(frozen=True)
class Target:
    """One wanted result.

    Attributes:
        prompt: describes the result.
        words: the subjects of the source prompt and their counterparts here; a blend finds the
            region that may change by them.
        mask: of the picture's or the latents' size, 1 = may change.
        text: embedding to use; None = that of the prompt.
        negative: the negative prompt, one for all targets of a run.
    """

    prompt: str
    words: tuple[Replacement, ...] = ()
    mask: Float[Tensor, "1 1 h w"] | None = None
    text: Text | None = None
    negative: str = ""


Sources = Source | Inversion
"""A source; an inversion alone stands for a source without features and photo."""
Targets = Target | str | Sequence[Target | str]
"""One or several targets; a prompt alone stands for a target without words and mask."""


def source_of(given: Sources) -> Source:
    """The source that a verb was given."""
    return Source(given) if isinstance(given, Inversion) else given


def targets_of(given: Targets) -> tuple[Target, ...]:
    """The targets that a verb was given."""
    several = (given,) if isinstance(given, str | Target) else given
    return tuple(Target(one) if isinstance(one, str) else one for one in several)


def with_mask(targets: Targets, mask: Float[Tensor, "m 1 h w"] | None) -> tuple[Target, ...]:
    """The targets limited to a mask: one for all, or one for each."""
    found = targets_of(targets)
    if mask is None:
        return found
    each = mask.split(1) if len(mask) > 1 else [mask] * len(found)
    return tuple(replace(one, mask=own) for one, own in zip(found, each, strict=True))


def with_negative(targets: Targets, negative: str) -> tuple[Target, ...]:
    """The targets with a negative prompt; "" leaves them as they are."""
    found = targets_of(targets)
    return tuple(replace(one, negative=negative) for one in found) if negative else found


def negative_of(targets: Sequence[Target]) -> str:
    """The negative prompt of all targets. Raises InputError where they have several."""
    found = sorted({target.negative for target in targets})
    if len(found) > 1:
        raise InputError(f"all targets of a run have one negative prompt. Got {found}.")
    return found[0]


def mask_of(targets: Sequence[Target]) -> Float[Tensor, "m 1 h w"] | None:
    """The masks of the targets, m = 1 where all share one; None where no target has a mask."""
    masks = [target.mask for target in targets]
    known = [mask for mask in masks if mask is not None]
    if not known:
        return None
    if all(mask is known[0] for mask in masks):
        return known[0]
    return torch.cat([torch.ones_like(known[0]) if mask is None else mask for mask in masks])
