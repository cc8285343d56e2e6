"""The verb `invert`: inverts a photo by any method, or reads the inversion from the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.flow import FlowSchedule
from understudy.errors import InputError
from understudy.files.cache import Cache
from understudy.invert.cache import Setting, cache_key, cached_steps
from understudy.invert.direct import direct_steps
from understudy.invert.inversion import Inversion, InvertStep, ddim_inversion_steps, digest
from understudy.invert.keeping import nothing
from understudy.invert.negative_prompt import negative_prompt_steps
from understudy.invert.null_text import at_least_float32, null_text_steps
from understudy.invert.rectified_flow import RFInversion, check_method, flow_inversion_steps
from understudy.invert.source import Parts, SourceFeatures
from understudy.models.interface import DiffusionModel
from understudy.settings import InvertSettings


def inversion_steps(
    model: DiffusionModel,
    photo: Float[Tensor, "1 3 h w"],
    prompt: str,
    settings: InvertSettings | None = None,
    *,
    cache: Path | Cache | None = None,
    features: SourceFeatures | None = None,
    parts: Callable[[int], Parts] = nothing,
) -> Iterator[InvertStep]:
    """Invert a photo a step at a time; the last step carries the inversion.

    Args:
        photo: RGB in [-1, 1], height and width multiples of the model's downscale.
        prompt: what the photo shows.
        cache: a folder of inversions; None keeps nothing. A kept one takes a single step.
        features, parts: where null-text inversion is to keep what edits will read in each
            sampling step, and what that is; the other methods run no such rows.

    Raises:
        InputError: a photo of a size that does not divide, an unknown method.
        PromptError: a prompt over the model's token limit.
    """
    settings = settings or InvertSettings.filled({}, model.name)
    _check(model, photo, prompt)
    check_method(model, settings.method)
    picture = digest(photo)

    def make() -> Iterator[InvertStep]:
        with torch.no_grad():
            # The trajectory is compared with later steps, so it is kept in float32 even where the
            # model is not.
            latents = at_least_float32(model.encode(photo.to(model.device)))
        for step in method_steps(model, latents, prompt, settings, features, parts):
            found = step.inversion
            yield (
                step if found is None else replace(step, inversion=replace(found, picture=picture))
            )

    if cache is None:
        return make()
    # Only the settings that the method reads are part of the key: others would make a second, equal
    # entry.
    key = cache_key(model, picture, prompt, _heard(settings))
    return cached_steps(Cache.at(cache), key, model, make)


def invert(
    model: DiffusionModel,
    photo: Float[Tensor, "1 3 h w"],
    prompt: str,
    settings: InvertSettings | None = None,
    *,
    cache: Path | Cache | None = None,
) -> Inversion:
    """The inversion of a photo. See `inversion_steps`."""
    *_, last = inversion_steps(model, photo, prompt, settings, cache=cache)
    assert last.inversion is not None
    return last.inversion


def method_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    prompt: str,
    settings: InvertSettings,
    features: SourceFeatures | None = None,
    parts: Callable[[int], Parts] = nothing,
) -> Iterator[InvertStep]:
    """The steps of the settings' method from latents, kept nowhere."""
    check_method(model, settings.method)
    if isinstance(model.schedule, FlowSchedule):
        return flow_inversion_steps(
            model,
            latents,
            prompt,
            method=settings.method,
            steps=settings.steps,
            iterations=settings.inner_steps,
            tolerance=settings.epsilon,
            controlled=RFInversion(
                settings.rf_gamma, settings.rf_eta, settings.rf_stop, settings.rf_seed
            ),
        )
    if settings.method == "null-text":
        return null_text_steps(model, latents, prompt, settings, features=features, parts=parts)
    plain = {
        "ddim": ddim_inversion_steps,
        "negative-prompt": negative_prompt_steps,
        "direct": direct_steps,
    }
    return plain[settings.method](model, latents, prompt, steps=settings.steps)


# The settings that each method listens to, beside the method and the number of steps.
_HEARD = {
    "null-text": ("guidance", "negative", "inner_steps", "epsilon", "learning_rate"),
    "implicit": ("inner_steps", "epsilon"),
    "rf-inversion": ("rf_gamma", "rf_eta", "rf_stop", "rf_seed"),
}


def _heard(settings: InvertSettings) -> dict[str, Setting]:
    """The settings the method listens to: others must not make a second entry."""
    values = settings.to_dict()
    return {name: values[name] for name in ("method", "steps", *_HEARD.get(settings.method, ()))}


def _check(model: DiffusionModel, photo: Tensor, prompt: str) -> None:
    model.tokenize(prompt)
    height, width = photo.shape[-2:]
    if not height or not width or height % model.downscale or width % model.downscale:
        raise InputError(
            f"the photo's width and height must be multiples of {model.downscale} for "
            f"{model.name}. Got {width} x {height}; scale or crop it first."
        )
