"""A projected photo as a value: the latent, and what pivotal tuning changed.

One safetensors file. The changes are differences from the generator's own weights in float16, of
the tensors that changed alone: a fraction of a model, which is what published programs keep.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError, ModelError
from understudy.files import spec
from understudy.files.tensors import read_declared, save_tensors
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.project.align import Square

FORMAT = "understudy latent 1"
CHANGE = "change."
DECLARED = spec.TensorFile(
    FORMAT,
    "latent",
    "latent",
    "understudy project",
    spec.Record(
        {
            "generator": spec.Text(4096),
            "fingerprint": spec.Text(400),
            "picture": spec.Text(400),
            "record": spec.Record(
                {},
                {
                    "photo": spec.Items(spec.Number(1, 1e6, whole=True), 2, 2),
                    "square": spec.Items(spec.Number(-1e6, 1e6), 6, 6),
                },
                others=spec.Data(),
            ),
        }
    ),
    (
        spec.Tensors("ws", "1 num_ws w_dim", needed=True),
        spec.Tensors(r"change\..+", "..."),
    ),
)


@dataclass(frozen=True, eq=False)
class Latent:
    """What draws a photo.

    ws: one w per layer. generator, fingerprint: name and weights of the generator, before tuning.
    picture: SHA-256 of what was projected. changes: by the generator's parameter names, learnt
    minus original; empty without tuning. record: how it was made, and how well: plain JSON data.
    """

    ws: Float[Tensor, "1 num_ws w_dim"]
    generator: str
    fingerprint: str
    picture: str
    changes: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor], repr=False)
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def tuned(self, generator: StyleGAN2) -> StyleGAN2:
        """The generator that draws the photo: a new one where tuning changed it, else the same.

        Raises ModelError for a generator other than the one that was projected with.
        """
        if generator.fingerprint != self.fingerprint:
            raise ModelError(
                f"This latent belongs to the generator {self.generator!r} "
                f"({self.fingerprint[:12]}), not to {generator.name!r} "
                f"({generator.fingerprint[:12]}). Project the photo again, or use that generator."
            )
        if tuple(self.ws.shape[1:]) != (generator.num_ws, generator.w_dim):
            raise ModelError(
                f"The shape {tuple(self.ws.shape)} of this latent does not fit the generator."
            )
        if not self.changes:
            return generator
        tensors = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        for name, change in self.changes.items():
            if name not in tensors or tensors[name].shape != change.shape:
                raise ModelError(f"This latent changes {name!r}, which does not fit the generator.")
            tensors[name] += change.to(tensors[name])
        bent = StyleGAN2.from_tensors(
            generator.config,
            {name: tensor.cpu() for name, tensor in tensors.items()},
            name=generator.name,
            fingerprint=self.tuned_fingerprint,
        )
        return bent.to(generator.device).compute_in(generator.dtype)

    @property
    def tuned_fingerprint(self) -> str:
        """The identity of the tuned generator; the generator's own without tuning."""
        if not self.changes:
            return self.fingerprint
        whole = hashlib.sha256(self.fingerprint.encode())
        for name, change in sorted(self.changes.items()):
            data = change.cpu().reshape(-1).view(torch.uint8)  # numpy has no bfloat16
            whole.update(name.encode() + data.numpy().tobytes())
        return whole.hexdigest()

    def placed(self, square: Square, photo: tuple[int, int]) -> Latent:
        """The same, knowing which part of a photo of this (height, width) it draws."""
        told = {"photo": list(photo), "square": square.to_list()}
        return replace(self, record={**self.record, **told})

    def place(self) -> tuple[Square, tuple[int, int]]:
        """What `placed` was told. Raises InputError where it was not."""
        try:
            height, width = self.record["photo"]
            return Square.from_list(self.record["square"]), (int(height), int(width))
        except (KeyError, TypeError, ValueError):
            raise InputError(
                "This latent does not say which part of a photo it draws. Project it again."
            ) from None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, whole or not at all. Raises OutputError."""
        tensors = {f"{CHANGE}{name}": t for name, t in self.changes.items()}
        told = {"generator": self.generator, "fingerprint": self.fingerprint}
        told |= {"picture": self.picture, "record": dict(self.record)}
        header = {"format": FORMAT, "latent": json.dumps(told)}
        return save_tensors(path, {"ws": self.ws, **tensors}, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Latent:
        """Read what `save` wrote. Raises InputError, naming the file, for anything else."""
        told, tensors = read_declared(path, DECLARED)
        ws = tensors.pop("ws")
        changes = {name.removeprefix(CHANGE): t for name, t in tensors.items()}
        return cls(ws=ws, changes=changes, **told)


def changes(tuned: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What differs, in float16, under the generator's own names."""
    found: dict[str, Tensor] = {}
    for name, tensor in tuned.items():
        difference = (tensor.detach() - original[name]).to(torch.float16).cpu()
        if bool(difference.any()):
            found[f"synthesis.{name}"] = difference
    return found
