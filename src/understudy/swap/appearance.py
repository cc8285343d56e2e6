"""What the new subject looks like: pictures of it, with the subject found in each by its words."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.flow import FlowSchedule
from understudy.errors import InputError
from understudy.models.interface import DiffusionModel
from understudy.settings import SwapSettings
from understudy.swap.where import found_by_words
from understudy.transfer.appearance import MOST, Appearance


def check_appearance(model: DiffusionModel, settings: SwapSettings) -> None:
    """Raise InputError where pictures are to be read by a model that cannot.

    Image tokens of flow models share a softmax with the text, and so have no attention of their
    own to be exchanged.
    """
    if settings.appearance_steps and isinstance(model.schedule, FlowSchedule):
        raise InputError(
            f"--appearance-steps is for Stable Diffusion 1.x, 2.x and XL; {model.name} is a flow "
            f"model. Leave it out. Got {settings.appearance_steps}."
        )


@torch.no_grad()
def appearance_of(
    model: DiffusionModel, pictures: Float[Tensor, "n 3 h w"], phrase: str
) -> Appearance | None:
    """The first `MOST` of these pictures, of the model's size, in which the subject is found.

    phrase: what stands for the subject in prompts; its concept must be applied. None where it is
    found in no picture.
    """
    prompt = f"a photo of a {phrase}"
    shown, masks = list[Tensor](), list[Tensor]()
    for picture in pictures[:MOST].split(1):
        mask = found_by_words(model, picture, prompt, [phrase])
        if mask is not None:
            shown.append(model.encode(picture.to(model.device)))
            masks.append(mask)
    if not shown:
        return None
    latents = torch.cat(shown)
    return Appearance(latents, torch.cat(masks).to(latents), prompt)
