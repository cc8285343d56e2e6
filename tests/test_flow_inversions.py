"""Inversion of flow models: what each method stores, how exact it is, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flow_stub import FlowStub, photo
from understudy.diffusion.sampler import sample_steps
from understudy.errors import InputError
from understudy.invert import Inversion, inversion_steps, invert
from understudy.invert.rectified_flow import FLOW_METHODS
from understudy.settings import InvertSettings
from understudy.settings.invert import DIFFUSION_METHODS
from understudy.settings.invert import FLOW_METHODS as NAMED
from understudy.transfer.loop import replay_steps
from understudy.transfer.schedule import first_steps

PROMPT = "a cat"


def made(method: str, steps: int = 12, **more) -> tuple[FlowStub, Inversion]:
    model = FlowStub()
    given = {"method": method, "steps": steps, **more}
    return model, invert(model, photo(), PROMPT, InvertSettings.filled(given))  # type: ignore


def apart(a, b) -> float:
    return (a - b).abs().max().item()


@pytest.mark.parametrize("method", FLOW_METHODS)
def test_an_inversion_stores_its_times_and_its_way_back(method: str, tmp_path: Path) -> None:
    model, found = made(method)
    assert found.times == model.schedule.times(12) and found.method == method
    assert len(found.trajectory) == 13 and found.clean is not None and found.path is not None
    assert apart(found.clean, model.encode(photo())) == 0
    assert apart(found.path[:1], found.noise) == 0
    again = Inversion.load(found.save(tmp_path / "made.safetensors"))
    assert again.times == found.times and again.paired == found.paired == (method == "direct")
    assert apart(again.path, found.path) == 0
    again.check(model)
    shorter = replace(found, times=model.schedule.times(10), trajectory=found.trajectory[:11])
    shorter.check(model)
    with pytest.raises(InputError, match="the schedule"):
        other = replace(found, times=(*found.times[:-2], 0.5 * found.times[-2], 0.0))
        other.check(model)


def test_how_near_each_method_comes_to_the_photo() -> None:
    """The implicit inverse is exact to 1e-6, direct exactly; the others by their order."""
    off: dict[str, float] = {}
    for method in FLOW_METHODS:
        model, found = made(method, steps=25)
        assert found.path is not None
        off[method] = apart(found.path[-1:], model.encode(photo()))
    assert off["direct"] == 0 and off["implicit"] < 1e-6
    assert off["uni-inv"] < 0.2 * off["euler"] and off["midpoint"] < 0.1 * off["euler"]
    assert off["fireflow"] < 0.2 * off["euler"]


@pytest.mark.parametrize(
    ("method", "rows"),
    [("direct", 10), ("euler", 20), ("midpoint", 40), ("fireflow", 22), ("uni-inv", 21),
     ("rf-inversion", 20)],
)  # fmt: skip
def test_what_an_inversion_costs(method: str, rows: int) -> None:
    model, _ = made(method, steps=10)
    assert model.nfe == rows


def test_the_implicit_inverse_says_its_residual() -> None:
    settings = InvertSettings.filled({"method": "implicit", "steps": 8})
    assert settings.inner_steps == 30 and settings.epsilon == 1e-6
    steps = list(inversion_steps(FlowStub(), photo(), PROMPT, settings))
    assert len(steps) == 16 and [step.total for step in steps] == [16] * 16
    assert all(step.loss is not None and step.loss <= 1e-6 for step in steps[:8])
    assert steps[-1].inversion is not None and steps[7].inversion is None


def test_euler_is_what_the_sampler_undoes_step_by_step() -> None:
    model, found = made("euler", steps=400)
    *_, last = sample_steps(model, found.noise, model.embed([PROMPT]), steps=400)
    assert found.path is not None and apart(last.latents, found.path[-1:]) < 1e-12
    assert apart(last.latents, model.encode(photo())) < 0.02


def test_rf_inversion_holds_the_photo_by_its_numbers() -> None:
    off = [
        apart(found.path[-1:], model.encode(photo()))  # type: ignore
        for eta, stop in ((0.0, 1.0), (0.9, 0.25), (0.9, 1.0), (1.0, 1.0))
        for model, found in [made("rf-inversion", steps=16, rf_eta=eta, rf_stop=stop)]
    ]
    assert off == sorted(off, reverse=True) and off[-1] < 1e-12
    _, drawn = made("rf-inversion", rf_gamma=1.0, rf_seed=3)
    _, other = made("rf-inversion", rf_gamma=1.0, rf_seed=4)
    assert apart(drawn.noise, other.noise) > 0.5


@pytest.mark.parametrize("method", DIFFUSION_METHODS)
def test_what_is_for_diffusion_models_is_refused_with_another_way(method: str) -> None:
    with pytest.raises(InputError, match="is a flow model. Use (direct|euler)") as error:
        made(method)
    assert "midpoint" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("method", NAMED)
def test_what_is_for_flow_models_is_refused_elsewhere(method: str) -> None:
    from tiny import tiny_model

    model = tiny_model()
    picture = torch.zeros(1, 3, *model.picture_size)
    with pytest.raises(InputError, match="is a diffusion model. Use ddim"):
        invert(model, picture, PROMPT, InvertSettings.filled({"method": method, "steps": 3}))


def test_the_cache_tells_methods_and_their_numbers_apart(tmp_path: Path) -> None:
    for given in ({"method": "euler"}, {"method": "midpoint"}, {"method": "rf-inversion"},
                  {"method": "rf-inversion", "rf_seed": 1}, {"method": "euler"}):  # fmt: skip
        settings = InvertSettings.filled({"steps": 4, **given})
        invert(FlowStub(), photo(), PROMPT, settings, cache=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


# Edits by direct inversion.


def replayed(found: Inversion, target: str, guidance: float, model: FlowStub):
    return list(
        replay_steps(model, found, [target], first_steps(found.steps, 0, 0, 0), guidance=guidance)
    )


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_direct_inversion_returns_the_photo_for_equal_prompts(guidance: float) -> None:
    model, found = made("direct")
    steps = replayed(found, PROMPT, guidance, model)
    assert found.path is not None
    for step, wanted in zip(steps, found.path[1:], strict=True):
        assert torch.equal(step.target[0], wanted)
    assert torch.equal(steps[-1].target, model.encode(photo()))
    # Of source and target each the conditional row, with guidance the unconditional one besides.
    assert {step.nfe for step in steps[1:]} == {2 if guidance == 1 else 4}


def test_direct_inversion_moves_by_the_difference_of_velocities() -> None:
    model, found = made("direct", steps=6)
    steps = replayed(found, "a dog", 3.0, model)
    source, target, empty = (model.embed([said]) for said in (PROMPT, "a dog", ""))
    z, path = found.noise, found.trajectory.flip(0)
    for index, (start, end) in enumerate(zip(found.times, found.times[1:], strict=False)):

        def v(x, text, start=start):
            free = model.predict(x, start, empty)
            return free + 3.0 * (model.predict(x, start, text) - free)

        change = v(z, target) - v(path[index : index + 1], source)
        z = z + (end - start) * change + path[index + 1] - path[index]
        assert apart(steps[index].target, z) < 1e-12
    assert apart(z, model.encode(photo())) > 0.05
