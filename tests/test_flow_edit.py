"""FlowEdit and FlowAlign against float64 written from the papers; identities; refusals."""

from __future__ import annotations

import pytest
import torch

from flow_stub import FlowStub, photo
from understudy.edit import edit_steps, flow_edit_steps
from understudy.errors import InputError
from understudy.invert import invert
from understudy.settings import EditSettings, InvertSettings
from understudy.transfer.source_target import Target

SOURCE, TARGET = "a cat", "a red dog"


def made(method: str, targets=TARGET, model: FlowStub | None = None, **given):
    model = model or FlowStub()
    settings = EditSettings.filled({"method": method, "steps": 10, **given})
    latents = model.encode(photo())
    return list(flow_edit_steps(model, latents, SOURCE, targets, settings)), latents


def guided(model: FlowStub, x, sigma: float, prompt: str, scale: float):
    free, text = (model.predict(x, sigma, model.embed([said])) for said in ("", prompt))
    return free + scale * (text - free)


def by_the_paper(method: str, *, n_max=7, n_min=0, n_avg=1, seed=0, scales=(3.5, 13.5)):
    """Each step's latents, in float64."""
    model, stream = FlowStub(), torch.Generator().manual_seed(seed)
    x_src = model.encode(photo())
    sigmas, z, found, x = model.schedule.times(10), x_src.clone(), [], None

    def noise():
        return torch.randn(x_src.shape, generator=stream).double()

    for i in range(10):
        if 10 - i > n_max:
            continue
        sigma, h = sigmas[i], sigmas[i + 1] - sigmas[i]
        if method == "flowalign":
            q = (1 - sigma) * x_src + sigma * noise()
            p = z + q - x_src
            v_s, v_t, v_q = (
                model.predict(at, sigma, model.embed([said]))
                for at, said in ((p, SOURCE), (p, TARGET), (q, SOURCE))
            )
            v_p = v_s + scales[1] * (v_t - v_s)
            z = z + h * (v_p - v_q) + 0.01 * ((q - sigma * v_q) - (p - sigma * v_p))
        elif 10 - i > n_min:
            change = torch.zeros_like(z)
            for _ in range(n_avg):
                hat = (1 - sigma) * x_src + sigma * noise()
                change += guided(model, z + hat - x_src, sigma, TARGET, scales[1])
                change -= guided(model, hat, sigma, SOURCE, scales[0])
            z = z + h * change / n_avg
        else:
            if x is None:
                x = z + (1 - sigma) * x_src + sigma * noise() - x_src
            x = x + h * guided(model, x, sigma, TARGET, scales[1])
        found.append(z if x is None else x)
    return found


CASES = [
    {},
    {"n_max": 10},
    {"n_avg": 3},
    {"n_min": 3},
    {"n_max": 4, "n_min": 4},
    {"noise_seed": 5},
]


@pytest.mark.parametrize("given", CASES)
def test_flowedit_is_the_papers(given) -> None:
    steps, _ = made("flowedit", **given)
    told = {{"noise_seed": "seed"}.get(name, name): value for name, value in given.items()}
    wanted = by_the_paper("flowedit", **told)
    assert len(steps) == len(wanted) == given.get("n_max", 7)
    for step, latents in zip(steps, wanted, strict=True):
        assert (step.target - latents).abs().max() < 1e-12


@pytest.mark.parametrize("given", [{}, {"n_max": 10}])
def test_flowalign_is_the_papers(given) -> None:
    steps, _ = made("flowalign", **given)
    for step, latents in zip(steps, by_the_paper("flowalign", **given), strict=True):
        assert (step.target - latents).abs().max() < 1e-11


@pytest.mark.parametrize("method", ["flowedit", "flowalign"])
@pytest.mark.parametrize("guidance", [1.0, 5.5])
def test_equal_prompts_return_the_photo_exactly(method: str, guidance: float) -> None:
    given = {"guidance": guidance, "source_guidance": guidance, "n_max": 10}
    if method == "flowedit":
        given["n_avg"] = 2
    steps, latents = made(method, SOURCE, **given)
    assert len(steps) == 10
    for step in steps:
        assert torch.equal(step.target, latents)


def test_step_counts_are_the_published_ones_scaled() -> None:
    plain = EditSettings.filled({"method": "flowedit"})
    assert (plain.steps, plain.n_max, plain.n_min, plain.n_avg) == (50, 33, 0, 1)
    assert (plain.source_guidance, plain.guidance) == (3.5, 13.5)
    flux = EditSettings.filled({"method": "flowedit"}, "black-forest-labs/FLUX.1-dev")
    assert (flux.steps, flux.n_max, flux.source_guidance, flux.guidance) == (28, 24, 1.5, 5.5)
    assert EditSettings.filled({"method": "flowedit", "steps": 10}).n_max == 7


@pytest.mark.parametrize(
    ("method", "given", "rows"),
    [
        ("flowedit", {}, 4),
        ("flowedit", {"source_guidance": 1.0}, 3),
        ("flowedit", {"guidance": 1.0, "source_guidance": 1.0}, 2),
        ("flowalign", {}, 3),
    ],
)
def test_a_step_is_one_call(method: str, given, rows: int) -> None:
    model = FlowStub()
    steps, _ = made(method, model=model, **given)
    assert {step.nfe for step in steps} == {rows} and set(model.sizes) == {rows}


@pytest.mark.parametrize("method", ["flowedit", "flowalign"])
def test_targets_of_one_run_do_not_see_each_other(method: str) -> None:
    both, _ = made(method, [TARGET, "a house"])
    alone, _ = made(method, "a house")
    assert (both[-1].target[1:] - alone[-1].target).abs().max() < 1e-12


def test_outside_a_mask_the_photo_stays() -> None:
    model = FlowStub()
    settings = EditSettings.filled({"method": "flowedit", "steps": 6})
    latents, mask = model.encode(photo()), torch.zeros(1, 1, 12, 8)
    mask[..., :6, :] = 1
    *_, last = flow_edit_steps(model, latents, SOURCE, Target(TARGET, mask=mask), settings)
    assert torch.equal(last.target[..., 3:, :], latents[..., 3:, :])
    assert (last.target - latents)[..., :3, :].abs().max() > 0.01


def test_no_steps_are_the_photo() -> None:
    steps, latents = made("flowedit", n_max=0)
    assert len(steps) == 1 and torch.equal(steps[0].target, latents)


def test_what_does_not_fit_is_refused() -> None:
    from tiny import tiny_model

    model = tiny_model()
    settings = EditSettings.filled({"method": "flowedit", "steps": 3})
    latents = torch.zeros(1, 4, 8, 8)
    with pytest.raises(InputError, match="is a diffusion model. Use --method p2p or pnp"):
        list(flow_edit_steps(model, latents, SOURCE, TARGET, settings))
    inversion = invert(FlowStub(), photo(), SOURCE, InvertSettings.filled({"method": "direct"}))
    with pytest.raises(InputError, match="needs no inversion"):
        edit_steps(FlowStub(), inversion, TARGET, settings)
