"""Masks of what is selected: edges, parts, words, points, boxes; swap and edit within them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pictures
from lookers import sam_folder
from test_framing import edited
from understudy import toybox
from understudy.errors import InputError, ModelError, PromptError
from understudy.jobs.events import Result
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.jobs.selecting import grown
from understudy.masks import parts
from understudy.masks.find import find_mask
from understudy.masks.selection import Selection, centred, first_regions
from understudy.models.registry import load
from understudy.pictures import region as regions
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import read_recipe
from understudy.pictures.region import Region
from understudy.pictures.segment import guided, segmented, total_variation
from understudy.settings import RunSettings
from understudy.vision.sam import load_sam


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def scene(size: tuple[int, int] = (150, 200)) -> tuple[np.ndarray, np.ndarray]:
    """A red disc on green noise, and its mask."""
    random, true = np.random.default_rng(0), disc(size, (80, 90), 40)
    picture = np.where(true[..., None], (190, 60, 50), (70, 150, 60)).astype(float)
    return (picture + random.normal(0, 12, picture.shape)).clip(0, 255).astype(np.uint8), true


def test_a_rough_map_is_refined_to_the_edges() -> None:
    picture, true = scene()
    rough = np.full((6, 8), -2.0)
    rough[2:4, 2:5] = 2  # a few cells, none of them along the disc
    found = segmented(picture, rough)
    assert found.shape == true.shape and found.min() >= 0 and found.max() <= 1
    assert overlap(found > 0.5, true) > 0.95
    held = np.zeros((150, 200))
    held[:, 95:] = -1
    left = segmented(picture, rough, held)
    assert left[:, 100:].max() < 0.5 < left[80, 70]


def test_without_a_boundarys_cost_each_pixel_decides_for_itself() -> None:
    data = np.random.default_rng(1).normal(size=(9, 7))
    ones = np.ones_like(data)
    found = total_variation(data, (ones, ones), 0.0, 200, 0.5 * ones)
    assert np.array_equal(found > 0.5, data > 0)


def test_the_relaxation_is_exact() -> None:
    """The thresholded minimiser has the least binary energy of all 2^9 masks of a 3 x 3 picture."""
    random = np.random.default_rng(2)
    data, right, down = (random.normal(size=(3, 3)), *random.uniform(0, 1, (2, 3, 3)))

    def energy(u: np.ndarray) -> float:
        across = (right[:, :-1] * abs(np.diff(u, axis=1))).sum()
        along = (down[:-1] * abs(np.diff(u, axis=0))).sum()
        return float(0.8 * (across + along) - (data * u).sum())

    every = [np.array([n >> k & 1 for k in range(9)], float).reshape(3, 3) for n in range(512)]
    found = total_variation(data, (right, down), 0.8, 3000, np.full((3, 3), 0.5)) > 0.5
    assert energy(found.astype(float)) == pytest.approx(min(map(energy, every)), abs=1e-6)


def test_a_small_mask_follows_the_edges_of_a_large_picture() -> None:
    picture, true = scene((600, 800))
    true = disc((600, 800), (300, 400), 200)
    picture = np.where(true[..., None], (190, 60, 50), (70, 150, 60)).astype(np.uint8)
    rough = true[4::8, 4::8].astype(float)
    plain = np.kron(rough, np.ones((8, 8))) > 0.5
    assert overlap(guided(picture, rough) > 0.5, true) > max(0.99, overlap(plain, true))


def flooded(mask: np.ndarray) -> np.ndarray:
    """Parts by a flood fill, each with the largest of its places, counted from 1."""
    labels, (height, width) = np.zeros(mask.shape, int), mask.shape
    for start in reversed(np.flatnonzero(mask).tolist()):
        todo = [divmod(start, width)]
        while todo:
            row, column = todo.pop()
            inside = 0 <= row < height and 0 <= column < width
            if inside and mask[row, column] and not labels[row, column]:
                labels[row, column] = start + 1
                todo += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return labels


@pytest.mark.parametrize("share", [0.0, 0.3, 0.55, 0.7, 1.0])
def test_parts_are_those_of_a_flood_fill(share: float) -> None:
    mask = np.random.default_rng(3).random((23, 31)) < share
    assert np.array_equal(parts.labelled(mask), flooded(mask))


def test_parts_that_touch_by_a_corner_are_apart() -> None:
    mask = np.eye(4, dtype=bool)
    one = mask & (np.arange(4) == 1)
    assert np.array_equal(parts.touching(mask, one), one)


def test_parts_are_told_apart() -> None:
    mask = np.zeros((12, 12), bool)
    mask[1:5, 1:5] = mask[7:11, 7:11] = mask[0, 11] = True
    assert len(np.unique(parts.labelled(mask))) == 4
    contrast = np.where(mask, 1.0, 0)
    contrast[7:11, 7:11] = -1
    heat = np.where(mask, 1.0, 0)
    one = parts.fitting(mask, contrast, heat)
    assert one[2, 2] and not one[8, 8]
    both = parts.fitting(mask, abs(contrast), heat)
    assert both[2, 2] and both[8, 8] and not both[0, 11]  # a speck
    heat[1:5, 1:5] = 0.3  # the word fits by chance where it does not look
    hot = parts.fitting(mask, contrast, heat)
    assert hot[8, 8] and not hot[2, 2]
    wide = parts.touching(mask, mask & (np.arange(12) == 1))
    assert wide[4, 4] and not wide[8, 8]
    assert parts.clicked(mask, [(6, 6)])[8, 8] and not parts.clicked(mask, [(6, 6)])[2, 2]
    assert not parts.clicked(np.zeros((4, 4), bool), [(1, 1)]).any()


def test_selections_are_read() -> None:
    found = Selection.of(["cat", "12,40", "1, 2, 30, 40", "red dog"])
    assert found.words == ("cat", "red dog") and found.points == ((12, 40),)
    assert found.box == (1, 2, 30, 40)
    for bad in (["1,2,3"], [""], ["1,2,3,4", "5,6,7,8"], ["1,2,3,4,5"]):
        with pytest.raises(InputError, match="--select"):
            Selection.of(bad)
    for bad in (["300,5"], ["-1,5"], ["0,0,400,10"], ["5,5,1,1"]):
        with pytest.raises(InputError, match="200 x 150"):
            Selection.of(bad).check((150, 200))


def test_regions_are_moved_to_what_they_show() -> None:
    left, middle, right = (Region(x, 0, 300, 300) for x in (0, 170, 340))
    # A subject at 290 that the first has cut, and the second has whole.
    assert centred([(left, (290.0, 150.0)), (middle, (310.0, 99.0))], (300, 640)) == [
        Region(140, 0, 300, 300)
    ]
    far = centred([(left, (20.0, 150.0)), (right, (600.0, 150.0))], (300, 640))
    assert far == [Region(0, 0, 300, 300), Region(340, 0, 300, 300)]
    assert centred([], (300, 640)) == []


def test_where_a_selection_is_looked_for_first() -> None:
    size, shape = (300, 640), (128, 128)

    def first(*texts: str) -> list[tuple[int, int]]:
        return [(one.x, one.width) for one in first_regions(Selection.of(texts), size, shape)]

    assert first("cat") == [(0, 300), (170, 300), (340, 300)]
    assert first("cat", "320,20") == [(170, 300)]
    assert first("cat", "600,20") == first("cat", "600,20", "500,200") == [(340, 300)]
    assert first("cat", "200,20", "230,90") == [(66, 300)]
    whole = first_regions(Selection.of(["cat", "10,20", "600,200"]), size, shape)
    assert whole == [regions.whole(size, shape)]  # no part of the photo holds both points
    assert first_regions(Selection.of(["cat"]), (300, 400), shape) == [
        regions.whole((300, 400), shape)
    ]


@pytest.fixture(scope="module")
def model():
    return load("toybox")


@pytest.mark.parametrize(("seed", "size"), [(20_500_001, (240, 320)), (30_000_009, (300, 640))])
def test_a_word_a_point_and_a_box_find_a_rendered_subject(model, seed, size) -> None:
    """The second scene has a robot beside the dog, to which attention goes as well."""
    world = toybox.sample_scene(seed, held_out=True)
    drawn, noun = toybox.render(world, size), world.subjects[0].identity.class_name
    true = drawn.masks[0] > 0.5
    rows, columns = np.nonzero(true)
    click = f"{int(columns.mean())},{int(rows.mean())}"
    box = (columns.min() - 3, rows.min() - 3, np.ptp(columns) + 7, np.ptp(rows) + 7)
    for texts in ([noun], [noun, click], [click], [",".join(map(str, box))]):
        selection = Selection.of(texts)
        found = find_mask(model, drawn.picture, f"a photo of a {noun}", selection)
        assert found.shape == true.shape
        assert overlap(found > 0.5, true) > 0.7, texts
    with pytest.raises(PromptError, match="zebra"):
        find_mask(model, drawn.picture, f"a photo of a {noun}", Selection(("zebra",)))


def test_a_selection_limits_an_edit(here: Path) -> None:
    picture, true = scene((140, 220))
    photo = pictures.save(here / "photo.png", picture)
    made, _ = edited(photo, select=["40,30,100,100"])
    near = disc(true.shape, (80, 90), 52)
    assert np.array_equal(made[~near], picture[~near]) and not np.array_equal(made, picture)
    assert read_recipe("new.png").job["inputs"]["select"] == ["40,30,100,100"]


def test_a_found_mask_is_grown_by_a_share_of_the_subject() -> None:
    mask = torch.zeros(1, 1, 300, 300)
    mask[..., 100:200, 120:170] = 1
    rows, columns = np.nonzero(grown(mask)[0, 0].numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (94, 205, 114, 175)


def test_a_mask_limits_an_edit_of_the_models_own_size(here: Path) -> None:
    photo = pictures.save(here / "photo.png", pictures.gradient(64, 64))
    drawn = np.zeros((64, 64, 3), np.uint8)
    drawn[20:40, 20:40] = 255
    made, _ = edited(photo, mask=pictures.save(here / "mask.png", drawn))
    before = read_photo(photo).pixels
    assert np.array_equal(made[drawn[..., 0] == 0], before[drawn[..., 0] == 0])
    assert not np.array_equal(made, before)


def test_options_that_exclude_each_other_are_refused(here: Path) -> None:
    photo = pictures.save(here / "photo.png", pictures.gradient(64, 64))
    with pytest.raises(InputError, match="--mask and --select"):
        edited(photo, mask=photo, select=["cat"])
    with pytest.raises(InputError, match="--sam needs --select"):
        edited(photo, sam=here)


def test_the_command_writes_a_mask_and_a_view(here: Path) -> None:
    picture, true = scene()
    photo = pictures.save(here / "photo.png", picture)
    job = Job.of(
        "mask",
        RunSettings(model="toybox", device="cpu"),
        photo=photo,
        select=["45,35,95,95"],
        view=Path("view.png"),
        out=Path("mask.png"),
    )
    *_, result = run(job)
    assert isinstance(result, Result) and result.files == ("mask.png", "view.png")
    assert result.lines[0].startswith("mask.png   ") and result.lines[1:] == ("view.png",)
    mask, view = read_photo("mask.png").pixels, read_photo("view.png").pixels
    assert overlap(mask[..., 0] > 127, true) > 0.95
    assert np.array_equal(view[mask[..., 0] == 255], picture[mask[..., 0] == 255])
    assert view[0, 0].max() < 0.5 * picture[0, 0].max()
    assert result.values["box"] == pytest.approx([50, 40, 81, 81], abs=3)


def test_sam_draws_the_mask_where_its_folder_is_given(here: Path) -> None:
    """A random network draws no subject; size, range and dependence on what it is told count."""
    sam = load_sam(sam_folder())
    picture, _ = scene()
    point, box = sam.mask(picture, [(90, 80)], None), sam.mask(picture, [], (50, 40, 80, 80))
    assert point.shape == box.shape == (150, 200)
    assert 0 <= point.min() <= point.max() <= 1 and not np.array_equal(point, box)
    assert not np.array_equal(point, sam.mask(picture, [(10, 10)], None))
    with pytest.raises(ModelError, match="config.json"):
        load_sam(here)
