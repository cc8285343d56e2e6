"""What candidates of a swap are compared with: the photo, and pictures of the new subject."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from understudy.generate import generate
from understudy.jobs.source import InputPicture
from understudy.jobs.subjects import SwapSubjects
from understudy.models.interface import DiffusionModel
from understudy.settings import GenerateSettings, SwapSettings
from understudy.swap.limits import limits_of
from understudy.swap.schedule_search import ScheduleSearch
from understudy.swap.scorer import scorer_for

DRAWN, DRAWING_STEPS = 2, 20  # pictures of the concept, where no photos of it are given


def scorer_of(
    model: DiffusionModel,
    settings: SwapSettings,
    source: InputPicture,
    subjects: SwapSubjects,
    photos: Float[Tensor, "n 3 h w"] | None,
) -> ScheduleSearch | None:
    """The scorer of pictures of this cast in this photo; None where there is none."""
    scorer = scorer_for(model)
    if scorer is None or source.picture is None or len(subjects.replacements) != 1:
        return None
    photos = drawn_of(model, settings, subjects) if photos is None else photos
    masked = source.mask is not None
    weight = limits_of(settings.outline, subjects.replacements, masked=masked).layout
    return ScheduleSearch(scorer, scorer.identity(photos), source.picture, weight)


def drawn_of(
    model: DiffusionModel, settings: SwapSettings, subjects: SwapSubjects
) -> Float[Tensor, "n 3 h w"]:
    """Pictures of the concept as the model draws it, where no photos of it are given."""
    how = {"steps": DRAWING_STEPS, "guidance": settings.guidance}
    drawing = GenerateSettings.filled(how, model.name)
    prompts = [f"a photo of a {subjects.replacements[0].phrase}"] * DRAWN
    return generate(model, prompts, list(range(DRAWN)), drawing).cpu()
