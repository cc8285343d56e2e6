"""What a model's files say of sampling is honoured as diffusers reads it, or refused by name."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from understudy.diffusion.sampler import advance
from understudy.errors import ModelError
from understudy.models.schedule_config import load_schedule
from understudy.models.single_file_marks import scaling_factor_of, scheduler_of
from understudy.untrusted.checkpoint_file import read_file

CURVE: dict[str, Any] = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
                         "beta_schedule": "scaled_linear", "clip_sample": False,
                         "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def scheduler(folder: Path, **more: Any) -> Path:
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({**CURVE, **more}))
    return folder


@pytest.mark.parametrize("steps", [1, 7, 30, 50, 333])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_are_spaced_as_diffusers_does(spacing: str, steps: int, tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    schedule = load_schedule(scheduler(tmp_path, timestep_spacing=spacing))
    oracle: Any = DDIMScheduler.from_config({**CURVE, "timestep_spacing": spacing})
    oracle.set_timesteps(steps)
    assert list(schedule.times(steps))[:-1] == oracle.timesteps.tolist()


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("rescale", [False, True])
def test_velocity_with_zero_terminal_snr_is_sampled_as_diffusers_does(
    rescale: bool, spacing: str, tmp_path: Path
) -> None:
    from diffusers import DDIMScheduler

    config = {**CURVE, **ZERO, "rescale_betas_zero_snr": rescale, "timestep_spacing": spacing}
    schedule = load_schedule(scheduler(tmp_path, **config))
    assert schedule.prediction == "v_prediction"
    oracle: Any = DDIMScheduler.from_config(config)
    oracle.set_timesteps(10)
    random = torch.Generator().manual_seed(0)
    x = y = torch.randn(1, 4, 8, 8, generator=random)
    for t, end in pairwise(schedule.times(10)):
        v = torch.randn(x.shape, generator=random)
        x = advance(schedule, x, v, t, end)
        y = oracle.step(v, t, y).prev_sample
    # With alpha 0 at the last timestep diffusers is exact; 2^-24 stands for it here.
    assert torch.allclose(x, y, atol=3e-3 if rescale else 1e-5)
    assert float(schedule.alphas_cumprod[-1]) == (
        2.0**-24 if rescale else pytest.approx(0.00466, rel=0.01)
    )


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"prediction_type": "noise"}, "predicts 'noise'"),
        ({"prediction_type": 3}, "predicts '3'"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr with prediction_type epsilon"),
        ({"rescale_betas_zero_snr": "yes"}, "rescale_betas_zero_snr = 'yes'"),
        ({"timestep_spacing": "karras"}, "timestep_spacing = 'karras'"),
        ({"steps_offset": -1}, "steps_offset = -1"),
        ({"steps_offset": 1.5}, "steps_offset = 1.5"),
        ({"steps_offset": 1000}, "steps_offset = 1000"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps"),
        ({"beta_start": float("nan")}, "beta_start"),
        (
            {"beta_start": 0.9, "beta_end": 1.0, "beta_schedule": "linear"},
            "not a valid noise schedule",
        ),
        ({"beta_schedule": "sigmoid"}, "beta_schedule"),
        ({"trained_betas": [0.1, "x"]}, "trained_betas"),
        ({"trained_betas": [0.1, 0.2]}, "differ in length"),
        ({"clip_sample": True}, "clip_sample"),
        ({"thresholding": True}, "thresholding"),
        ({"timestep_type": "continuous"}, "timestep_type"),
        ({"sigma_data": 0.5}, "sigma_data"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscrete"),
        ({"_class_name": "LCMScheduler"}, "LCMScheduler"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    values: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=match):
        load_schedule(scheduler(tmp_path, **values))


def marked(
    place: Path, family: str, names: str = "", notes: dict[str, str] | None = None, yaml: str = ""
) -> dict[str, Any]:
    """The scheduler of a single file with these marker tensors, header entries and .yaml file."""
    file = place / "model.safetensors"
    save_file({name: torch.empty(0) for name in ["x", *names.split()]}, file, notes)
    if yaml:
        (place / "model.yaml").write_text(yaml)
    return scheduler_of(file, family, *read_file(file))


@pytest.mark.parametrize(
    ("family", "names", "notes", "yaml", "wanted"),
    [
        ("xl", "", {}, "", {"prediction_type": "epsilon"}),
        ("xl", "v_pred", {}, "", {"prediction_type": "v_prediction"}),
        ("xl", "v_pred ztsnr", {}, "", {**ZERO, "timestep_spacing": "trailing"}),
        ("xl", "v_pred ztsnr", {"timestep_spacing": "leading"}, "",
         {"timestep_spacing": "leading"}),
        ("xl", "v_pred", {"rescale_betas_zero_snr": "True"}, "", ZERO),
        ("xl", "", {"modelspec.prediction_type": "v"}, "", {"prediction_type": "v_prediction"}),
        ("2", "", {"prediction_type": "epsilon"}, "", {"prediction_type": "epsilon"}),
        ("xl", "", {}, "a:\n  target: x.VScaling\n", {"prediction_type": "v_prediction"}),
        ("1", "", {}, "params:\n  parameterization: v\n  zero_terminal_snr: true\n", ZERO),
        ("1", "", {}, "  linear_start: 0.001\n  linear_end: 0.02\n  timesteps: 500\n",
         {"beta_start": 0.001, "beta_end": 0.02, "num_train_timesteps": 500}),
        ("1", "", {}, "  steps_offset: 0\n", {"steps_offset": 0}),
    ],
)  # fmt: skip
def test_marks_of_single_files_are_honoured(
    family: str, names: str, notes: dict[str, str], yaml: str, wanted: dict[str, Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    found = marked(tmp_path, family, names, notes or None, yaml)
    assert {key: found.get(key) for key in wanted} == wanted
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(found))
    load_schedule(tmp_path)


@pytest.mark.parametrize(
    ("names", "notes", "yaml", "match"),
    [
        ("edm_vpred.sigma_max edm_vpred.sigma_min", {}, "", "edm_vpred.sigma_max"),
        ("edm_mean edm_std", {}, "", "edm_mean"),
        (
            "",
            {"modelspec.architecture": "stable-diffusion-xl-v1-edm"},
            "",
            "modelspec.architecture",
        ),
        ("", {}, "  target: sgm.EDMScaling\n", "EDMScaling"),
        ("v_pred", {"modelspec.prediction_type": "epsilon"}, "", "says velocity and .* says noise"),
        ("v_pred", {}, "  parameterization: eps\n", "says velocity and .* says noise"),
        ("", {"modelspec.prediction_type": "x0"}, "", "'x0'"),
        ("", {}, "  parameterization: x0\n", "'x0'"),
        ("", {}, "  linear_start: many\n", "'many'"),
    ],
)
def test_marks_that_cannot_be_honoured_are_refused_by_name(
    names: str, notes: dict[str, str], yaml: str, match: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=match):
        marked(tmp_path, "xl", names, notes or None, yaml)


def test_the_scaling_factor_may_be_stated(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("model:\n  scale_factor: 0.5\n")
    assert scaling_factor_of(tmp_path / "m.ckpt", 0.18215) == 0.5
    assert scaling_factor_of(tmp_path / "other.ckpt", 0.18215) == 0.18215
