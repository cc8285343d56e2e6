"""Class images that come with a model: latents beside its weights, for prior preservation.

A model of our own may ship latents of its classes, so that learning need not draw any (Custom
Diffusion, Kumari et al. 2023, arXiv:2212.04488, section 3.2, preserves the class by real pictures
as well). Those of toybox-diffusion are renders of toys that are not reserved for evaluation.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import ModelError
from understudy.files import spec
from understudy.files.builtin import builtin_folder
from understudy.files.tensors import read_declared, save_tensors
from understudy.models.registry import find

FILE = "class_latents.safetensors"
FORMAT = "understudy class latents 1"
DECLARED = spec.TensorFile(
    FORMAT,
    "class_latents",
    "file of class latents",
    "python -m training.class_latents",
    spec.Record({"made_by": spec.Text(400)}),
    (spec.Tensors(r"[a-z ]{1,40}", "_ c h w"),),
)


def shipped_latents(
    model: str, noun: str, size: tuple[int, int, int]
) -> Float[Tensor, "n c h w"] | None:
    """The class latents of `noun` beside the weights of the model of this name or folder.

    size: (c, h, w) of a latent. None where there are none of this noun or size. Raises ModelError,
    naming the file, for one that is not as declared.
    """
    folder = find(model) if builtin_folder(model) else Path(model).expanduser()
    file = folder / FILE
    if not model or not os.path.lexists(file):
        return None
    _, tensors = read_declared(file, DECLARED, error=ModelError)
    found = tensors.get(noun)
    # Latents of another size belong to another autoencoder, or to pictures of another size.
    return found.float() if found is not None and found.shape[1:] == size else None


def save_latents(folder: Path, latents: dict[str, Tensor], made_by: str) -> Path:
    """Write the class latents of a model, in float16, beside its weights. Raises OutputError."""
    # Half of the size; their rounding is far below the noise that training adds to them.
    halved = {noun: one.to(torch.float16) for noun, one in latents.items()}
    notes = {"format": FORMAT, "class_latents": f'{{"made_by": "{made_by}"}}'}
    return save_tensors(folder / FILE, halved, notes)
