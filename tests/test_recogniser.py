"""The recogniser as a machine: shapes, the door, saving and loading. What it can see is measured
when it is trained; the built-in weights are asked for the obvious at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from training.recogniser_training import save_weights
from understudy.errors import ModelError
from understudy.vision import recogniser
from understudy.vision.recogniser import HEADS, Recogniser, RecogniserNetwork, Vocabulary, peaks

WORDS = Vocabulary(
    words={head: ("this", "that", "other") for head in HEADS}, points=("nose", "tail")
)


@pytest.fixture(scope="module")
def small() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(RecogniserNetwork(WORDS, width=8, identity=6))


def pictures(count: int, h: int = 128, w: int = 128) -> torch.Tensor:
    return torch.rand(count, 3, h, w, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_shapes_and_ranges(small: Recogniser) -> None:
    seen = small.recognise(pictures(3))
    assert {head: p.shape for head, p in seen.probabilities.items()} == dict.fromkeys(HEADS, (3, 3))
    assert seen.identity.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert seen.points.shape == (3, 2, 2) and seen.visible.shape == (3, 2)
    assert seen.mask.shape == (3, 1, 128, 128)
    assert set(seen.best("class")) <= set(WORDS.words["class"])


def test_batch_size_changes_no_result(small: Recogniser) -> None:
    whole, split = (small.recognise(pictures(5), batch=n) for n in (5, 2))
    torch.testing.assert_close(whole.identity, split.identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.mask, split.mask, atol=1e-5, rtol=0)


def test_other_sizes_answer_in_their_own_pixels(small: Recogniser) -> None:
    wide = F.interpolate(pictures(1), size=(256, 384), mode="nearest")
    other, seen = small.recognise(wide), small.recognise(small.prepare(wide))
    assert other.mask.shape == (1, 1, 256, 384)
    torch.testing.assert_close(other.points, seen.points * torch.tensor([384 / 128, 256 / 128]))


def test_peaks_finds_a_gaussian_to_a_tenth_of_a_pixel() -> None:
    cells = torch.arange(32.0)
    at = torch.tensor([10.3, 20.8])  # in cells, x then y
    heat = -((cells[None] - at[0]) ** 2 + (cells[:, None] - at[1]) ** 2) / (2 * 0.7**2)
    second_hill = heat.roll((-15, 12), (0, 1)) - 2
    found = peaks(torch.maximum(heat, second_hill)[None, None])[0, 0]
    torch.testing.assert_close(found, (at + 0.5) * 4, atol=0.1, rtol=0)


def test_saved_weights_load_and_answer_alike(small: Recogniser, tmp_path: Path) -> None:
    save_weights(small.network, tmp_path, {"width": 8, "identity": 6})
    again = recogniser.load(tmp_path)
    assert again.vocabulary == WORDS
    ours, theirs = small.recognise(pictures(2)), again.recognise(pictures(2))
    torch.testing.assert_close(ours.identity, theirs.identity, atol=2e-2, rtol=0)  # half precision


def test_a_folder_without_a_recogniser_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="build_toybox_recogniser"):
        recogniser.load(tmp_path)


def test_weights_that_do_not_fit_say_so(small: Recogniser, tmp_path: Path) -> None:
    save_weights(small.network, tmp_path, {"width": 16, "identity": 6})
    with pytest.raises(ModelError, match="do not fit"):
        recogniser.load(tmp_path)


def test_a_hint_says_where_and_no_more(small: Recogniser) -> None:
    mask = torch.zeros(1, 1, 128, 128)
    assert not recogniser.hint(mask).any()
    mask[..., 20:60, 64:100] = 1
    told = recogniser.hint(mask)
    assert told.max().item() == pytest.approx(1) and told[..., :, :4].max() == 0
    plain, silent = small.recognise(pictures(1)), small.recognise(pictures(1), mask * 0)
    torch.testing.assert_close(plain.identity, silent.identity)
    assert not torch.equal(small.identity(pictures(1), mask), plain.identity)
