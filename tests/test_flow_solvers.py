"""Solvers of a flow's ODE: orders of accuracy on a known field, exact inverses, RF-Inversion."""

from __future__ import annotations

from math import cos, exp, log2, sin

import pytest
import torch

from understudy.diffusion.flow import FlowSchedule
from understudy.diffusion.solvers import (
    SOLVERS,
    solver_steps,
    towards_noise_steps,
    towards_photo_steps,
)

MEAN, SPREAD = 0.7, 0.4


def velocity(x, sigma):
    """The exact velocity of data N(MEAN, SPREAD^2): E[noise - clean | x]."""
    signal = 1 - sigma
    total = signal**2 * SPREAD**2 + sigma**2
    off = x - signal * MEAN
    return sigma / total * off - (MEAN + signal * SPREAD**2 / total * off)


def logistic(x, sigma):
    """A non-linear velocity with a known solution. (For Gaussian data midpoint is of order 3.)"""
    return cos(sigma) * x * (1 - x)


def flowed(x, start, end):
    """The solution of dx/dsigma = logistic(x, sigma)."""
    return 1 / (1 + (1 / x - 1) * exp(sin(start) - sin(end)))


def drawn(seed: int = 0):
    return torch.randn(1, 2, 6, 5, generator=torch.Generator().manual_seed(seed)).double()


def walked(solver, x, sigmas, field=velocity, **how):
    steps = list(solver_steps(field, x, sigmas, solver, **how))
    return steps[-1].latents, sum(step.evaluations for step in steps)


def evenly(steps: int, start: float, end: float) -> list[float]:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64).tolist()


