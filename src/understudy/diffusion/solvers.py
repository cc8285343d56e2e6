"""Solvers of a rectified flow's ODE dx/dsigma = v(x, sigma), in either direction.

One loop with a predictor (`SOLVERS`) covers plain Euler and the published inverters. A step goes
from sigma to sigma' with h = sigma' - sigma and is x' = x + h v(p, tau):

    name       point p                            time tau   evaluations per step
    euler      x                                  noisier    1
    midpoint   x + h/2 v(x, sigma)                middle     2
    fireflow   x + h/2 (v of the last step)       middle     1, one more in the first step
    uni-inv    x + h (v of the last step)         sigma'     1, one more in the first step
    implicit   the solution of p = x + h v(p, sigma')        as many as it takes

"noisier" is the larger of sigma and sigma'. midpoint is RF-Solver (arXiv:2411.04746): its second
order expansion, with the derivative as a finite difference over half a step, is the explicit
midpoint rule. fireflow: arXiv:2412.07517. uni-inv: Uni-Inv of arXiv:2504.13109. implicit is the
exact inverse of an Euler step, by fixed-point iteration; uni-inv is its first iterate.

Knows latents and a velocity as a callable; knows nothing of models or prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.schedule import wide

Velocity = Callable[[Tensor, float], Tensor]
"""(latents "b c h w", sigma) -> velocity "b c h w", noise - clean."""

# Each inverter, and the solver that goes back from its noise.
SOLVERS = {
    "euler": "euler",
    "midpoint": "midpoint",
    "fireflow": "fireflow",
    "uni-inv": "euler",
    "implicit": "euler",
}


@dataclass(frozen=True)
class SolverStep:
    """One finished step.

    index counts from 0 to total - 1; start and end are its sigmas. latents "b c h w" are those
    after it, float32 or finer. evaluations of the velocity that it took. residual: of the implicit
    equation, the root mean square relative to that of the latents; None for the other solvers.
    """

    index: int
    total: int
    start: float
    end: float
    latents: Float[Tensor, "b c h w"]
    evaluations: int
    residual: float | None = None


def solver_steps(
    velocity: Velocity,
    latents: Float[Tensor, "b c h w"],
    sigmas: Sequence[float],
    solver: str = "euler",
    *,
    tolerance: float = 1e-6,
    iterations: int = 50,
) -> Iterator[SolverStep]:
    """Walk latents along `sigmas`, ascending (towards the noise) or descending.

    Args:
        solver: a key of SOLVERS.
        tolerance, iterations: implicit: the residual at which a step is solved, and how many
            evaluations it may take at most. The iteration converges where |h| times the Lipschitz
            constant of the velocity is below 1; where it does not, the best iterate is taken, and
            its residual says so.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}. Got {solver!r}.")
    x, last = wide(latents), None
    total = len(sigmas) - 1
    for index, (start, end) in enumerate(pairwise(sigmas)):
        h, count, residual = end - start, 1, None
        # Times may repeat at the ends of a shifted grid.
        if h == 0:
            yield SolverStep(index, total, start, end, x, 0)
            continue
        # Both reuse the velocity of the step before, so the first step needs one evaluation more.
        if last is None and solver in ("fireflow", "uni-inv"):
            last, count = velocity(x, start), 2
        if solver == "euler":
            # Euler evaluates at the noisier end in both directions, so that a walk back uses the
            # same times as the sampler.
            last = velocity(x, max(start, end))
        elif solver == "midpoint":
            # Second order: the error of a step falls with h^3 instead of h^2.
            last, count = velocity(x + h / 2 * velocity(x, start), start + h / 2), 2
        elif solver == "fireflow":
            assert last is not None
            # FireFlow: the midpoint velocity of the last step stands for the one at x. Second order
            # at the cost of one evaluation.
            last = velocity(x + h / 2 * last, start + h / 2)
        elif solver == "uni-inv":
            assert last is not None
            last = velocity(x + h * last, end)
        else:
            last, count, residual = _implicit(velocity, x, last, end, h, tolerance, iterations)
        x = x + h * last
        yield SolverStep(index, total, start, end, x, count, residual)


def _implicit(
    velocity: Velocity,
    x: Tensor,
    guess: Tensor | None,
    end: float,
    h: float,
    tolerance: float,
    iterations: int,
) -> tuple[Tensor, int, float]:
    """v with v = velocity(x + h v, end), how many evaluations it took, and its residual.

    guess: the velocity to begin with; None = that at x itself.
    """
    count = 0
    if guess is None:
        guess, count = velocity(x, end), 1
    size = float(x.square().mean().sqrt()) or 1.0
    best, least = guess, float("inf")
    # Fixed-point iteration of v = velocity(x + h v, end).
    while count < max(iterations, 2):
        found = velocity(x + h * guess, end)
        count += 1
        residual = abs(h) * float((found - guess).square().mean().sqrt()) / size
        if residual < least:
            # The point of `guess` is what was tested, so its residual belongs to `guess`.
            best, least = guess, residual
        if residual <= tolerance:
            # `found` is one contraction nearer to the solution than the guess that passed.
            return found, count, residual
        guess = found
    return best, count, least


@torch.no_grad()
def towards_noise_steps(
    velocity: Velocity,
    photo: Float[Tensor, "1 c h w"],
    noise: Float[Tensor, "1 c h w"],
    sigmas: Sequence[float],
    *,
    gamma: float = 0.5,
) -> Iterator[SolverStep]:
    """RF-Inversion's controlled forward ODE (Rout et al. 2024, arXiv:2410.10792, Algorithm 1).

    dy = [v + gamma (u - v)] dsigma with u = (noise - y) / (1 - sigma), the straight way to a
    typical noise. sigmas ascend. gamma 0 is the plain ODE, gamma 1 ends in `noise`. The velocity
    is evaluated at the start of a step, so 1 - sigma is never 0.

    The published code differs: it tells the network times i / 29, spaced evenly, and moves by the
    differences of the shifted sigmas in the order of denoising. Here both are those of the step.
    """
    y, total = wide(photo), len(sigmas) - 1
    for index, (start, end) in enumerate(pairwise(sigmas)):
        v = velocity(y, start)
        # The velocity of the straight line from y, at sigma = start, to the noise at sigma = 1.
        straight = (wide(noise) - y) / (1 - start)
        y = y + (end - start) * (v + gamma * (straight - v))
        yield SolverStep(index, total, start, end, y, 1)


@torch.no_grad()
def towards_photo_steps(
    velocity: Velocity,
    noise: Float[Tensor, "b c h w"],
    photo: Float[Tensor, "1 c h w"],
    sigmas: Sequence[float],
    *,
    eta: float = 0.9,
    stop: float = 0.25,
) -> Iterator[SolverStep]:
    """RF-Inversion's controlled reverse ODE (Algorithm 2).

    dx = [v + eta (u - v)] dsigma with u = (x - photo) / sigma, the straight way to the photo, in
    steps that begin within the first share `stop` of the steps; the plain ODE behind them. sigmas
    descend. eta 1 over all steps ends in the photo.
    """
    x, total = wide(noise), len(sigmas) - 1
    for index, (start, end) in enumerate(pairwise(sigmas)):
        v = velocity(x, start)
        # The pull fixes the layout in the first steps; later steps are free to change details.
        if index < stop * total:
            v = v + eta * ((x - wide(photo)) / start - v)
        x = x + (end - start) * v
        yield SolverStep(index, total, start, end, x, 1)
