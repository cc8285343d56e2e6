"""swap/explain.py and figures.py: maps are averages of attention, pictures of them readable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from test_swap import SOURCE, STEPS, model_of, null_text
from understudy.errors import InputError
from understudy.pictures.sheet import COLOURS
from understudy.settings import SwapSettings
from understudy.swap.explain import components, explain_steps
from understudy.swap.figures import attention_sheet, heat, schedule_strip, sweep_sheet
from understudy.swap.sweep import Axis, cells
from understudy.transfer.schedule import first_steps

PAPER = SwapSettings.filled({"preset": "paper"})


def test_attention_is_watched_on_the_photos_own_path():
    model = model_of()
    inversion = null_text(model, width=24)
    before = model.nfe
    steps = list(explain_steps(model, inversion, guidance=4.0))
    assert model.nfe - before == STEPS  # the conditional row alone
    assert torch.equal(steps[-1].latents, inversion.replay[-1:])
    for step in steps:
        seen = step.attention
        assert seen.size == (16, 24) and seen.self_map.shape == (384, 384)
        assert torch.allclose(seen.self_map.sum(1), torch.ones(384))
        assert list(seen.words) == ["a", "photo", "of", "cat", "on", "the", "beach"]
        assert all(heat.max() == 1 and heat.min() >= 0 for heat in seen.words.values())
    mean = torch.stack([step.attention.self_map for step in steps]).mean(0)
    assert torch.allclose(steps[-1].average.self_map, mean, atol=1e-6)
    with pytest.raises(InputError, match="no words to explain"):
        next(explain_steps(model, null_text_of(inversion), guidance=4.0))


def null_text_of(inversion):
    from dataclasses import replace

    return replace(inversion, prompt="")


def test_components_find_the_parts_of_a_map_of_two():
    left = torch.zeros(4, 6)
    left[:, :2] = 1
    flat = left.flatten()
    share = torch.outer(flat, flat) / 8 + torch.outer(1 - flat, 1 - flat) / 16
    (found,) = components(share, (4, 6), 1)
    assert found.shape == (4, 6) and set(found.unique().tolist()) == {0.0, 1.0}
    assert len(found[left == 1].unique()) == len(found[left == 0].unique()) == 1


def test_figures_are_drawn():
    model = model_of()
    inversion = null_text(model)
    *_, last = explain_steps(model, inversion, guidance=4.0)
    picture = torch.zeros(1, 3, 32, 32)
    shown = [("all steps", last.average)]
    plan, mask = first_steps(STEPS, 2, 4, 3), torch.ones(1, 1, 16, 16)
    sheet = attention_sheet(picture, shown, last.average, SOURCE, schedule=plan, mask=mask)
    strip = schedule_strip(plan, sheet.shape[1])
    assert np.array_equal(sheet[-len(strip) :], strip)
    cold, hot = heat(picture, torch.zeros(4, 4)), heat(picture, torch.ones(4, 4))
    assert cold.mean() == 128 and hot.mean() > cold.mean()
    axis = Axis("self_map_steps", (0, 2, 0.5))
    grid = cells(replace(PAPER, steps=STEPS), None, axis)
    tiles = [np.full((8, 8, 3), 80 * n, np.uint8) for n in range(3)]
    page = sweep_sheet(tiles, grid, (None, axis), "title")
    assert all((page == 80 * n).all(2).any() for n in range(3))
    marks = {"identity": [0.9, 0.5, 0.1], "layout": [0.1, 0.5, 0.9]}
    scored = sweep_sheet(tiles, grid, (None, axis), "title", marks)
    charts = scored[len(page) :]
    assert scored.shape[1] == page.shape[1] and len(charts) > 100
    right = charts[:, 2 * charts.shape[1] // 3 :]
    falling, rising = (np.argwhere((right == colour).all(2))[:, 0] for colour in COLOURS[:2])
    assert falling.mean() > rising.mean() + 50  # rows count from the top
