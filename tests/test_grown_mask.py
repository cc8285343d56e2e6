"""`--grow-mask`: a given mask is grown in pixels of the photo; a note where it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor

import pictures
from test_concept import concept_for
from test_framing import edited
from tiny import tiny_folder, tiny_model
from understudy import cli
from understudy.concept import Concept
from understudy.errors import InputError
from understudy.jobs import swap as jobs_swap
from understudy.jobs.events import Note, Result
from understudy.jobs.outline import lacking
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.pictures.photo import Pixels, read_photo
from understudy.pictures.planes import spread
from understudy.pictures.recipe import read_recipe
from understudy.pictures.region import cut, whole
from understudy.pictures.tensors import read_mask
from understudy.settings import InvertSettings, RunSettings, SwapSettings
from understudy.settings.inputs import MOST_GROWTH
from understudy.studio.app import create_app
from understudy.studio.config import Config

SIZE = (140, 220)
BOX = (slice(40, 100), slice(60, 120))  # of the photo: where the subject is


def white(rows: slice, columns: slice, size: tuple[int, int] = SIZE) -> Pixels:
    drawn = np.zeros((*size, 3), np.uint8)
    drawn[rows, columns] = 255
    return drawn


def shaped(drawn: Pixels) -> Tensor:
    return torch.from_numpy(drawn[None, None, ..., 0].astype(np.float32) / 255)


@pytest.fixture
def photo(here: Path) -> Path:
    """A photo larger than what the tiny model draws, a mask and a concept."""
    model = tiny_model("toy")
    model.name = str(tiny_folder("toy"))
    concept = replace(concept_for(model, "rex", 0), identifier="sks", class_noun="cat")
    concept.save(here / "concepts" / "rex")
    pictures.save(here / "mask.png", white(*BOX))
    return pictures.save(here / "photo.png", pictures.gradient(*SIZE))


def made(verb: str = "swap", out: str = "out.png", **inputs: Any) -> tuple[Pixels, list[str]]:
    """What a job writes, and its notes."""
    job = Job.of(
        verb,
        SwapSettings(steps=2, budget=0, features=0.0, self_output_steps=1, self_map_steps=1),
        RunSettings(model=str(tiny_folder("toy")), device="cpu"),
        InvertSettings(steps=2, method="direct"),
        prompt="a photo of cat",
        swap=["cat=rex"],
        out=Path(out),
        **inputs,
    )
    events = list(run(job))
    assert isinstance(events[-1], Result)
    return read_photo(out).pixels, [one.text for one in events if isinstance(one, Note)]


@pytest.mark.parametrize("by", [0, 1, 2, 3, 4, 7, 300])
def test_a_mask_grows_by_pixels_to_every_side(by: int) -> None:
    drawn = white(slice(10, 13), slice(20, 24), (40, 60))
    wanted = np.zeros_like(drawn)
    wanted[max(0, 10 - by) : 13 + by, max(0, 20 - by) : 24 + by] = 255
    assert np.array_equal(spread(drawn, by), wanted)


def test_greys_grow_as_they_are(here: Path) -> None:
    drawn = white(slice(0, 8), slice(0, 8), (16, 16)) // 2
    file = pictures.save(here / "grey.png", drawn)
    mask = read_mask(file, (16, 16), (16, 16), 2)[0, 0].numpy()
    assert np.allclose(mask[:10, :10], 127 / 255) and not mask[10:].any() and not mask[:, 10:].any()


def test_pixels_of_the_photo_are_grown_not_of_the_region(here: Path) -> None:
    file = pictures.save(here / "mask.png", white(slice(16, 32), slice(16, 32), (64, 64)))
    small = read_mask(file, (64, 64), (32, 32), 8)[0, 0].numpy()
    assert small[4:20, 4:20].min() > 0.5 and small[:3].max() < 0.1 and small[:, 21:].max() < 0.1


def test_outside_the_grown_mask_a_swap_keeps_every_pixel(photo: Path) -> None:
    before, box = read_photo(photo).pixels, white(*BOX)
    picture, _ = made(photo=photo, mask=Path("mask.png"), grow_mask=9)
    differs = (picture != before).any(-1)
    assert not differs[spread(box, 9)[..., 0] == 0].any()
    assert differs[(spread(box, 9) != box)[..., 0]].any(), "what was added changes"
    given = read_recipe("out.png").job["inputs"]
    assert given["grow_mask"] == 9
    same, _ = made(out="plain.png", photo=photo, mask=Path("mask.png"))
    assert not np.array_equal(same, picture)
    assert "grow_mask" not in read_recipe("plain.png").job["inputs"]
    assert not (same != before).any(-1)[box[..., 0] == 0].any()


def test_rerun_grows_the_mask_as_before(photo: Path) -> None:
    made(photo=photo, mask=Path("mask.png"), grow_mask=9)
    again = ["rerun", "out.png", "--out", "again.png", "--inputs", str(tiny_folder("toy").parent)]
    assert cli.main(again) == 0
    assert np.array_equal(read_photo("again.png").pixels, read_photo("out.png").pixels)


def test_a_sweep_takes_it_too(photo: Path) -> None:
    sheets = [
        made("sweep", photo=photo, mask=Path("mask.png"), vary=["cross-map=0,1"], **more)[0]
        for more in ({}, {"grow_mask": 9})
    ]
    assert not np.array_equal(*sheets)


def test_an_edit_takes_it_too(photo: Path) -> None:
    """Grown by all of the photo, a mask is white everywhere."""
    everything, _ = edited(
        photo, mask=pictures.save(Path("all.png"), np.full((*SIZE, 3), 255, "u1"))
    )
    grown, _ = edited(photo, mask=Path("mask.png"), grow_mask=MOST_GROWTH)
    assert np.array_equal(everything, grown)
    assert not np.array_equal(everything, edited(photo, mask=Path("mask.png"))[0])


def test_hiper_from_a_seed_takes_it_too(photo: Path) -> None:
    model = tiny_model("toy")
    tail = Concept(
        name="mia",
        identifier="",
        class_noun="cat",
        kind="hiper",
        base_model=model.name,
        base_fingerprint=model.base_fingerprint,
        tensors={"tail": torch.ones(3, 16)},
    )
    tail.save(Path("concepts/mia"))
    pictures.save(Path("all.png"), np.full((*SIZE, 3), 255, "u1"))
    words = ["edit", "photo.png", "--prompt", "a photo of cat", "--to", "a photo of {mia}"]
    words += ["--method", "hiper", "--concept", "mia", "--seed", "3", "--steps", "2"]
    words += ["--model", str(tiny_folder("toy")), "--out", "new.png"]
    seen: list[Pixels] = []
    for mask in (["all.png"], ["mask.png", "--grow-mask", "512"], ["mask.png"]):
        assert cli.main([*words, "--mask", *mask]) == 0
        seen.append(read_photo("new.png").pixels)
    assert np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[0], seen[2])


@pytest.mark.parametrize("more", [{"select": ["cat"]}, {"select": ["cat"], "grow_mask": 0}, {}])
def test_it_is_refused_where_there_is_no_mask(photo: Path, more: dict[str, Any]) -> None:
    given = {"grow_mask": 4, **more}
    for make in (lambda: made(photo=photo, **given), lambda: edited(photo, **given)):
        with pytest.raises(InputError, match="^--grow-mask needs --mask. [^\n]*$"):
            make()


@pytest.mark.parametrize("by", [-1, MOST_GROWTH + 1])
def test_its_bounds_are_said(photo: Path, by: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"must be from 0 to 512. Got {by}"):
        made(photo=photo, mask=Path("mask.png"), grow_mask=by)
    words = ["swap", "photo.png", "--prompt", "a cat", "--swap", "cat=rex", "--mask", "mask.png"]
    assert cli.main([*words, "--grow-mask", str(by)]) == 2
    bound = "at least 0" if by < 0 else "at most 512"
    told = capsys.readouterr().err
    assert told == f"understudy: --grow-mask must be {bound}. Got {by}.\n"


def test_the_studio_checks_it_before_a_job_is_made(tmp_path: Path) -> None:
    inputs = {"prompt": "a cat", "to": ["a dog"], "grow_mask": 513}
    with TestClient(create_app(Config(data=tmp_path)), base_url="http://127.0.0.1:8400") as client:
        content = pictures.save(tmp_path / "cat.png", pictures.gradient(64, 70)).read_bytes()
        photo = client.post("/api/uploads", files={"file": ("cat.png", content)}).json()["id"]
        answer = client.post(
            "/api/jobs", json={"verb": "edit", "inputs": {**inputs, "photo": photo}}
        )
        assert answer.status_code == 400 and "from 0 to 512. Got 513" in answer.text
        for verb in ("swap", "sweep", "edit"):
            found = {one["name"]: one for one in client.get(f"/api/verbs/{verb}").json()["inputs"]}
            assert (found["grow_mask"]["at_least"], found["grow_mask"]["at_most"]) == (0, 512)


NOTE = "the mask ends at the outline of the old subject"


@pytest.mark.parametrize(
    ("mask", "more", "noted"),
    [
        ("mask.png", {}, True),
        ("mask.png", {"grow_mask": 1}, True),
        ("mask.png", {"grow_mask": 10}, False),
        ("all.png", {}, False),
        (None, {"select": ["60,40,60,60"]}, False),
    ],
)
def test_a_mask_that_ends_at_the_old_outline_is_noted(
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    mask: str | None,
    more: dict[str, Any],
    noted: bool,
) -> None:
    pictures.save(Path("all.png"), np.full((*SIZE, 3), 255, "u1"))
    given = {} if mask is None else {"mask": Path(mask)}
    # The region covers the whole photo, so that the stub lies where the subject does.
    shape = tiny_model("toy").picture_size
    found = shaped(cut(white(*BOX), whole(SIZE, shape), shape)).round()
    monkeypatch.setattr(jobs_swap, "old_subject", lambda *_: found)
    _, notes = made(photo=photo, region="full", **given, **more)
    told = [one for one in notes if one.startswith(NOTE)]
    assert len(told) == noted
    if noted:
        assert "\n" not in told[0]
        number = int(told[0].split("--grow-mask ")[1].split()[0])
        assert 10 <= number <= 60
        _, after = made(photo=photo, region="full", mask=Path("mask.png"), grow_mask=number)
        assert not any(one.startswith(NOTE) for one in after)


def test_room_is_lacking_only_around_the_subject_that_is_meant() -> None:
    size = (120, 120)
    old = white(slice(30, 60), slice(30, 60), size)
    two = np.maximum(old, white(slice(80, 110), slice(80, 110), size))
    nowhere = np.zeros_like(old)
    assert lacking(shaped(old), shaped(old)) == 8
    assert lacking(shaped(spread(old, 4)), shaped(old)) == 0
    assert lacking(shaped(old), shaped(two)) == 8, "of the subject that the mask covers"
    assert lacking(shaped(spread(old, 4)), shaped(two)) == 0, "the other one is not meant"
    assert lacking(shaped(white(slice(30, 40), slice(30, 60), size)), shaped(old)) == 0, "a part"
    assert lacking(shaped(old), shaped(nowhere)) == 0
    large = white(slice(0, 1000), slice(0, 200), (1200, 400))
    assert lacking(shaped(large), shaped(large)) == 60
