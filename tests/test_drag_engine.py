"""One step of a drag: recorded runs of the authors' program, windows against whole maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from golden_drag import DragCase, drag_cases
from understudy.drag.engine import Engine, State
from understudy.drag.region import Grid, look
from understudy.drag.tracking import FeatureTracker, Sight
from understudy.settings.drag import DragSettings


def engine_of(case: DragCase, learning_rate: float) -> Engine:
    """The recorded case as settings."""
    recorded, arrays = case.settings, case.arrays()
    form = "mirrored" if recorded["motion_form"].startswith("mirrored") else "official"
    settings = DragSettings.filled(
        {
            "preset": form,
            "space": recorded["space"],
            "learning_rate": learning_rate,
            "r1": float(recorded["r1"]),
            "r2": float(recorded["r2"]),
            "mask_weight": float(recorded["lambda_mask"]),
            "latent_weight": float(recorded["latent_reg"]),
            "feature_resolution": recorded["feature_resolution"],
        }
    )
    mask = None
    if "mask" in arrays and arrays["mask"].min() == 0:  # all ones switch the term off there
        mask = 1 - arrays["mask"].float()[None, None]
    return Engine.made(case.network(recorded["net"]), arrays["w0"], settings, mask)


def changed(case: DragCase, engine: Engine, state: State, event: dict[str, Any]) -> Any:
    """What the recording's events do at the start of an iteration."""
    if "lr" in event:
        engine = engine_of(case, event["lr"])
        state = state.fresh_moments()
    points, targets = state.points, state.targets
    if "points" in event:
        points = torch.tensor(event["points"]).float()
    if "add_points" in event:
        points = torch.cat([points, torch.tensor(event["add_points"]).float()])
    if "targets" in event:
        targets = torch.tensor(event["targets"]).float()
    anew = event.get("reset") or len(points) != len(state.points)
    anchor = None if anew else state.anchor
    return engine, replace(state, points=points, targets=targets, anchor=anchor)


@drag_cases("c_drag", "*.json")
def test_golden_drag(case: DragCase) -> None:
    recorded, gold = case.settings, case.arrays()
    engine = engine_of(case, recorded["lr"])
    start = engine.start[0]
    drawn = case.network(recorded["net"])
    ws = drawn.latents(drawn.draw_z(recorded["w0_seed"]), truncation=recorded["truncation_psi"])
    assert (ws[0] - start).abs().max() < 2e-6
    points, targets = gold["points0"].float(), gold["targets0"].float()
    state = engine.begin(points, targets)
    spread = recorded["self_check"]["w_spread_by_iteration"]
    relative = 1e-5 if engine.fixed is None else 1e-3
    for index in range(recorded["iterations"]):
        event = recorded["events"].get(str(index))
        if event:
            engine, state = changed(case, engine, state, event)
        found, state = engine.step(state)
        n = len(found.points)
        assert torch.equal(found.points.int(), gold["points"][index, :n]), f"points at {index}"
        assert found.reached == bool(gold["stop"][index])
        tolerance = max(3e-6, 5 * spread[index])
        after = gold["w_after"][index].reshape(1, -1, start.shape[1])
        assert (state.front - after[:, : state.front.shape[1]]).abs().max() <= tolerance, index
        reported = engine.latent(found.front)[0]
        assert (reported - gold["ws_reported"][index]).abs().max() <= tolerance
        near(found.motion, gold["motion_loss"][index, :n], relative)
        near(torch.tensor(found.total), gold["total_loss"][index], relative)
        if engine.fixed is not None:
            near(torch.tensor(found.mask), gold["mask_loss"][index], relative)
        if index == 0 and "grad_step0" in gold:
            slope = 10 * state.first.reshape(-1)
            wanted = gold["grad_step0"].reshape(-1)[: len(slope)]
            assert (slope - wanted).abs().max() < 1e-6


def near(found: Tensor, wanted: Tensor, relative: float) -> None:
    torch.testing.assert_close(found, wanted, rtol=relative, atol=1e-6, equal_nan=True)


class Maps:
    """A held latent whose features are given maps."""

    moving = 1

    def __init__(self, features: Tensor) -> None:
        self.map = features

    def ws(self, front: Tensor) -> Tensor:
        return front

    def features(self, front: Tensor, resolution: int, windows: Any = None) -> Tensor:
        return self.map if windows is None else windows.cut_out(self.map)

    def picture(self, front: Tensor) -> Tensor:
        return self.map


@drag_cases("e_tracking", "*.json")
def test_golden_tracking(case: DragCase) -> None:
    if not case.settings["strict"]:
        pytest.skip("two distances whose roots round alike: informational")
    gold = case.arrays()
    side, radius = int(gold["image_resolution"]), int(gold["radius_pixels"])
    points, references = gold["points0"].float(), gold["feat_refs"]
    for frame, wanted in enumerate(gold["points"]):
        features = gold[f"feat{frame}"]
        grid = Grid((side, side), (features.shape[2], features.shape[3]))
        seen = look(Maps(features), torch.zeros(1, 1, 1), 1, grid, points, radius + 2)
        if frame == 0:
            assert torch.equal(seen.sample(points[:, None])[:, 0], references)
        sight = Sight(seen, references, lambda: torch.zeros(1, 3, 1, 1))
        points = FeatureTracker().track(sight, points, radius).points
        assert torch.equal(points.int(), wanted)
