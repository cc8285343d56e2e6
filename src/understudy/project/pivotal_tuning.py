"""Pivotal tuning: the generator is fine-tuned around a latent (Roich et al. 2021).

arXiv:2106.05744, section 3: the pivot stays, the synthesis network learns, by squared error and a
perceptual distance at full resolution. Locality regularisation (3.3) asks the bent generator to
draw near latents as it did before; as in the authors' code it is off unless asked for. The mapping
network has no part in it. The generator itself is never changed: see `Tuned.tensors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.project.optimiser import Descent
from understudy.settings.project import ProjectSettings
from understudy.vision.distance import Perceptual


@dataclass(frozen=True, kw_only=True)
class Locality:
    """How nearby latents keep their pictures.

    distance: from the pivot, towards random latents; samples: of them in every step; l2_weight,
    perceptual_weight: of the two distances; truncation: of the random latents; seed: theirs.
    """

    distance: float = 30.0
    samples: int = 1
    l2_weight: float = 0.1
    perceptual_weight: float = 0.1
    truncation: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """One evaluation of tuning, and the optimiser's step behind it, if there was one.

    l2, perceptual, locality (weighted; 0 when off) and loss belong to `picture`, drawn before the
    step. stopped: the picture is near enough, and no step was made. tensors: the synthesis
    network's parameters now, live until the next step. state: as in `projection`.
    """

    index: int
    total: int
    l2: float
    perceptual: float
    locality: float
    loss: float
    stopped: bool
    picture: Float[Tensor, "1 3 h w"]
    tensors: Mapping[str, Tensor]
    state: Callable[[], dict[str, Tensor]]


@torch.no_grad()
def tuning_steps(
    generator: StyleGAN2,
    pivots: Float[Tensor, "n num_ws w_dim"],
    targets: Float[Tensor, "n 3 h w"],
    perceptual: Perceptual,
    settings: ProjectSettings | None = None,
    *,
    locality: Locality | None = None,
    kept: Mapping[str, Tensor] | None = None,
) -> Iterator[Tuned]:
    """Fine-tune the synthesis network until it draws each target at its pivot.

    Several targets take turns, one a step, `tune_steps` times each; stop_at is for one target only.

    Args:
        locality: regularisation around the pivot (Roich et al. 2021, section 3.3); None = none.
        kept: state of an earlier step of an equal call, to continue from there, bit for bit.
    """
    settings = settings or ProjectSettings()
    bent: dict[str, Tensor] = {
        name: nn.Parameter(tensor.detach().clone())
        for name, tensor in synthesis_parameters(generator)
    }
    descent = Descent(bent, settings.tune_rate, torch.Generator())
    if kept:
        descent.restore(kept)
    wanted = [perceptual.features(target[None]) for target in targets]
    total = settings.tune_steps * len(targets)
    for index in range(descent.made, total):
        turn = index % len(targets)
        target, pivot = targets[turn : turn + 1], pivots[turn : turn + 1]
        with torch.enable_grad():
            picture = functional_call(generator.synthesis, bent, (pivot,))
            l2 = F.mse_loss(picture, target)
            seen = perceptual.distance(perceptual.features(picture), wanted[turn]).sum()
            loss = settings.l2_weight * l2 + settings.perceptual_weight * seen
            near = _locality(generator, bent, pivot, perceptual, locality, index)
            loss = loss if near is None else loss + near
            stopped = len(targets) == 1 and seen.item() <= settings.stop_at
            if not stopped:
                descent.step(loss)
        numbers = (l2.item(), seen.item(), 0.0 if near is None else near.item(), loss.item())
        yield Tuned(index, total, *numbers, stopped, picture.detach(), bent, descent.kept)
        if stopped:
            return


def synthesis_parameters(generator: StyleGAN2) -> list[tuple[str, Tensor]]:
    """What tuning may change, by its name within the synthesis network."""
    return list(generator.synthesis.named_parameters())


def _locality(
    generator: StyleGAN2,
    bent: Mapping[str, Tensor],
    pivot: Float[Tensor, "1 num_ws w_dim"],
    perceptual: Perceptual,
    locality: Locality | None,
    index: int,
) -> Float[Tensor, ""] | None:
    """How much the pictures of nearby latents changed, without noise; None when not asked for."""
    if locality is None:
        return None
    near = nearby(generator, pivot, locality, index)
    terms: list[Tensor] = []
    for ws in near.split(1):
        new = functional_call(generator.synthesis, dict(bent), (ws, "none"))
        with torch.no_grad():
            old = generator.synthesis(ws, "none")
            before = perceptual.features(old)
        seen = perceptual.distance(perceptual.features(new), before).sum()
        terms.append(locality.l2_weight * F.mse_loss(new, old) + locality.perceptual_weight * seen)
    return torch.stack(terms).mean()


@torch.no_grad()
def nearby(
    generator: StyleGAN2,
    pivot: Float[Tensor, "1 num_ws w_dim"],
    locality: Locality,
    index: int,
) -> Float[Tensor, "samples num_ws w_dim"]:
    """Latents at a distance from the pivot, towards the random latents of step `index`.

    The draws are one stream over all steps; its part for a step is found from the start, so that
    a run that goes on sees what a run in one piece would.
    """
    width, samples = generator.config.z_dim, locality.samples
    stream = np.random.RandomState(locality.seed).randn((index + 1) * samples, width)
    z = torch.from_numpy(stream[-samples:])
    towards = generator.latents(z, truncation=locality.truncation) - pivot
    lengths = towards.flatten(1).norm(dim=1)[:, None, None]
    return pivot + locality.distance * towards / lengths
