"""learn/shipped.py: class latents beside a model's weights spare the drawing of class images."""

from pathlib import Path

import pytest
import torch

from tiny import tiny_model
from understudy import toybox
from understudy.errors import ModelError
from understudy.learn import Subject, learn_steps
from understudy.learn.shipped import FILE, save_latents, shipped_latents
from understudy.settings import LearnSettings

SIZE = (24, 16, 16)


def test_the_built_in_model_ships_latents_of_every_class() -> None:
    for noun in toybox.CLASSES:
        found = shipped_latents("toybox", noun, SIZE)
        assert found is not None and found.shape == (16, *SIZE) and found.isfinite().all()
    assert shipped_latents("toybox", "spoon", SIZE) is None
    assert shipped_latents("toybox", "cat", (4, 16, 16)) is None
    assert shipped_latents("no-such-model", "cat", SIZE) is None


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=FILE):
        shipped_latents(str(tmp_path), "cat", SIZE)


@pytest.mark.parametrize(("count", "drawn"), [(2, False), (3, True)])
def test_learning_draws_only_what_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, drawn: bool
) -> None:
    model = tiny_model()
    monkeypatch.setattr(model, "name", str(tmp_path))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    save_latents(tmp_path, {"cat": latents}, "a test")
    asked = {"steps": 1, "prior_samples": count, "prior_source": "shipped"}
    settings = LearnSettings.filled(asked, model.name)
    side = 8 * model.downscale
    steps = learn_steps(
        model, Subject("rex", "cat", torch.zeros(1, 3, side, side)), settings=settings
    )
    assert any(step.phase == "prior" for step in steps) == drawn


def test_whoever_says_how_class_images_are_drawn_has_them_drawn() -> None:
    assert LearnSettings.filled({}, "toybox").prior_source == "shipped"
    assert LearnSettings.filled({"prior_steps": 9}, "toybox").prior_source == "drawn"
    assert LearnSettings.filled({"preset": "paper"}, "toybox").prior_source == "drawn"
