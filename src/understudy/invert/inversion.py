"""`Inversion`, a value that is saved and loaded, and DDIM inversion.

Knows models through their protocol and latents; knows no pictures, swaps or caches.
DDIM inversion: Song et al. 2020, arXiv:2010.02502, section 4.3, conditional on the prompt, without
guidance, as null-text inversion starts (Mokady et al. 2022, arXiv:2211.09794, section 3.1).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.sampler import invert_steps, times_of
from understudy.diffusion.text import Text
from understudy.errors import InputError, PromptError
from understudy.files import spec
from understudy.files.tensors import read_declared, save_tensors
from understudy.models.interface import DiffusionModel

FORMAT = "understudy inversion 2"
METHODS = (
    *("ddim", "null-text", "negative-prompt", "direct", "seed"),
    *("euler", "midpoint", "fireflow", "uni-inv", "implicit", "rf-inversion"),
)
DECLARED = spec.TensorFile(
    FORMAT,
    "inversion",
    "inversion",
    "understudy invert",
    spec.Record(
        {
            "method": spec.Text(choices=METHODS),
            "prompt": spec.Text(),
            "model": spec.Text(4096),
            "fingerprint": spec.Text(400),
            "guidance": spec.Number(-1e6, 1e6),
            "times": spec.Items(spec.Number(-1e6, 1e6), 2, 10_001),
            "picture": spec.Text(400),
        },
        {"paired": spec.Flag(), "negative": spec.Text()},
    ),
    (
        spec.Tensors("trajectory", "_ c h w", needed=True),
        spec.Tensors("replay", "_ c h w"),
        spec.Tensors("null_embeddings", "nulls _ _"),
        spec.Tensors(r"null_embeddings\.pooled", "nulls _"),
        spec.Tensors(r"null_embeddings\.mask", "nulls _", ("bool",)),
        spec.Tensors("first_output", "1 c h w"),
    ),
)


@dataclass(frozen=True)
class Inversion:
    """A photo as noise, and what it takes to come back from there.

    Attributes:
        method: one of METHODS; "seed" for a picture that was never inverted, only generated.
        prompt: the prompt the photo was inverted with; the source prompt of any swap.
        model, fingerprint: name and weights of the model, applied concepts included.
        guidance: the scale a null-text inversion was optimised for; of no meaning to the others.
        times: the steps + 1 times of the sampling run, from noise to clean.
        picture: SHA-256 of what was inverted.
        trajectory: z*_0 (the photo) to z*_T (the noise), or its end alone.
        replay: latents of guided sampling with this inversion, z_T first; None = not known.
        null_embeddings: unconditional embedding of each step, or one for all; None = of "".
        first_output: the network's unconditional output in the first step, where whatever starts
            from z_T still shares it; None = not known.
        paired: targets move by the source's own steps plus the difference of the two outputs, so
            that equal outputs give the source exactly (direct inversion of flow models).
        negative: the negative prompt that null-text inversion tuned its embeddings from.
    """

    method: str
    prompt: str
    model: str
    fingerprint: str
    guidance: float
    times: tuple[float, ...]
    picture: str
    trajectory: Float[Tensor, "k c h w"]
    replay: Float[Tensor, "n_1 c h w"] | None = None
    null_embeddings: Text | None = None
    first_output: Float[Tensor, "1 c h w"] | None = None
    paired: bool = False
    negative: str = ""

    @property
    def steps(self) -> int:
        """Number of sampling steps."""
        return len(self.times) - 1

    @property
    def noise(self) -> Float[Tensor, "1 c h w"]:
        """z*_T, where sampling starts."""
        return self.trajectory[-1:]

    @property
    def path(self) -> Float[Tensor, "n_1 c h w"] | None:
        """The source's latents before each step and after the last; None = sampling must tell.

        Direct inversion stays on the inversion's own trajectory (Ju et al. 2023,
        arXiv:2310.01506).
        """
        # The trajectory runs from clean to noise, sampling from noise to clean.
        return self.trajectory.flip(0) if self.method == "direct" else self.replay

    @property
    def clean(self) -> Float[Tensor, "1 c h w"] | None:
        """The photo's own latents, or what replaying ends on; None = neither is known."""
        if len(self.trajectory) > 1:
            return self.trajectory[:1]
        return None if self.replay is None else self.replay[-1:]

    def uncond(self, index: int) -> Text | None:
        """The unconditional embedding of step `index`; None = that of the empty prompt."""
        if self.null_embeddings is None:
            return None
        # Negative-prompt inversion has one embedding for all steps.
        return self.null_embeddings[min(index, len(self.null_embeddings) - 1)]

    def check(self, model: DiffusionModel, prompt: str | None = None) -> None:
        """Refuse a model, a schedule or a prompt other than the inversion's.

        Raises:
            InputError: naming both models, or the step counts that differ.
            PromptError: naming both prompts.
        """
        # The fingerprint covers applied concepts: they change the weights that made the noise.
        if model.fingerprint != self.fingerprint:
            raise InputError(
                f'this inversion was made with the model "{self.model}" '
                f"({self.fingerprint[:12]}), not with {_named(model)}. Invert the photo again "
                "with this model and with the same concepts applied as in the swap."
            )
        # A changed scheduler configuration would replay other noise levels than were inverted.
        if times_of(model, self.steps, self.noise) != self.times:
            raise InputError(
                f"this inversion has times {self.times[0]} to {self.times[-1]}, which "
                f'are not in the schedule of "{model.name}". Invert the photo again.'
            )
        if prompt is not None and prompt != self.prompt:
            raise PromptError(
                f'the photo was inverted with the prompt "{self.prompt}", and the source prompt '
                f'is "{prompt}". Use the same, or invert the photo again.'
            )

    def check_run(
        self, steps: int, guidance: float, verb: str, bound: Sequence[str] = ("null-text",)
    ) -> None:
        """Raise InputError unless a run of `verb` has this inversion's number of steps.

        For the methods in `bound` it must have this inversion's guidance, too.
        """
        if steps != self.steps:
            raise InputError(
                f"the photo was inverted in {self.steps} steps, but the {verb} has "
                f"--steps {steps}. Use the same number, or invert again."
            )
        if self.method in bound and guidance != self.guidance:
            raise InputError(
                f"the photo was inverted for guidance {self.guidance}, but the {verb} has "
                f"--guidance {guidance}. Use the same, or invert again."
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, whole or not at all. Raises OutputError."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        null: Text | None = values.pop("null_embeddings")
        tensors = {name: v for name, v in values.items() if isinstance(v, Tensor)}
        tensors |= {} if null is None else null.tensors("null_embeddings")
        plain = {n: v for n, v in values.items() if v is not None and not isinstance(v, Tensor)}
        return save_tensors(path, tensors, {"format": FORMAT, "inversion": json.dumps(plain)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Inversion:
        """Read what `save` wrote. Raises InputError, naming the file, for anything else."""
        plain, tensors = read_declared(path, DECLARED, device=str(device))
        times = plain["times"] = tuple(plain["times"])
        steps = len(times) - 1
        lengths = {"trajectory": (1, steps + 1), "replay": (steps + 1,)}
        lengths["null_embeddings"] = (1, steps)
        for name, allowed in lengths.items():
            if name in tensors and len(tensors[name]) not in allowed:
                raise InputError(
                    f"{path} holds a {name} of {len(tensors[name])} entries for {steps} steps."
                )
        # Times that do not descend would let a replay run backwards without an error.
        if list(times) != sorted(times, reverse=True):
            raise InputError(f"{path} holds times that do not descend.")
        null = Text.of_tensors(tensors, "null_embeddings")
        fields: dict[str, Any] = {**plain, **tensors, "null_embeddings": null}
        return cls(**fields)


@dataclass(frozen=True)
class InvertStep:
    """One finished step of an inversion.

    index counts from 0 to total - 1; time is the one the network was told. latents "1 c h w" are
    those after the step. loss is the last one measured and inner the number of optimiser steps
    taken (null-text only). The last step carries the inversion. cached: whether that inversion
    was "found" in the cache or is "saved" there now; "" where it is not in the cache.
    """

    index: int
    total: int
    time: float
    latents: Float[Tensor, "1 c h w"]
    loss: float | None = None
    inner: int = 0
    inversion: Inversion | None = None
    cached: Literal["", "found", "saved"] = ""


@torch.no_grad()
def ddim_inversion_steps(
    model: DiffusionModel,
    latents: Float[Tensor, "1 c h w"],
    prompt: str,
    *,
    steps: int,
    method: str = "ddim",
    guidance: float = 1.0,
    null_embeddings: Text | None = None,
) -> Iterator[InvertStep]:
    """Walk from the photo's latents to noise (see `invert_steps`), keeping the trajectory.

    method, guidance and null_embeddings are passed on to the inversion.
    """
    walked = [latents]
    # Conditional on the prompt and without guidance: with guidance the errors of the inversion are
    # multiplied by its scale (Mokady et al. 2022, section 3.1).
    for step in invert_steps(model, latents, model.embed([prompt]), steps=steps):
        walked.append(step.latents)
        inversion = None
        if step.index == steps - 1:
            inversion = Inversion(
                method=method,
                prompt=prompt,
                model=model.name,
                fingerprint=model.fingerprint,
                guidance=guidance,
                times=times_of(model, steps, latents),
                picture=digest(walked[0]),
                trajectory=torch.cat(walked),
                null_embeddings=null_embeddings,
            )
        yield InvertStep(step.index, steps, step.time, step.latents, inversion=inversion)


def digest(values: Tensor) -> str:
    """SHA-256 of a tensor's shape and values at float32."""
    # float32 on the CPU: the digest is that of the picture, not of the device it lies on.
    flat = values.detach().float().cpu().contiguous()
    return hashlib.sha256(str(tuple(flat.shape)).encode() + flat.numpy().tobytes()).hexdigest()


def _named(model: DiffusionModel) -> str:
    return f'"{model.name}" ({model.fingerprint[:12]})'
