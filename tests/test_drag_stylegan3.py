"""Dragging a StyleGAN3: its input says where everything went, so that the right answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cases import few
from test_stylegan3 import SMALL, small
from understudy import cli
from understudy.drag import DragSession, drag_steps
from understudy.generators.folder import save_generator
from understudy.generators.stylegan3.generator import StyleGAN3
from understudy.pictures.photo import read_photo
from understudy.settings.drag import PRESETS, DragSettings

SIDE = 64


@cache
def gliding() -> StyleGAN3:
    """A random T whose first w moves the whole picture, and does nothing else."""
    model = StyleGAN3(SMALL, "gliding", "gliding").requires_grad_(False)
    model.load_state_dict(small().state_dict())
    ways = torch.randn(2, SMALL.w_dim, generator=torch.Generator().manual_seed(2))
    model.synthesis.input.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    model.synthesis.input.affine.weight.copy_(torch.cat([torch.zeros_like(ways), 2 * ways]))
    return model.eval()


def went(model: StyleGAN3, before: Tensor, after: Tensor) -> Tensor:
    """How far the picture went, (x, y) in pixels: the shift that w asks of the input."""
    shifts = [SIDE * model.synthesis.input.affine(ws[:, 0])[0, 2:] for ws in (before, after)]
    return shifts[1] - shifts[0]


@pytest.mark.parametrize(
    "preset, resolution",
    few(product(PRESETS, (16, 32, 64)), [*((preset, 32) for preset in PRESETS),
                                         ("best", 16), ("best", 64)]),
)  # fmt: skip
def test_handles_go_where_the_input_says(preset: str, resolution: int) -> None:
    """Handles by tracking against handles by the input's shift: the margin is no part of either."""
    model = gliding()
    start = model.latents(model.draw_z(1))
    how = {"preset": preset, "steps": 60, "layers": 1, "feature_resolution": resolution, "r2": 24}
    settings = DragSettings.filled({**how, "r1": 16, "learning_rate": 2e-3})
    pairs = [((24.0, 40.0), (31.0, 36.0)), ((44.0, 20.0), (51.0, 16.0))]
    *_, last = drag_steps(model, start, pairs, settings=settings)
    way = went(model, start, last.latent)
    assert float((way - torch.tensor([7.0, -4.0])).norm()) < (3 if resolution > 16 else 5)
    for (handle, _), point in zip(pairs, last.points, strict=True):
        true = torch.tensor(handle) + way
        off = float((torch.tensor(point) - true).norm())
        assert off < (0.3 if settings.subpixel else 1.3), (off, resolution)


def test_with_the_margin_left_on_handles_would_be_lost() -> None:
    """The authors' program stretches the whole map over the picture; there handles go astray."""
    model = gliding()
    net = model.synthesis
    ws = model.latents(model.draw_z(1))
    reached = net.walk(ws, net.layer_at(32))
    assert reached.features.shape[-1] == 52
    stretched = torch.nn.functional.interpolate(reached.features, (SIDE, SIDE), mode="bilinear")
    right = torch.nn.functional.interpolate(net.inside(reached), (SIDE, SIDE), mode="bilinear")
    # What the stretched map shows at a pixel is in truth this far from the centre:
    places = (torch.arange(SIDE) - 31.5) * 52 / 32 + 31.5
    inside = [(i, int(p)) for i, p in enumerate(places.round().tolist()) if 0 <= p < SIDE]
    for here, there in inside[2:-2]:
        apart = (stretched[0, :, 32, here] - right[0, :, 32, there]).norm()
        assert apart < 0.6 * right.std() * right.shape[1] ** 0.5
    assert abs(places[8] - 8) > 12


def test_the_command_drags_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = gliding()
    folder = save_generator(here / "gan", replace(SMALL), model.state_dict())
    words = ["--generator", str(folder), "--seed", "1", "--points", "24,40>31,36", "--steps", "25"]
    words += ["--layers", "1", "--r2", "24", "--r1", "16", "--save", "a.drag", "--film", "a.gif"]
    for dtype in ("float32", "bfloat16"):
        out = f"{dtype}.png"
        done = cli.main(
            ["drag", *words, "--dtype", dtype, "--out", out, "--device", "cpu", "--json"]
        )
        assert done == 0
        told = json.loads(capsys.readouterr().out)
        assert told["left"] < 4, told
        assert read_photo(out).size == (SIDE, SIDE)
    assert DragSession.load("a.drag").fingerprint