ORDERS = {"euler": 1, "midpoint": 2, "fireflow": 2, "uni-inv": 1, "implicit": 1}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("ends", [(0.0, 0.8), (1.0, 0.1)])
def test_orders_of_accuracy(solver: str, ends: tuple[float, float]) -> None:
    x = drawn().sigmoid()
    exact = flowed(x, *ends)
    errors = [
        (walked(solver, x, evenly(steps, *ends), logistic)[0] - exact).abs().max().item()
        for steps in (80, 160, 320)
    ]
    found = [log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert found == pytest.approx([ORDERS[solver]] * 2, abs=0.2), errors


def test_what_a_round_trip_costs() -> None:
    """8 steps of FireFlow there and back are 18 evaluations, 25 of RF-Solver 100 (flow papers)."""
    costs = {}
    for solver, steps in (("fireflow", 8), ("midpoint", 25), ("euler", 25), ("uni-inv", 25)):
        x, up = walked(solver, drawn(), evenly(steps, 0, 1))
        _, down = walked(SOLVERS[solver], x, evenly(steps, 1, 0))
        costs[solver] = up + down
    assert costs == {"fireflow": 18, "midpoint": 100, "euler": 50, "uni-inv": 51}


def curved(x, sigma):
    """A velocity without a closed solution; |h| times its Lipschitz constant is below 1."""
    return torch.sin(2 * x + sigma) - 0.5 * x.roll(1, -1) * sigma


@pytest.mark.parametrize("grid", [FlowSchedule(), FlowSchedule(3.0, "trained")])
def test_the_implicit_inverse_is_exact(grid: FlowSchedule) -> None:
    photo, sigmas = drawn(), grid.times(12)
    *_, last = up = list(
        solver_steps(curved, photo, sigmas[::-1], "implicit", tolerance=1e-13, iterations=200)
    )
    assert all(step.residual is not None and step.residual <= 1e-13 for step in up)
    back, _ = walked("euler", last.latents, sigmas, curved)
    assert (back - photo).abs().max() < 1e-6 * photo.abs().max()
    assert (back - photo).abs().max() < 1e-10


def test_more_iterations_come_nearer_and_one_is_uni_inv() -> None:
    photo, sigmas = drawn(), FlowSchedule().times(12)
    errors = []
    for iterations in (2, 3, 4, 8, 16):
        noise, _ = walked("implicit", photo, sigmas[::-1], curved, iterations=iterations)
        back, _ = walked("euler", noise, sigmas, curved)
        errors.append((back - photo).abs().max().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-5 < errors[0]
    uni, _ = walked("uni-inv", photo, sigmas[::-1], curved)
    plain, _ = walked("euler", photo, sigmas[::-1], curved)
    off = [(walked("euler", x, sigmas, curved)[0] - photo).abs().max().item() for x in (uni, plain)]
    assert off[0] < 0.5 * off[1]


def test_a_fixed_point_that_does_not_converge_says_so() -> None:
    steps = list(
        solver_steps(lambda x, s: -50 * x, drawn(), [0.0, 0.5, 1.0], "implicit", iterations=9)
    )
    assert all(step.residual is not None and step.residual > 1e-3 for step in steps)
    assert all(step.evaluations <= 9 for step in steps)


def test_equal_times_cost_nothing() -> None:
    steps = list(solver_steps(velocity, drawn(), [0.0, 0.0, 0.5], "midpoint"))
    assert [step.evaluations for step in steps] == [0, 2]


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(ValueError, match="euler, midpoint, fireflow, uni-inv, implicit"):
        list(solver_steps(velocity, drawn(), [0.0, 1.0], "heun"))


def test_rf_inversion_between_its_limits() -> None:
    """gamma 0 is the plain ODE, gamma 1 a straight line to the noise, eta 1 one to the photo."""
    photo, noise = MEAN + SPREAD * drawn(), drawn(1)
    sigmas = FlowSchedule(3.0).times(28)
    up = sigmas[::-1]

    def ended(steps):
        *_, last = steps
        return last.latents

    assert torch.allclose(
        ended(towards_noise_steps(velocity, photo, noise, up, gamma=1.0)), noise, atol=1e-12
    )
    plain = photo
    for start, end in zip(up, up[1:], strict=False):
        plain = plain + (end - start) * velocity(plain, start)
    free = ended(towards_noise_steps(velocity, photo, noise, up, gamma=0.0))
    assert torch.allclose(free, plain, atol=1e-12)
    half = ended(towards_noise_steps(velocity, photo, noise, up))
    assert (half - noise).norm() < (free - noise).norm()

    held = ended(towards_photo_steps(velocity, half, photo, sigmas, eta=1.0, stop=1.0))
    assert torch.allclose(held, photo, atol=1e-12)
    loose = ended(towards_photo_steps(velocity, half, photo, sigmas, eta=0.0))
    sampled, _ = walked("euler", half, sigmas)
    assert torch.allclose(loose, sampled, atol=1e-12)
    usual = ended(towards_photo_steps(velocity, half, photo, sigmas))
    assert (usual - photo).norm() < (loose - photo).norm()


def test_rf_inversion_is_algorithms_1_and_2() -> None:
    """Written anew in the paper's own time, from photo (t = 0) to noise (t = 1)."""
    photo, noise = drawn(), drawn(1)
    times = FlowSchedule().times(7)[::-1]
    y = photo
    for t, later in zip(times, times[1:], strict=False):
        drift = velocity(y, t) + 0.5 * ((noise - y) / (1 - t) - velocity(y, t))
        y = y + (later - t) * drift
    *_, up = towards_noise_steps(velocity, photo, noise, times)
    assert torch.allclose(up.latents, y, atol=1e-13)
    x, back = y, [1 - t for t in times[::-1]]  # the reverse process has its own time
    for step, (t, later) in enumerate(zip(back, back[1:], strict=False)):
        free = -velocity(x, 1 - t)
        pull = (photo - x) / (1 - t) - free if step < 2 else 0.0
        x = x + (later - t) * (free + 0.9 * pull)
    *_, down = towards_photo_steps(velocity, y, photo, times[::-1])
    assert torch.allclose(down.latents, x, atol=1e-12)
