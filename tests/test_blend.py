"""swap/blend.py: masks from attention, against the recorded ones and by hand."""

import json

import numpy as np
import pytest
import torch

from golden_model import GoldenCase, golden_cases, golden_folders
from golden_swaps import THRESHOLD
from understudy.attention.site import AttentionSite
from understudy.errors import InputError
from understudy.invert.source import best_grid
from understudy.transfer.blend import (
    Blend,
    MapSums,
    blended,
    latent_mask,
    subject_mask,
)


def units():
    return [
        pytest.param(folder / "diffusion", name, want, id=f"{folder.name}-{name}")
        for folder in golden_folders()
        if (folder / "diffusion" / "c_local_blend_unit.json").exists()
        for name, want in json.loads(
            (folder / "diffusion" / "c_local_blend_unit.json").read_text()
        ).items()
    ]


def site(grid, block="up", kind="cross"):
    return AttentionSite("layer", kind, 0, block, heads=2, grid=grid)


def summed(maps, places, kept=(), size=(64, 64)):
    """Feed recorded maps (layers, prompts * heads, tokens, h, w) as the U-Net's layers would."""
    layers, _, tokens, height, width = maps.shape
    sums = MapSums(places, size, kept)
    for layer in range(layers):
        rows = maps[layer].unflatten(0, (len(places), -1)).flatten(-2).transpose(-1, -2)
        sums.add(site((height, width)), rows, range(tokens), range(len(places)))
    sums.close_step()
    return sums


@pytest.mark.parametrize(
    ("folder", "name", "want"), units() or [pytest.param(*[None] * 3, marks=pytest.mark.skip)]
)
def test_golden_local_blend(folder, name, want):
    arrays = np.load(folder / "c_local_blend_unit.npz")
    places = tuple(map(tuple, want["token_positions"]))
    recorded = torch.from_numpy(arrays[f"maps_u8_B{len(places)}"]).double() / 64
    kept = tuple(map(tuple, want.get("substruct_token_positions", ())))
    height, width = recorded.shape[-2:]
    size = (4 * height, 4 * width)  # the latents' next to the maps'
    sums = summed(recorded, places, kept, size)
    if f"{name}/aggregate" in arrays:
        aggregate = torch.from_numpy(arrays[f"{name}/aggregate"])
        assert torch.allclose(sums.sums, aggregate, rtol=0, atol=1e-12)
    threshold = np.atleast_1d(want.get("threshold", THRESHOLD)).tolist()
    blend = Blend(0, places[0], places[1:], threshold[0], None, kept, threshold[-1])
    mask = blend.found(sums, size)
    expected = torch.from_numpy(arrays[f"{name}/target_keeps_own"]).bool()
    assert torch.equal(mask[:, ::4, ::4], expected)


def test_words_that_are_not_there_give_an_empty_mask():
    assert not subject_mask(torch.zeros(2, 4, 4), (8, 8), 0.3).any()


def test_the_target_keeps_source_and_target_subject():
    sums = torch.zeros(3, 8, 8)
    sums[0, 0, 0] = sums[1, 7, 7] = sums[2, 0, 7] = 1.0
    masks = subject_mask(sums, (8, 8), 0.3, widen=False)
    assert [mask.nonzero().tolist() for mask in masks] == [[[0, 0], [7, 7]], [[0, 0], [0, 7]]]


@pytest.mark.parametrize(
    ("layers", "best"),
    [
        ([(64, 64), (32, 32), (16, 16)], (16, 16)),  # Stable Diffusion at 512 px
        ([(96, 96), (48, 48), (24, 24)], (24, 24)),  # at 768 px
        ([(16, 16), (8, 8)], (16, 16)),  # the built-in model
    ],
)
def test_maps_are_read_where_objects_show_best(layers, best):
    assert best_grid(layers) == best


def test_after_the_first_step_only_one_size_is_recorded():
    sums = MapSums(((1,), (1,)), (64, 64))
    assert not sums.wants(site((8, 8), block="mid"))
    assert not sums.wants(site((16, 16), kind="self"))
    for side in (32, 16, 16):
        assert sums.wants(site((side, side)))
        sums.add(site((side, side)), torch.full((2, 3, side**2, 2), 0.5), (1, 4), range(2))
    sums.close_step()
    assert sums.wants(site((16, 16))) and not sums.wants(site((32, 32)))
    assert torch.allclose(sums.sums, torch.full((2, 16, 16), 0.5))
    sums.add(site((16, 16)), torch.full((2, 3, 256, 2), 0.5), (1, 4), range(2))
    sums.add(site((16, 16)), torch.full((2, 3, 256, 2), 0.5), (1, 4), range(2))
    sums.close_step()
    assert torch.allclose(sums.sums, torch.full((2, 16, 16), 1.0))


def test_a_given_mask_is_brought_to_the_latents_and_keeps_the_outside_exactly():
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., 8:16, 16:28] = 1
    small = latent_mask(mask, (4, 6))
    assert small.shape == (1, 1, 4, 6)
    assert small[0, 0, 1].tolist() == [0, 0, 1, 0.5, 0, 0]
    source, target = torch.randn(1, 4, 4, 6), torch.randn(2, 4, 4, 6)
    out = blended(source, target, small)
    assert torch.equal(
        out[:, :, small[0, 0] == 0], source.expand(2, -1, -1, -1)[:, :, small[0, 0] == 0]
    )
    with pytest.raises(InputError, match="at least as large"):
        latent_mask(mask, (64, 64))


def has_sums(case: GoldenCase) -> bool:
    return bool(case.matching(r"blend_sum_step_\d+"))


@golden_cases("c_photoswap", where=has_sums)
def test_golden_masks_follow_from_the_recorded_sums(case: GoldenCase) -> None:
    """Recorded sums of attention -> recorded masks, without running the model."""
    threshold = case.get("local_blend_settings", default={}).get("threshold", THRESHOLD)
    compared = 0
    for key, found in case.matching(r"blend_sum_step_(\d+)"):
        if not case.has(f"mask_step_{found[1]}"):
            continue
        sums, recorded = case.array(key), case.array(f"mask_step_{found[1]}").bool()
        size = (4 * recorded.shape[-2], 4 * recorded.shape[-1])
        assert torch.equal(subject_mask(sums, size, threshold)[0, ::4, ::4], recorded[-1])
        compared += 1
    if not compared:
        pytest.skip("sums without masks")
