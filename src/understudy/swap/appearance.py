"""What the new subject looks like: pictures of it, with the subject found in each by its words."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.flow import FlowSchedule
from understudy.models.interface import DiffusionModel
from understudy.swap.where import found_by_words
from understudy.transfer.appearance import MOST, Appearance


@torch.no_grad()
def appearance_of(
    model: DiffusionModel, pictures: Float[Tensor, "n 3 h w"], phrase: str
) -> Appearance | None:
    """The first `MOST` of these pictures, of the model's size, in which the subject is found.

    phrase: what stands for the subject in prompts; its concept must be applied. None where it is
    found in no picture, and for flow models, whose image tokens share a softmax with the text.
    """
    if isinstance(model.schedule, FlowSchedule):
        return None
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
