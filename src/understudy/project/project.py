"""project: a photo -> a Latent, by projection, then pivotal tuning; can go on where it stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError
from understudy.files.tensors import load_tensors, save_tensors
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.project.latent import Latent, changes
from understudy.project.pivotal_tuning import Locality, synthesis_parameters, tuning_steps
from understudy.project.projection import projection_steps
from understudy.settings.project import ProjectSettings
from understudy.vision.distance import Perceptual

Phase = Literal["project", "tune", "done"]
FORMAT = "understudy projection 1"


@dataclass(frozen=True, eq=False)
class ProjectProgress:
    """Where a projection stands, to go on from there.

    key: says of which photo, generator, settings and measure. tensors: of the optimiser, and ws
    once projection is done.
    """

    key: str
    phase: Phase
    tensors: Mapping[str, Tensor] = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, whole or not at all. Raises OutputError."""
        header = {"format": FORMAT, "key": self.key, "phase": self.phase}
        return save_tensors(path, self.tensors, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ProjectProgress | None:
        """Read what `save` wrote; None for anything else, since one can always begin again."""
        try:
            tensors, header = load_tensors(path)
            if header.get("format") != FORMAT or header.get("phase") not in ("project", "tune"):
                return None
            phase: Phase = "project" if header["phase"] == "project" else "tune"
            return cls(header["key"], phase, tensors)
        except (OSError, KeyError):
            return None


@dataclass(frozen=True)
class ProjectStep:
    """Where projecting stands.

    phase: "project", "tune", then "done" once. index counts from 0 to total - 1 within a phase.
    perceptual: the measure's distance; psnr: dB of the picture against the photo; both of the
    picture before the step, or of the final one when done. progress: every `keep_every` steps.
    latent: when done.
    """

    phase: Phase
    index: int
    total: int
    loss: float
    perceptual: float
    psnr: float
    progress: ProjectProgress | None = None
    latent: Latent | None = None


def project(
    generator: StyleGAN2,
    picture: Float[Tensor, "1 3 h w"],
    perceptual: Perceptual,
    settings: ProjectSettings | None = None,
) -> Latent:
    """Project a picture to the end; see `project_steps`."""
    *_, last = project_steps(generator, picture, perceptual, settings)
    assert last.latent is not None, "the last step has the latent"
    return last.latent


@torch.no_grad()
def project_steps(
    generator: StyleGAN2,
    picture: Float[Tensor, "1 3 h w"],
    perceptual: Perceptual,
    settings: ProjectSettings | None = None,
    *,
    progress: ProjectProgress | None = None,
) -> Iterator[ProjectStep]:
    """Find the latent of a picture, then bend the generator around it, step by step.

    picture: of the generator's size, in [-1, 1]. progress: of an earlier run; one of another
    photo, generator or settings is passed over. The generator is never changed. Raises InputError
    for a picture of another size, UnderstudyError when the loss stops being a number.
    """
    settings = settings or ProjectSettings.filled({}, generator.name)
    _check(generator, picture)
    picture = picture.to(generator.mapping.w_avg)
    key = progress_key(generator, picture, perceptual, settings)
    kept = progress if progress is not None and progress.key == key else None

    # Where in W or W+ the photo lies.
    ws = kept.tensors["ws"].to(picture) if kept is not None and kept.phase == "tune" else None
    if ws is None:
        ws = yield from _projecting(generator, picture, perceptual, settings, key, kept)
        kept = None

    # What the generator must change to draw it.
    bent = yield from _tuning(generator, ws, picture, perceptual, settings, key, kept)
    record = {**settings.to_dict(), "measure": perceptual.name}
    latent = Latent(
        ws=ws.cpu(),
        generator=generator.name,
        fingerprint=generator.fingerprint,
        picture=digest(picture),
        changes=bent,
        record=record,
    )

    # How well what will be loaded again draws it.
    drawn = latent.tuned(generator).pictures(ws)
    seen = perceptual.distance(perceptual.features(drawn), perceptual.features(picture)).item()
    quality = decibels(drawn, picture)
    latent = replace(latent, record={**record, "psnr": quality, "perceptual": seen})
    yield ProjectStep("done", 0, 1, float("nan"), seen, quality, latent=latent)


def _projecting(
    generator: StyleGAN2,
    picture: Float[Tensor, "1 3 h w"],
    perceptual: Perceptual,
    settings: ProjectSettings,
    key: str,
    kept: ProjectProgress | None,
) -> Generator[ProjectStep, None, Float[Tensor, "1 num_ws w_dim"]]:
    """Yield the steps of projection, return the latent found."""
    ws = None
    steps = projection_steps(
        generator,
        picture,
        perceptual,
        settings,
        kept=None if kept is None else kept.tensors,
    )
    for step in steps:
        ws = step.ws
        progress = None
        if (step.index + 1) % settings.keep_every == 0 or step.index + 1 == settings.steps:
            progress = ProjectProgress(key, "project", {"ws": ws.cpu(), **step.state()})
        quality = decibels(step.picture, picture)
        numbers = (step.loss, step.distance, quality)
        yield ProjectStep("project", step.index, step.total, *numbers, progress)
    if ws is None:  # it was all done when it stopped
        assert kept is not None
        return kept.tensors["ws"].to(picture)
    return ws


def _tuning(
    generator: StyleGAN2,
    ws: Float[Tensor, "1 num_ws w_dim"],
    picture: Float[Tensor, "1 3 h w"],
    perceptual: Perceptual,
    settings: ProjectSettings,
    key: str,
    kept: ProjectProgress | None,
) -> Generator[ProjectStep, None, dict[str, Tensor]]:
    """Yield the steps of tuning, return what changed."""
    if settings.tune_steps == 0:
        return {}
    weight = settings.locality
    near = Locality(l2_weight=weight, perceptual_weight=weight, seed=settings.seed)
    steps = tuning_steps(
        generator,
        ws,
        picture,
        perceptual,
        settings,
        locality=near if weight else None,
        kept=None if kept is None else kept.tensors,
    )
    bent: Mapping[str, Tensor] = {}
    for step in steps:
        bent = step.tensors
        progress = None
        if (step.index + 1) % settings.keep_every == 0 and not step.stopped:
            progress = ProjectProgress(key, "tune", {"ws": ws.cpu(), **step.state()})
        numbers = (step.loss, step.perceptual, decibels(step.picture, picture))
        yield ProjectStep("tune", step.index, step.total, *numbers, progress)
    if not bent and kept is not None:  # all steps were made when it stopped
        bent = {name: kept.tensors[name].to(ws) for name, _ in synthesis_parameters(generator)}
    return changes(bent, dict(synthesis_parameters(generator)))


def _check(generator: StyleGAN2, picture: Float[Tensor, "b c h w"]) -> None:
    if len(picture) != 1 or tuple(picture.shape[-2:]) != generator.picture_size:
        height, width = generator.picture_size
        raise InputError(
            f"{generator.name or 'The generator'} draws {width} x {height} pixels. Got a picture "
            f"of {picture.shape[-1]} x {picture.shape[-2]}; fit it first."
        )
    if generator.config.img_channels != 3:
        raise InputError(
            f"Expected a generator of RGB pictures, not {generator.config.img_channels}."
        )
    if not bool(torch.isfinite(picture).all()):
        raise InputError("The picture holds numbers that are not finite.")


def progress_key(
    generator: StyleGAN2, picture: Tensor, perceptual: Perceptual, settings: ProjectSettings
) -> str:
    """Names everything a projection depends on."""
    told = {name: value for name, value in settings.to_dict().items() if name != "keep_every"}
    parts = [generator.fingerprint, digest(picture), perceptual.name, told]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest(picture: Tensor) -> str:
    """SHA-256 of a picture's numbers."""
    return hashlib.sha256(picture.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def decibels(drawn: Tensor, picture: Tensor) -> float:
    """PSNR in dB of a drawn picture, clamped as it is shown, against another in [-1, 1]."""
    error = F.mse_loss(drawn.clamp(-1, 1).double(), picture.double()).item()
    return 10 * math.log10(4 / max(error, 1e-12))
