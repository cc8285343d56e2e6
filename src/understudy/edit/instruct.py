"""Editing by instruction: the model reads the photo as a reference and draws the edited picture.

FLUX.1 Kontext (Black Forest Labs 2025, arXiv:2506.15742) reads one picture, FLUX.2 several. The
target prompt is an instruction ("make the cat a dog"). There is no inversion and no attention
control: sampling starts from noise, and what stays of the photo is what the model keeps. It is the
baseline that the other methods of `edit` are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import AttentionControl
from understudy.concept import Concept
from understudy.diffusion.guidance import guidance_of, reads_unconditional
from understudy.diffusion.sampler import sample_steps, starting_noise
from understudy.diffusion.schedule import Time, wide
from understudy.diffusion.text import Text
from understudy.edit.flow_edit import target_texts
from understudy.edit.step import EditStep
from understudy.errors import InputError
from understudy.models.interface import DiffusionModel, References
from understudy.settings import EditSettings
from understudy.transfer.blend import blended, latent_mask
from understudy.transfer.source_target import Targets, mask_of, targets_of


@runtime_checkable
class ReferenceModel(Protocol):
    """A model whose `predict` takes reference pictures; references: how many at most."""

    @property
    def references(self) -> int:
        """0 for a model that was not trained to read any."""
        ...


class Referring:
    """A Predictor (diffusion/sampler.py) that gives a model the same references in every call."""

    def __init__(self, model: DiffusionModel, references: References) -> None:
        self.model, self.references = model, tuple(references)
        self.device, self.dtype, self.schedule = model.device, model.dtype, model.schedule
        self.guidance = guidance_of(model)

    def predict(
        self,
        latents: Float[Tensor, "r c h w"],
        time: Time,
        text: Text,
        control: AttentionControl | None = None,
    ) -> Float[Tensor, "r c h w"]:
        """The model's velocity beside the references."""
        model = cast(Any, self.model)
        return model.predict(latents, time, text, control, references=self.references)


@torch.no_grad()
def instruct_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    targets: Targets,
    settings: EditSettings,
    *,
    concepts: Sequence[Concept] = (),
    references: References = (),
) -> Iterator[EditStep]:
    """Edit a photo's latents by instructions, a denoising step at a time.

    Args:
        latents: of the photo: the posterior's mode, as `DiffusionModel.encode` gives. They are the
            first reference, and the result has their size.
        targets: instructions, which may name concepts that are applied to the model, and masks.
            Outside a mask the last step's latents are the photo's.
        references: latents of further pictures, which instructions call picture 2, 3 and so on.

    Raises InputError for a model that reads no references or fewer, and for targets with words.
    """
    check_references(model, 1 + len(references))
    named = targets_of(targets)
    text, uncond = target_texts(model, named, settings, concepts), None
    if reads_unconditional(model, settings.guidance, settings.negative):
        uncond = model.embed([settings.negative]).expand(len(named))
    shape = (latents.shape[1], latents.shape[2], latents.shape[3])
    noise = starting_noise([settings.noise_seed] * len(named), shape, like=model)
    reader = Referring(model, (latents, *references))
    where, mask, before = None, mask_of(named), model.nfe
    if mask is not None:
        where = latent_mask(mask, (shape[1], shape[2])).to(latents.device)
    for step in sample_steps(
        reader, noise, text, uncond, steps=settings.steps, guidance=settings.guidance
    ):
        last = step.index == step.total - 1  # the others are noisy, the photo's latents are not
        result = step.latents
        if last and where is not None:
            result = blended(wide(latents), result, where)
        yield EditStep(step.index, step.total, step.time, result, where, model.nfe - before)
        before = model.nfe


def check_references(model: DiffusionModel, count: int) -> None:
    """Raise InputError unless a model reads this many reference pictures, the photo included."""
    most = model.references if isinstance(model, ReferenceModel) else 0
    if most == 0:
        raise InputError(
            f"--method instruct needs a model that reads reference pictures: FLUX.1 Kontext or "
            f"FLUX.2. {model.name} was not trained to. Use another method."
        )
    if count > most:
        raise InputError(
            f"{model.name} reads at most {most} reference pictures, the photo included. "
            f"Got {count}."
        )
