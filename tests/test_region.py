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


def plainly(
    picture: Pixels, region: Region, edited: np.ndarray, unedited: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """The same in float64, pixel by pixel, for an edit of the region's own size inside a photo."""
    side, by, made = region.width, 2, picture.astype(np.float64)
    for row in range(side):
        for column in range(side):
            soft = 0.0
            for down in range(-by, by + 1):  # two averages over 3 pixels, of the spread share
                for across in range(-by, by + 1):
                    y, x = (min(max(n, 0), side - 1) for n in (row + down, column + across))
                    wide = share[max(0, y - by) : y + by + 1, max(0, x - by) : x + by + 1].max()
                    soft += (3 - abs(down)) * (3 - abs(across)) / 81 * wide
            sides = [(row + 0.5) / (0.05 * side), (column + 0.5) / (0.05 * side)]
            sides += [(side - row - 0.5) / (0.05 * side), (side - column - 0.5) / (0.05 * side)]
            soft = max(soft, share[row, column])
            soft *= min(1.0, *sides)
            old = made[region.y + row, region.x + column]
            detail = old - unedited[row, column]
            change = edited[row, column] - unedited[row, column] - share[row, column] * detail
            made[region.y + row, region.x + column] = np.clip(old + soft * change, 0, 255)
    return made


def test_the_difference_is_added_to_the_photo_around_the_share() -> None:
    picture, region = photo(80, 96), Region(20, 10, 40, 40)
    random = np.random.default_rng(0)
    unedited = picture[10:50, 20:60] + random.uniform(-9, 9, (40, 40, 3))
    edited = unedited + random.uniform(-40, 40, (40, 40, 3))
    share = np.zeros((40, 40))
    share[12:25, 9:20] = random.uniform(0, 1, (13, 11))
    share[16:20, 12:16] = 1
    made = put_back(picture, region, edited, share, unedited=unedited)
    assert np.abs(made - plainly(picture, region, edited, unedited, share)).max() < 0.51


@pytest.mark.parametrize("size", [(480, 640), (300, 640), (1200, 1600)])
def test_where_an_edit_differs_by_nothing_the_photo_stays(size: tuple[int, int]) -> None:
    picture = photo(*size)
    for region in (whole(size, (128, 128)), Region(50, 40, 200, 200), Region(0, 0, 130, 130)):
        unedited = cut(picture, region, (128, 128)).astype(np.float32)
        edited, share = unedited.copy(), np.zeros((128, 128))
        assert np.array_equal(put_back(picture, region, edited, share, None, unedited), picture)
        edited[:40, :50] += 60
        share[:40, :50] = 1
        made = put_back(picture, region, edited, share, None, unedited)
        far = np.ones(size, bool)
        top, bottom, left, right = region.within(size)
        step = region.width / 128
        rows = min(bottom, region.y + round(44 * step) + 3)
        far[top:rows, left : min(right, region.x + round(54 * step) + 3)] = False
        assert np.array_equal(made[far], picture[far])
        assert not np.array_equal(made, picture)


def test_an_edge_shows_the_photos_detail_and_no_step() -> None:
    """The photo's grain is finer than the edit's pixels; the edit lightens a square."""
    grain = np.random.default_rng(1).integers(-20, 21, (400, 400, 1))
    picture = (120 + grain + np.zeros((1, 1, 3), int)).astype(np.uint8)
    region = whole((400, 400), (128, 128))
    unedited = cut(picture, region, (128, 128)).astype(np.float32)
    lift = np.zeros((128, 128), np.float32)
    rise = np.minimum(np.arange(40), 39 - np.arange(40))
    lift[40:80, 40:80] = np.minimum(12, 3 * np.minimum.outer(rise, rise))
    share = (lift > 9).astype(np.float32)
    made = put_back(picture, region, unedited + lift[..., None], share, None, unedited)
    before = put_back(picture, region, unedited + lift[..., None], (lift > 0).astype(np.float32))
    ring = slice(140, 240), slice(126, 131)  # the edit's difference grows here, its share is 0
    kept = [
        np.diff(one[ring][..., 0].astype(float), axis=0).std() for one in (picture, made, before)
    ]
    assert kept[1] == pytest.approx(kept[0], rel=0.05) and kept[2] < 0.6 * kept[0]
    change = (made.astype(int) - picture)[150:230, 118:134, 0].mean(0)
    assert np.abs(np.diff(change)).max() <= 2  # a slope of 3 a pixel of the edit


def test_a_limit_holds_around_the_share_too() -> None:
    picture, region = photo(300, 300), Region(40, 40, 200, 200)
    unedited = cut(picture, region, (128, 128)).astype(np.float32)
    limit = np.zeros((300, 300), np.float32)
    limit[90:140, 90:140] = 1
    made = put_back(picture, region, 255 - unedited, np.ones((128, 128)), limit, unedited)
    assert np.array_equal(made[limit == 0], picture[limit == 0])
    assert not np.array_equal(made[limit > 0], picture[limit > 0])
