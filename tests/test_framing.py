"""Edits of photos of any size: the result has the photo's size, and only the region changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pictures
from tiny import tiny_folder, tiny_model
from understudy.errors import InputError
from understudy.jobs import framing
from understudy.jobs.events import Note, Result
from understudy.jobs.framing import EditRegion, Wanted, frame_of
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.jobs.work import Work
from understudy.pictures.photo import Photo, Pixels, read_photo
from understudy.pictures.region import Region, whole
from understudy.pictures.tensors import to_tensor
from understudy.settings import EditSettings, InvertSettings, RunSettings

SIDE = 64  # of the tiny model's pictures
BOX = (70, 20, 80, 80)


@pytest.fixture
def photo(here: Path) -> Path:
    """Wide, and larger than what the model draws."""
    return pictures.save(here / "wide.png", pictures.gradient(140, 220))


def edited(photo: Path, **inputs: object) -> tuple[Pixels, list[str]]:
    """The picture that an edit of a photo writes, and the notes."""
    job = Job.of(
        "edit",
        EditSettings(steps=2, guidance=4.0),
        RunSettings(model=str(tiny_folder("toy")), device="cpu"),
        InvertSettings(steps=2, method="direct"),
        photo=photo,
        prompt="a photo of cat",
        to=["a photo of red dog"],
        out=Path("new.png"),
        **inputs,
    )
    events = list(run(job))
    assert isinstance(events[-1], Result)
    notes = [event.text for event in events if isinstance(event, Note)]
    return read_photo("new.png").pixels, notes


def work() -> Work:
    return Work(Job(verb="edit"), Pool())


def test_a_region_changes_and_nothing_else(photo: Path) -> None:
    before = read_photo(photo).pixels
    made, notes = edited(photo, region=",".join(map(str, BOX)))
    assert made.shape == before.shape
    x, y, width, height = BOX
    outside = np.ones(before.shape[:2], bool)
    outside[y : y + height, x : x + width] = False
    assert np.array_equal(made[outside], before[outside])
    assert not np.array_equal(made[~outside], before[~outside])
    assert any("region 70,20,80,80 of the 220 x 140 photo" in note for note in notes)


@pytest.mark.parametrize("size", [(140, 220), (220, 140), (64, 90), (30, 200)])
def test_the_whole_photo_is_edited_at_its_own_size(here: Path, size: tuple[int, int]) -> None:
    file = pictures.save(here / "photo.png", pictures.gradient(*size))
    made, notes = edited(file)
    assert made.shape == (*size, 3) and not np.array_equal(made, read_photo(file).pixels)
    assert len(notes) == 1  # nothing is cropped without a word, here nothing is cropped


def test_a_photo_of_the_models_size_has_no_frame(here: Path) -> None:
    file = pictures.save(here / "photo.png", pictures.gradient(SIDE, SIDE))
    made, notes = edited(file)
    assert made.shape == (SIDE, SIDE, 3) and notes == []


def test_a_mask_says_where(photo: Path, here: Path) -> None:
    drawn = np.zeros((140, 220, 3), np.uint8)
    drawn[40:80, 150:190] = 255
    mask = pictures.save(here / "mask.png", drawn)
    made, notes = edited(photo, mask=mask)
    before = read_photo(photo).pixels
    assert made.shape == before.shape
    assert np.array_equal(made[:, :120], before[:, :120])  # far from the mask
    (note,) = notes
    left, top, width, height = (int(n) for n in note.split("region ")[1].split(" ")[0].split(","))
    assert left <= 150 and top <= 40 and left + width >= 190 and top + height >= 80


@pytest.mark.parametrize("region", ["nowhere", "1,2,3", "200,20,80,80", "0,0,4,4"])
def test_other_regions_are_refused(photo: Path, region: str) -> None:
    with pytest.raises(InputError, match="--region must"):
        edited(photo, region=region)


def test_a_subject_is_found_where_predictions_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference of two prompts is large in a few cells: the region lies around them."""
    model = tiny_model("toy")
    cells = SIDE // model.downscale

    def found(_model: object, latents: torch.Tensor, *_: object) -> torch.Tensor:
        one = torch.zeros(1, cells, cells)
        one[:, cells // 2 : cells // 2 + 3, 1:4] = 1
        return one

    monkeypatch.setattr(framing, "differences", found)
    opened = Photo(Path("a.png"), pictures.gradient(400, 400))
    wanted = Wanted("auto", "a cat", ("a dog",))
    frame = frame_of(work(), model, opened, None, wanted)
    assert frame is not None
    scale = 400 / cells
    region = frame.region
    assert region.x <= scale and region.x + region.width >= 4 * scale
    assert region.y <= (cells // 2) * scale <= region.y + region.height
    assert region.width < 0.8 * 400
    none = frame_of(work(), model, opened, None, Wanted("auto"))
    assert none is not None and none.region == whole((400, 400), (SIDE, SIDE))


def test_putting_back_an_unchanged_region_is_the_photo() -> None:
    photo = pictures.gradient(200, 300)
    frame = EditRegion(photo, Region(40, 30, 120, 120))
    picture = frame.picture((SIDE, SIDE))
    assert np.array_equal(frame.put_back(picture, picture), photo)
    assert not np.array_equal(frame.put_back(-picture, picture), photo)


def test_a_mask_is_cut_like_the_photo() -> None:
    mask = np.zeros((200, 300), np.float32)
    mask[60:90, 100:160] = 1
    frame = EditRegion(
        np.repeat((255 * mask).astype(np.uint8)[..., None], 3, 2), Region(80, 40, 96, 96)
    )
    drawn = frame.mask(torch.from_numpy(mask)[None, None], (SIDE, SIDE))
    picture = (frame.picture((SIDE, SIDE))[:, :1] + 1) / 2
    assert torch.allclose(drawn, picture, atol=1 / 255)
    assert to_tensor(frame.photo).shape == (1, 3, 200, 300)


def test_a_named_subject_is_looked_at_until_the_region_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look finds the subject a third smaller than it was shown; it ends at its true size."""
    true = (300, 260, 40, 40)
    shown: list[tuple[int, int]] = []

    def find(_model: object, pixels: Pixels, *_: object, search: bool) -> np.ndarray:
        """A mask around the subject, which the first pixel of a part tells the place of."""
        height, width = pixels.shape[:2]
        shown.append((height, width))
        assert search == (len(shown) == 1)  # in tiles once: later looks are in the found part
        left, top = int(pixels[0, 0, 0]) * 4, int(pixels[0, 0, 1]) * 4
        mask = np.zeros((height, width), np.float32)
        x, y, rim = true[0] - left, true[1] - top, max(0, (width - 100) // 6)
        mask[max(0, y - rim) : y + true[3] + rim, max(0, x - rim) : x + true[2] + rim] = 1
        return mask

    monkeypatch.setattr(framing, "find_mask", find)
    rows, columns = np.mgrid[0:800, 0:1000]
    pixels = np.stack([columns // 4, rows // 4, 0 * rows], axis=2).astype(np.uint8)
    wanted = Wanted("auto", "a cat", ("a dog",), words=("cat",))
    frame = frame_of(work(), tiny_model("toy"), Photo(Path("a.png"), pixels), None, wanted)
    assert frame is not None and len(shown) >= 3
    region = frame.region
    assert region.width < 130 and region.x <= true[0] and region.y <= true[1]
    assert region.x + region.width >= true[0] + true[2]
    assert region.y + region.height >= true[1] + true[3]


def test_a_word_that_is_not_found_falls_back_to_predictions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(*_: object, search: bool) -> np.ndarray:
        raise InputError("nothing was found")

    monkeypatch.setattr(framing, "find_mask", nothing)
    opened = Photo(Path("a.png"), pictures.gradient(100, 160))
    frame = frame_of(
        work(), tiny_model("toy"), opened, None, Wanted("auto", "a cat", ("a dog",), words=("cat",))
    )
    assert frame is not None
