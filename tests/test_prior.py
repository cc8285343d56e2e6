"""Class latents: the ancestral sampler against plain arithmetic, a cache that saves sampling."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from plain_ddim import ddim_step
from tiny import tiny_model
from understudy.learn.prior import (
    PriorSource,
    PriorStore,
    ancestral_samples,
    ancestral_step,
    prior_steps,
)
from understudy.models.interface import DiffusionModel

SOURCE = PriorSource("a photo of a cat", (4, 8, 8), steps=4, guidance=3.0)


def drawn(
    model: DiffusionModel, count: int, cache: Path | None = None, source: PriorSource = SOURCE
) -> tuple[Tensor, int, int]:
    """The latents, and how many steps and network evaluations they took."""
    before = model.nfe
    store = PriorStore(source.latent_size, cache and cache / source.key(model))
    steps = list(prior_steps(model, source, store, count, batch=3))
    assert [step.index for step in steps] == list(range(len(steps)))
    assert all(step.total == len(steps) for step in steps)
    return store.latents(count), len(steps), model.nfe - before


# The sampler


def test_adjacent_steps_are_the_posterior_of_ho_et_al() -> None:
    schedule = tiny_model().schedule
    random = torch.Generator().manual_seed(0)
    x, eps, z = torch.randn(3, 2, 4, 5, 5, generator=random, dtype=torch.float64)
    for t in (1, 2, 500, 999):
        a_t, a_s = schedule.alpha(t), schedule.alpha(t - 1)
        alpha = a_t / a_s
        mean = (x - (1 - alpha) / math.sqrt(1 - a_t) * eps) / math.sqrt(alpha)
        sigma = math.sqrt((1 - a_s) / (1 - a_t) * (1 - alpha))
        step = ancestral_step(schedule, x, eps, t, t - 1, z)
        torch.testing.assert_close(step, mean + sigma * z, rtol=1e-9, atol=1e-9)


def test_long_steps_are_euler_ancestral_in_sigmas() -> None:
    """Karras et al.'s sigmas: x / sqrt(a), noise of sqrt((1 - a) / a)."""
    schedule = tiny_model().schedule
    random = torch.Generator().manual_seed(0)
    x, eps, z = torch.randn(3, 2, 4, 5, 5, generator=random, dtype=torch.float64)
    t, s = 801, 521
    a_t, a_s = schedule.alpha(t), schedule.alpha(s)
    high, low = math.sqrt((1 - a_t) / a_t), math.sqrt((1 - a_s) / a_s)
    up = math.sqrt(low**2 * (high**2 - low**2) / high**2)
    down = math.sqrt(low**2 - up**2)
    scaled = x / math.sqrt(a_t) + (down - high) * eps + up * z
    step = ancestral_step(schedule, x, eps, t, s, z)
    torch.testing.assert_close(step, scaled * math.sqrt(a_s), rtol=1e-9, atol=1e-9)


def test_the_last_step_ends_on_the_clean_latent() -> None:
    model = tiny_model()
    x, eps = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    schedule = replace(model.schedule, set_alpha_to_one=True)
    clean = ancestral_step(schedule, x, eps, 1, -1, None)
    torch.testing.assert_close(clean, ddim_step(schedule, x, eps, 1, -1))


@pytest.mark.parametrize("kind", ["sd15", "toy"])
def test_samples_do_not_depend_on_their_batch(kind: str) -> None:
    model = tiny_model(kind)
    source = replace(SOURCE, latent_size=(model.latent_channels, 8, 8))
    *_, together = ancestral_samples(model, source, [0, 1, 2])
    for number in range(3):
        *_, alone = ancestral_samples(model, source, [number])
        torch.testing.assert_close(alone[0], together[number], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_guidance_costs_two_rows_a_step_and_none_of_it_one() -> None:
    model = tiny_model()
    assert drawn(model, 5)[1:] == (8, 5 * 4 * 2)
    assert drawn(model, 5, source=replace(SOURCE, guidance=1.0))[1:] == (8, 5 * 4)


# The cache


def test_a_second_subject_of_the_class_samples_nothing(tmp_path: Path) -> None:
    model = tiny_model()
    fresh, steps, rows = drawn(model, 4, tmp_path)
    assert steps == 2 * 4 and rows == 4 * 4 * 2
    again, steps, rows = drawn(tiny_model(), 4, tmp_path)
    assert steps == rows == 0 and torch.equal(again, fresh)
    fewer, steps, rows = drawn(model, 2, tmp_path)
    assert steps == rows == 0 and torch.equal(fewer, fresh[:2])


def test_more_samples_draw_the_missing_ones_only(tmp_path: Path) -> None:
    model = tiny_model()
    first, *_ = drawn(model, 3, tmp_path)
    both, steps, rows = drawn(model, 6, tmp_path)
    assert steps == 4 and rows == 3 * 4 * 2
    assert torch.equal(both[:3], first)
    assert torch.equal(both, drawn(model, 6)[0])


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model = tiny_model()
    store = PriorStore(SOURCE.latent_size, tmp_path / SOURCE.key(model))
    kept: list[int] = []
    for step in prior_steps(model, SOURCE, store, 6, batch=3):
        kept.append(step.kept)
        if step.index == 5:  # in the middle of the second batch
            break
    assert kept == [0, 0, 0, 3, 3, 3]
    latents, steps, rows = drawn(model, 6, tmp_path)
    assert steps == 4 and rows == 3 * 4 * 2
    assert torch.equal(latents, drawn(model, 6)[0])


@pytest.mark.parametrize("harm", ["cut", "empty", "shape"])
def test_a_damaged_sample_is_drawn_again(tmp_path: Path, harm: str) -> None:
    model = tiny_model()
    fresh, *_ = drawn(model, 3, tmp_path)
    file = tmp_path / SOURCE.key(model) / "00001.safetensors"
    if harm == "shape":
        PriorStore((4, 2, 2), file.parent).add(1, torch.zeros(4, 2, 2))
    else:
        file.write_bytes(file.read_bytes()[: 40 if harm == "cut" else 0])
    again, steps, rows = drawn(model, 3, tmp_path)
    assert steps == 4 and rows == 4 * 2
    torch.testing.assert_close(again, fresh, rtol=1e-4, atol=1e-4)


def test_whatever_changes_the_samples_changes_the_key() -> None:
    model = tiny_model()
    sources = [
        SOURCE,
        replace(SOURCE, prompt="a photo of a dog"),
        replace(SOURCE, steps=5),
        replace(SOURCE, guidance=7.5),
        replace(SOURCE, latent_size=(4, 8, 16)),
        replace(SOURCE, seed=1),
        replace(SOURCE, autocast=torch.bfloat16),
    ]
    keys = [source.key(model) for source in sources] + [SOURCE.key(tiny_model("sd21"))]
    assert len(set(keys)) == len(keys)
    assert SOURCE.key(model) == SOURCE.key(tiny_model())


def test_a_cache_that_cannot_be_written_loses_nothing_but_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    kept, lost = (drawn(tiny_model(), 1, place)[0] for place in (tmp_path / "folder", file))
    assert torch.equal(kept, lost)
    store = PriorStore(SOURCE.latent_size, file / "below")
    assert {step.kept for step in prior_steps(tiny_model(), SOURCE, store, 1)} == {0}
    assert file.read_text() == ""
