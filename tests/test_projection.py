"""Projection and pivotal tuning: recorded runs, going on, what is left behind, bad input."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tests.golden_drag import DragCase, drag_cases, golden_drag_folders
from understudy.project.pivotal_tuning import Locality, nearby, tuning_steps
from understudy.project.projection import latent_statistics, projection_steps, scheduled_rate
from understudy.settings.project import ProjectSettings


class Recorded:
    """The recorded stand-in of a perceptual network, in one of its two forms."""

    name = "recorded"

    def __init__(self, file: Path, tuning: bool) -> None:
        self.w, self.tuning = load_file(file), tuning

    def features(self, pictures: Tensor) -> tuple[Tensor, ...]:
        w = self.w
        h1 = torch.tanh(F.conv2d(pictures, w["conv1.weight"], w["conv1.bias"], 2, 1))
        return h1, torch.tanh(F.conv2d(h1, w["conv2.weight"], w["conv2.bias"], 2, 1))

    def distance(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> Tensor:
        levels = [(a - b).square() for a, b in zip(ours, theirs, strict=True)]
        if not self.tuning:
            return torch.stack([level.sum() / level[0].numel() for level in levels]).sum()[None]
        lin = (self.w["lin1"], self.w["lin2"])
        weighted = [(v * w[:, None, None]).sum(1).mean() for v, w in zip(levels, lin, strict=True)]
        return torch.stack(weighted).sum()[None]


def recorded(case: DragCase, tuning: bool) -> Recorded:
    return Recorded(case.path.with_suffix(".perceptual.safetensors"), tuning)


def target(array: Tensor) -> Tensor:
    return array[None].float() / 127.5 - 1


def relative(found: Any, wanted: Tensor, tolerance: float) -> None:
    assert torch.allclose(
        torch.tensor(found).double(), wanted.double(), rtol=tolerance, atol=1e-7
    ), (found, wanted)


KNOBS = {
    "learning_rate": "peak_lr",
    "rise": "rampup",
    "fall": "rampdown",
    "latent_noise": "initial_noise_factor",
    "latent_noise_until": "noise_ramp",
    "noise_weight": "regularize_noise_weight",
}


SETTINGS = ("learning_rate", "latent_noise", "noise_weight")


@drag_cases("d_pti", where=lambda case: "total_steps_in_schedule" in case.settings)
def test_golden_projection(case: DragCase) -> None:
    gold, how = case.arrays(), case.settings
    model = case.network(how["net"])
    samples = case.get("w_avg_samples", default=600)
    mean, spread = latent_statistics(model, samples)
    if "w_std" in gold:
        assert abs(spread - float(gold["w_std"])) < 5e-6
    start = None
    if how.get("initial_w_given"):
        start = gold["w_start"].expand(1, model.num_ws, -1)
    elif "w_mean" in gold:
        assert (mean[0, 0] - gold["w_mean"]).abs().max() < 5e-6
    told = {knob: how[name] for knob, name in KNOBS.items() if name in how}
    walk = projection_steps(
        model,
        target(gold["target_uint8"]),
        recorded(case, tuning=False),
        ProjectSettings(
            steps=how["total_steps_in_schedule"],
            seed=how["torch_manual_seed"],
            samples=samples,
            **{knob: value for knob, value in told.items() if knob in SETTINGS},
        ),
        start=start,
        **{knob: value for knob, value in told.items() if knob not in SETTINGS},
    )
    steps = list(islice(walk, len(gold["w_after"])))
    rates = torch.tensor([step.learning_rate for step in steps], dtype=torch.float64)
    if "lr" in gold:
        assert torch.allclose(rates, gold["lr"].double(), rtol=1e-9, atol=1e-15)
    for name, ours in (
        ("dist", [step.distance for step in steps]),
        ("noise_reg", [step.noise_term for step in steps]),
        ("loss", [step.loss for step in steps]),
    ):
        if name in gold:
            relative(ours, gold[name], 1e-5)
    w = torch.cat([step.ws[:, 0] for step in steps])
    assert (w - gold["w_after"]).abs().max() <= 5e-6
    assert steps[-1].ws.shape == (1, model.num_ws, model.w_dim)


@pytest.mark.skipif(not golden_drag_folders(), reason="no golden data: set UNDERSTUDY_GOLDEN")
def test_golden_schedules() -> None:
    for folder in golden_drag_folders():
        file = folder / "d_pti" / "schedules.npz"
        if not file.is_file():
            continue
        with np.load(file, allow_pickle=False) as told:
            for name in (name for name in told.files if name.startswith("lr_")):
                total = int(name.removeprefix("lr_"))
                rates = [scheduled_rate(i / total, 0.01, 0.05, 0.25) for i in range(total)]
                assert np.allclose(rates, told[name], rtol=0, atol=1e-15)


def locality_of(told: dict[str, Any]) -> Locality:
    """The recorded numbers; the authors' where one is not recorded."""
    named = {
        "distance": "alpha",
        "samples": "samples_per_step",
        "l2_weight": "l2_weight",
        "perceptual_weight": "perceptual_weight",
        "truncation": "truncation_psi",
        "seed": "numpy_seed",
    }
    return Locality(**{knob: told[n] for knob, n in named.items() if told.get(n) is not None})


@drag_cases("d_pti", where=lambda case: "max_steps" in case.settings)
def test_golden_tuning(case: DragCase) -> None:
    gold, how = case.arrays(), case.settings
    model = case.network(how["net"])
    count = case.get("images", default=sum(name.startswith("w_pivot") for name in gold))
    pivots = torch.cat([gold[f"w_pivot{i}"] for i in range(count)])
    targets = torch.cat([target(gold[f"target{i}_uint8"]) for i in range(count)])
    near = locality_of(how["locality"]) if how.get("locality") else None
    if near is not None and "w_r" in gold:
        draws = len(gold["w_r"]) // near.samples
        ways = [nearby(model, pivots, near, i) for i in range(draws)]
        assert (torch.cat(ways) - gold["w_r"]).abs().max() <= 5e-6
    before = {n: t.clone() for n, t in model.state_dict().items()}
    steps = list(
        tuning_steps(
            model,
            pivots,
            targets,
            recorded(case, tuning=True),
            ProjectSettings(
                tune_steps=how["max_steps"],
                tune_rate=how["learning_rate"],
                l2_weight=case.get("l2_weight", default=1.0),
                perceptual_weight=case.get("perceptual_weight", default=1.0),
                stop_at=case.get("early_stop_threshold", default=0.0),
            ),
            locality=near,
        )
    )
    if "optimizer_steps" in gold:
        assert sum(not step.stopped for step in steps) == int(gold["optimizer_steps"])
    for name, tolerance, ours in (
        ("l2", 1e-5, [step.l2 for step in steps]),
        ("perceptual", 1e-5, [step.perceptual for step in steps]),
        ("total", 1e-5, [step.loss for step in steps]),
        ("locality", 2e-5, [step.locality for step in steps]),
    ):
        if name in gold and len(gold[name]):
            relative(ours, gold[name], tolerance)
    if "image_last_forward" in gold:
        assert (steps[-1].picture - gold["image_last_forward"]).abs().max() <= 1e-4
    file = case.path.with_suffix(".tensors.safetensors")
    if file.is_file():
        rate = how["learning_rate"]
        for name, wanted in load_file(file).items():
            if name.startswith("param_last.synthesis."):
                found = steps[-1].tensors[name.removeprefix("param_last.synthesis.")]
                off = (found.detach() - wanted).abs()
                assert (off > 2e-5).float().mean() <= 1e-3 and off.max() <= 2 * rate, name
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
