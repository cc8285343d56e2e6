"""Regions of a photo: what is cut fits, what goes back changes nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from understudy.errors import InputError
from understudy.pictures.photo import Pixels
from understudy.pictures.region import (
    Region,
    around,
    checked,
    covering,
    cut,
    mask_box,
    parse,
    put_back,
    tiles,
    whole,
)


def photo(height: int, width: int) -> Pixels:
    """Smooth colours with a fine pattern."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 / width, y * 255 / height, 128 + 40 * np.sin(x / 3) * np.cos(y / 4)]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("text", ["auto", "full"])
def test_words_for_regions(text: str) -> None:
    assert parse(text) is None


def test_a_box_is_parsed_and_checked() -> None:
    assert parse("3, 4,50,60") == (3, 4, 50, 60)
    assert checked((3, 4, 50, 60), (100, 100)) == (3, 4, 50, 60)


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "1,2,3,4,5", "1.5,2,30,40"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="X,Y,W,H"):
        parse(text)


@pytest.mark.parametrize("box", [(-1, 0, 50, 50), (60, 0, 50, 50), (0, 0, 15, 50), (0, 60, 50, 50)])
def test_boxes_outside_the_photo_are_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="100 x 100 photo"):
        checked(box, (100, 100))


@pytest.mark.parametrize(("size", "shape"), [((300, 640), (128, 128)), ((640, 300), (96, 128))])
def test_the_whole_photo_is_covered(size: tuple[int, int], shape: tuple[int, int]) -> None:
    region = whole(size, shape)
    assert region.within(size) == (0, size[0], 0, size[1])
    assert abs(region.width / region.height - shape[1] / shape[0]) < 0.02


@pytest.mark.parametrize("size", [(300, 640), (640, 300), (200, 1000), (512, 800), (90, 150)])
@pytest.mark.parametrize("shape", [(128, 128), (96, 128)])
def test_tiles_cover_a_long_photo_without_its_mirrored_border(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    found = tiles(size, shape)
    scale = min(size[0] / shape[0], size[1] / shape[1])
    stretched = max(size[0] / shape[0], size[1] / shape[1]) / scale
    if stretched < 1.49:
        assert found == [whole(size, shape)]
        return
    seen = np.zeros(size, int)
    for region in found:
        top, bottom, left, right = region.within(size)
        assert (bottom - top, right - left) == region.size  # nothing beyond the photo
        assert abs(region.width * shape[0] - region.height * shape[1]) <= max(shape)
        seen[top:bottom, left:right] += 1
    assert len(found) > 1 and seen.min() == 1 and seen.max() > 1  # they overlap


def test_a_region_covers_its_box() -> None:
    region = covering((10, 20, 30, 50), (64, 64))
    assert region.size == (50, 50)
    assert region.x <= 10 and region.x + region.width >= 40 and region.y == 20


def test_a_region_around_a_subject_has_a_margin_and_stays_inside() -> None:
    region = around((5, 5, 40, 80), (400, 600), (128, 128))
    assert region.x == 0 and region.y == 0 and region.width == region.height
    assert region.height >= 80 * 1.7 - 1
    largest = around((50, 50, 300, 350), (400, 420), (128, 128))
    assert largest == whole((400, 420), (128, 128))


def test_the_box_of_a_mask() -> None:
    mask = np.zeros((40, 60))
    mask[10:20, 30:35] = 0.8
    assert mask_box(mask) == (30, 10, 5, 10)
    assert mask_box(mask * 0.3) == (30, 10, 5, 10)  # a faint mask, too


def test_a_region_of_the_models_own_size_is_cut_bit_for_bit() -> None:
    picture = photo(200, 300)
    found = cut(picture, Region(40, 30, 128, 128), (128, 128))
    assert np.array_equal(found, picture[30:158, 40:168])


def test_beyond_the_border_the_photo_is_mirrored() -> None:
    picture = photo(60, 100)
    found = cut(picture, Region(0, -20, 100, 100), (100, 100))
    assert np.array_equal(found[20:80], picture)
    assert np.array_equal(found[:20], picture[:20][::-1])
    assert np.array_equal(found[80:], picture[-20:][::-1])


@pytest.mark.parametrize("size", [(480, 640), (300, 640), (1200, 1600)])
def test_nothing_taken_is_the_photo_bit_for_bit(size: tuple[int, int]) -> None:
    picture = photo(*size)
    for region in (whole(size, (128, 128)), Region(50, 40, 200, 200)):
        edited = 255 - cut(picture, region, (128, 128))
        assert np.array_equal(put_back(picture, region, edited, np.zeros((128, 128))), picture)


def test_only_the_share_changes() -> None:
    picture, region = photo(480, 640), Region(100, 80, 256, 256)
    share = np.zeros((128, 128))
    share[40:80, 50:90] = 1
    made = put_back(picture, region, np.zeros((128, 128, 3), np.uint8), share)
    changed = (made != picture).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert 80 + 2 * 40 - 3 <= rows.min() and rows.max() <= 80 + 2 * 80 + 3
    assert 100 + 2 * 50 - 3 <= columns.min() and columns.max() <= 100 + 2 * 90 + 3
    assert (made[80 + 2 * 60, 100 + 2 * 70] == 0).all()  # taken whole in the middle


def test_everything_taken_is_the_edit_scaled_to_the_photo() -> None:
    size = (256, 256)
    smooth = np.broadcast_to(np.linspace(20, 230, 256)[None, :, None], (256, 256, 3)).astype(
        np.uint8
    )
    region = whole(size, (128, 128))
    edited = cut(smooth, region, (128, 128))
    made = put_back(np.zeros_like(smooth), region, edited, np.ones((128, 128)))
    assert np.abs(made[8:-8, 8:-8].astype(int) - smooth[8:-8, 8:-8]).max() <= 2


def test_the_edit_fades_out_at_a_border_inside_the_photo() -> None:
    picture = np.full((400, 400, 3), 100, np.uint8)
    region = Region(100, 100, 200, 200)
    made = put_back(picture, region, np.full((128, 128, 3), 200, np.uint8), np.ones((128, 128)))
    assert made[200, 200, 0] == 200 and made[200, 99, 0] == 100
    steps = np.abs(np.diff(made[200, 95:125, 0].astype(int)))
    assert steps.max() <= 12  # no seam
