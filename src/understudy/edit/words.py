"""What `edit` is told of single words, and the columns of attention maps that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from understudy.edit.columns import Columns, columns_of
from understudy.edit.windows import Window, places_in
from understudy.models.interface import DiffusionModel
from understudy.settings import EditSettings
from understudy.transfer.cross_maps import alignment
from understudy.transfer.readings import readings


@dataclass(frozen=True)
class WordEdits:
    """Options for single words.

    weights: factor on a target word's attention. windows: share of the run in which a target word
    takes the source's attention, or its start and end. preserve: words whose region must not
    change, with a blend by `Target.words`.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    windows: Mapping[str, Window] = field(default_factory=lambda: MappingProxyType({}))
    preserve: tuple[str, ...] = ()


def target_columns(
    model: DiffusionModel,
    source: str,
    targets: Sequence[str],
    own: Sequence[range],
    settings: EditSettings,
    words: WordEdits,
) -> tuple[Columns, ...]:
    """How each target's maps are made of the source's; own: places that take nothing."""
    tokens = [readings(model, target) for target in targets]
    weights = [dict[int, float]() for _ in targets]
    for word, weight in words.weights.items():
        for known, places in zip(weights, places_in(targets, word, tokens), strict=True):
            known |= dict.fromkeys(places, weight)
    return tuple(
        columns_of(
            model,
            source,
            target,
            alignment(model, source, target),
            how=settings.alignment,
            weights=weights[n],
            own=own[n],
        )
        for n, target in enumerate(targets)
    )
