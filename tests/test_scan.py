"""Small subjects of large photos are looked for in tiles of several sizes."""

import numpy as np
import pytest

from benchmarks.wide import WideCase
from understudy import toybox
from understudy.masks.find import find_mask
from understudy.masks.scan import BEST, HALVINGS, Before, Spot, hottest, is_cut
from understudy.masks.selection import Selection
from understudy.models.registry import load
from understudy.pictures.region import Region, cut
from understudy.pictures.tensors import to_tensor

SHAPE = (32, 32)
NOTHING = np.zeros((480, 640), np.float32)


def photo(x, y, side, size=(480, 640)):
    """A black photo with a red square."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[y : y + side, x : x + side, 0] = 255
    return pixels


def red(pixels):
    """How red the cells of a tile are, an eighth of it each."""
    return lambda tile: (to_tensor(cut(pixels, tile, (8, 8)))[0, 0] + 1) / 2


def searched(pixels, mask, shape=SHAPE):
    """The spot found by attention to red, and the tiles seen."""
    tiles = []

    def heat(tile):
        tiles.append(tile)
        return red(pixels)(tile)

    before = Before.of(red(pixels), mask, shape)
    found = hottest(heat, pixels.shape[:2], shape, before)
    return (found[0] if found else None), tiles


@pytest.mark.parametrize(("x", "y"), [(3, 4), (301, 222), (610, 455), (20, 440)])
def test_a_small_thing_is_found_in_a_tile_that_shows_it_larger(x, y):
    spot, tiles = searched(photo(x, y, 18), NOTHING)
    assert spot.tile.width == spot.tile.height == 480 // 2**HALVINGS
    assert abs(spot.x - x - 9) < 15 and abs(spot.y - y - 9) < 15
    assert len(tiles) <= 60
    top, bottom, left, right = spot.tile.within((480, 640))
    assert top <= y + 9 < bottom and left <= x + 9 < right


def test_tiles_cover_the_photo_and_overlap_by_half():
    _, tiles = searched(photo(0, 0, 18), NOTHING)
    for side in (480, 240):
        seen = np.zeros((480, 640), int)
        for one in [one for one in tiles if one.width == side]:
            top, bottom, left, right = one.within(seen.shape)
            assert (bottom - top, right - left) == (side, side)  # nothing beyond the photo
            seen[top:bottom, left:right] += 1
        assert seen.min() >= 1
        assert seen[:, side // 2 : -side // 2].min() >= 2


def test_smaller_tiles_lie_where_the_larger_ones_were_hottest():
    _, tiles = searched(photo(40, 40, 18), NOTHING)
    quarters = [one for one in tiles if one.width == 120]
    assert 0 < len(quarters) <= BEST * 16 + 9
    assert any(one.x <= 40 and one.y <= 40 for one in quarters)


def test_a_large_thing_that_was_found_before_ends_the_search():
    pixels, mask = photo(200, 120, 200), NOTHING.copy()
    mask[120:320, 200:400] = 1
    spot, tiles = searched(pixels, mask)
    assert spot is None and min(one.width for one in tiles) == 240
    mask[:] = 0
    mask[300:] = 1  # the floor was taken for it
    assert min(one.width for one in searched(pixels, mask)[1]) == 120


def test_a_photo_of_about_the_models_size_is_not_searched():
    assert searched(photo(3, 4, 8, (64, 64)), NOTHING[:64, :64], (64, 64))[0] is None
    smallest = min(one.width for one in searched(photo(3, 4, 18), NOTHING, (200, 200))[1])
    assert smallest == 240  # tiles of 120 pixels would show no more than those


def test_a_mask_shows_a_spot_in_a_part_that_the_tile_can_hold():
    spot, mask = Spot(Region(100, 100, 120, 120), 150, 160, 1.0), NOTHING.copy()
    assert spot.share(mask) == 0
    mask[140:200, 130:190] = 1
    assert spot.share(mask) == pytest.approx(0.25, abs=0.02)
    mask[400:, 500:] = 1  # another subject elsewhere changes nothing
    assert spot.share(mask) == pytest.approx(0.25, abs=0.02)
    mask[140:200] = 1  # a band across the photo
    assert spot.share(mask) == 0


def test_another_subject_that_is_about_as_hot_is_kept():
    pixels, mask = photo(301, 222, 40), NOTHING.copy()
    spot, _ = searched(pixels, mask)
    pixels[100:140, 60:100, 0] = 200
    mask[100:140, 60:100] = 1
    assert spot.share(mask) == 0 and Before.of(red(pixels), mask, SHAPE).shows_another(spot)
    pixels[100:140, 60:100, 0] = 120
    assert not Before.of(red(pixels), mask, SHAPE).shows_another(spot)


def test_a_floor_is_not_kept_however_hot_a_corner_of_it_is():
    pixels, mask = photo(301, 222, 18), NOTHING.copy()
    spot, _ = searched(pixels, mask)
    pixels[300:340, 60:100, 0] = 255
    mask[300:] = 1
    assert not Before.of(red(pixels), mask, SHAPE).shows_another(spot)
    assert not Before.of(red(pixels), NOTHING, SHAPE).shows_another(spot)
    mask[:] = 0
    mask[150:420, 220:400] = 1  # the subject and much around it
    assert spot.share(mask) == 0
    assert not Before.of(red(pixels), mask, SHAPE).shows_another(spot)


def test_a_mask_with_much_around_the_subject_does_not_show_it():
    pixels, mask = photo(301, 222, 18), NOTHING.copy()
    spot, _ = searched(pixels, mask)
    mask[222:240, 301:319] = 1
    assert Before.of(red(pixels), mask, SHAPE).shows(spot)
    assert not Before.of(red(pixels), mask, SHAPE).shows(spot, least=0.5)
    mask[190:270, 270:350] = 1
    assert spot.share(mask) > 0 and not Before.of(red(pixels), mask, SHAPE).shows(spot)


def test_a_thing_is_cut_at_a_border_of_the_tile_inside_the_photo():
    tile, mask = Region(100, 0, 120, 120), NOTHING.copy()
    assert not is_cut(mask, tile)
    mask[0:60, 130:190] = 1  # at the photo's upper border
    assert not is_cut(mask, tile)
    mask[0:60, 100:190] = 1
    assert is_cut(mask, tile)


def test_a_subject_of_seven_percent_of_the_height_is_found():
    """Case 56 is none of SwapBench wide, which has 48."""
    case = WideCase.of(56)
    drawn = toybox.render(case.source, case.size)
    true, word = drawn.masks[0] > 0.5, Selection((case.case.noun,))

    def overlap(search: bool) -> float:
        found = find_mask(load("toybox"), drawn.picture, case.case.prompt, word, search=search)
        return float(((found > 0.5) & true).sum() / ((found > 0.5) | true).sum())

    assert overlap(search=True) > 0.4
    assert overlap(search=False) < 0.1  # too small to be seen in the whole photo
