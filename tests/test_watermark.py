"""The watermark: invisible, and read after JPEG and resizing; none where there is none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from understudy import toybox
from understudy.pictures import watermark
from understudy.pictures.metrics import psnr
from understudy.pictures.photo import Pixels
from understudy.pictures.tensors import to_tensor

NUMBER = 0xC0FFEE42


def scene(seed: int, side: int = 512) -> Pixels:
    return toybox.render(toybox.sample_scene(seed), (side, side)).picture


def noise(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (300, 420, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pictures() -> dict[str, Pixels]:
    return {
        "scene": scene(71),
        "wide": scene(72)[100:400],
        "noise": noise(0),
        "white": np.full((256, 256, 3), 255, np.uint8),
        "black": np.zeros((256, 256, 3), np.uint8),
    }


def jpeg(pixels: Pixels, quality: int = 80) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(pixels: Pixels, factor: float) -> Pixels:
    height, width = pixels.shape[:2]
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def right(pixels: Pixels) -> float:
    """Share of the 64 bits of the message that are read correctly."""
    found = watermark.soft_bits(pixels) < 0
    return float((found == watermark._message(NUMBER)).mean())


NAMES = ("scene", "wide", "noise", "white", "black")


@pytest.mark.parametrize("name", NAMES)
def test_all_bits_are_read_from_a_png(pictures: dict[str, Pixels], name: str) -> None:
    assert watermark.read(watermark.embed(pictures[name], NUMBER)) == NUMBER


@pytest.mark.parametrize("name", [name for name in NAMES if name != "noise"])
def test_bits_survive_jpeg_and_resizing(pictures: dict[str, Pixels], name: str) -> None:
    marked = watermark.embed(pictures[name], NUMBER)
    assert right(jpeg(marked)) >= 0.95
    assert right(resized(marked, 0.75)) >= 0.95
    assert right(jpeg(resized(marked, 0.75))) >= 0.95
    assert watermark.read(jpeg(marked)) == NUMBER


@pytest.mark.parametrize("name", NAMES)
def test_the_mark_is_invisible(pictures: dict[str, Pixels], name: str) -> None:
    marked = watermark.embed(pictures[name], NUMBER)
    ratio = psnr(to_tensor(marked), to_tensor(pictures[name]))
    assert 40 < float(ratio) < 60  # decibel; a mark that changes nothing would be infinite


def test_a_mirrored_picture_is_read(pictures: dict[str, Pixels]) -> None:
    assert watermark.read(watermark.embed(pictures["scene"], NUMBER)[:, ::-1]) == NUMBER


def test_pictures_without_a_mark_have_none(pictures: dict[str, Pixels]) -> None:
    assert all(watermark.read(picture) is None for picture in pictures.values())
    assert all(watermark.read(noise(seed)) is None for seed in range(1, 10))


def test_a_damaged_message_is_no_number() -> None:
    """The CRC finds every change of one or two bits; 2^-32 of random messages pass it."""
    bits = watermark._message(NUMBER).astype(bool)
    assert watermark._number(bits) == NUMBER
    for first in range(watermark.BITS):
        for second in range(first, watermark.BITS):
            changed = bits.copy()
            changed[first] ^= True
            if second != first:
                changed[second] ^= True
            assert watermark._number(changed) is None


def test_the_fixed_plan_never_changes() -> None:
    """Old pictures must stay readable: places, directions and dither are part of the format."""
    places, directions, dither = watermark._plan()
    assert places.shape == (64, 8, 9) and directions.shape == places.shape
    assert np.unique(places).size == places.size
    assert places[0, 0].tolist() == PLACES
    assert round(float(dither[63, 7]), 6) == DITHER
    assert np.allclose(np.linalg.norm(directions, axis=-1), 1)


PLACES = [10819, 9816, 12185, 5003, 3354, 17, 1410, 12868, 14184]
DITHER = 14.160798


@pytest.mark.parametrize("number", [-1, 2**32])
def test_a_number_of_more_than_32_bits_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        watermark.embed(noise(0), number)


def test_a_small_picture_is_refused() -> None:
    small = noise(0)[:127]
    assert not watermark.markable(small)
    with pytest.raises(ValueError, match="128 pixels"):
        watermark.embed(small, NUMBER)
