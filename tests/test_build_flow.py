"""training/build_toybox_flow.py in miniature: it trains, goes on, and packs a folder that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training import build_toybox_diffusion
from training import build_toybox_flow as build
from understudy.models.registry import load
from understudy.toybox import sample_scene


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four random pictures in the place of the rendered ones, and steps instead of minutes."""
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, build.CHANNELS, 16, 16, generator=draws)
    monkeypatch.setattr(build, "encode_all", lambda options, vae: latents)
    monkeypatch.setattr(build, "load_masks", lambda folder, most: torch.ones(4, 1, 16, 16))
    monkeypatch.setattr(build, "load_scenes", lambda f, m: [sample_scene(n) for n in range(4)])
    monkeypatch.setattr(build_toybox_diffusion, "ticks", lambda minutes: iter([0.0] * int(minutes)))


def test_it_trains_goes_on_and_packs(few: None, tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "run"), "--device", "cpu", "--patch", "2", "--batch", "2"]
    build.main(["train", *where, "--minutes", "2"])
    build.main(["train", *where, "--minutes", "1"])
    state = torch.load(tmp_path / "run" / "flow.pt")
    assert state["step"] == 3
    network = [v for name, v in state["model"].items() if name.startswith("transformer.")]
    assert 9e6 < sum(value.numel() for value in network) < 12e6
    folder = tmp_path / "flow"
    build.main(["pack", *where, "--folder", str(folder), "--dtype", "float32"])
    model = load(str(folder), device="cpu")
    assert model.latent_channels == build.CHANNELS and model.picture_size == (128, 128)
    with torch.no_grad():
        text = model.embed(["a photo of a sks cat", ""])
        found = model.predict(torch.randn(2, build.CHANNELS, 16, 16), 0.5, text)
    assert found.shape == (2, build.CHANNELS, 16, 16) and bool(found.isfinite().all())
