"""The built-in generator: found by its name, faces that can be told apart, and dragged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from understudy import cli
from understudy.errors import ModelError
from understudy.generators.folder import load_generator
from understudy.models import registry
from understudy.pictures.photo import read_photo
from understudy.pictures.tensors import to_tensor
from understudy.settings.drag import DragSettings
from understudy.vision import landmarks


def nose(picture: torch.Tensor) -> torch.Tensor:
    found = landmarks.load().find(picture)
    return found.points[0, found.names.index("nose")] - 0.5


def test_it_is_listed_checked_and_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli.main(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["generators"] == ["toybox-gan"]
    assert cli.main(["models", "check", "toybox-gan"]) == 0
    assert "stylegan2, 128 px" in capsys.readouterr().out
    model = load_generator("toybox-gan", device="cpu")
    assert model.name == "toybox-gan" and model.picture_size == (128, 128)
    assert sum(file.stat().st_size for file in (registry.WEIGHTS / "toybox-gan").iterdir()) < 25e6
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    with pytest.raises(ModelError, match="build_toybox_gan"):
        load_generator("toybox-gan")


def test_coarse_layers_have_the_outlines_and_fine_layers_the_colours() -> None:
    model, finder = load_generator("toybox-gan", device="cpu"), landmarks.load()
    ws = model.latents(torch.cat([model.draw_z(seed) for seed in range(8)]), truncation=0.8)
    mixed = torch.cat([ws[:, :6], ws.roll(1, 0)[:, 6:]], dim=1)
    pictures, recoloured = model.pictures(ws).clamp(-1, 1), model.pictures(mixed).clamp(-1, 1)
    apart = (finder.find(pictures).points - finder.find(recoloured).points).norm(dim=2)
    others = (finder.find(pictures).points - finder.find(pictures.roll(1, 0)).points).norm(dim=2)
    assert apart.median() < 1.5 < 2.5 < others.median()
    colours = (pictures - recoloured).abs().mean(dim=(1, 2, 3))
    assert colours.median() > 0.1


def test_a_named_preset_comes_before_what_suits_it() -> None:
    rates = [
        DragSettings.filled(given, "toybox-gan").learning_rate
        for given in ({}, {"preset": "best"}, {"preset": "official"}, {"learning_rate": 0.5})
    ]
    assert rates == [2e-2, 2e-2, 1e-3, 0.5]
    assert DragSettings.filled({}, "a/folder").learning_rate == 2e-3


def test_a_head_is_turned_offline(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_generator("toybox-gan", device="cpu")
    before = model.pictures(model.latents(model.draw_z(3), truncation=0.7)).clamp(-1, 1)
    x, y = nose(before).tolist()
    points = f"{x:.1f},{y:.1f}>{x + 6:.1f},{y:.1f}"
    words = ["drag", "--seed", "3", "--points", points, "--out", "turned.png", "--device", "cpu"]
    assert cli.main([*words, "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["stop"] == "reached"
    after = nose(to_tensor(read_photo("turned.png").pixels))
    assert after[0] - x > 3 and abs(float(after[1]) - y) < 3
