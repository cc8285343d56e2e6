"""Photos before learning: what is wrong is found and named, quickly, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import pictures
from tiny import tiny_folder
from understudy import cli
from understudy.errors import ModelError, PictureError
from understudy.jobs.photos import preflight as job_preflight
from understudy.jobs.photos import toys_only
from understudy.models.folder import native_size, parameter_counts
from understudy.pictures.likeness import NEAR, mark
from understudy.pictures.photo import glance
from understudy.pictures.shapes import cut_share
from understudy.preflight import BLURRED, preflight, sharpness


def scene(seed: int, height: int = 600, width: int = 600) -> np.ndarray:
    """A picture full of edges, another one for each seed."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST))


def blurred(pixels: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photos, all but the first with something to say about."""
    folder = tmp_path / "photos"
    pictures.save(folder / "1 good.png", scene(1))
    pictures.save(folder / "2 blurred.png", blurred(scene(2), 9))
    pictures.save(folder / "3 wide.png", scene(3, 520, 1100))
    pictures.save(folder / "4 small.png", scene(4, 300, 300))
    pictures.save(folder / "5 dark.png", scene(5) // 6)
    copied = (folder / "1 good.png").read_bytes()
    (folder / "6 same.png").write_bytes(copied)
    again = np.asarray(Image.fromarray(scene(1)[10:, 10:]).resize((530, 530)))
    pictures.save(folder / "7 again.jpg", again, quality=60)
    pictures.truncated(folder / "8 cut short.jpg")
    (folder / ".DS_Store").touch()
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "class images").mkdir()
    return folder


def test_each_photo_is_told_what_is_wrong_with_it(photos: Path) -> None:
    report = preflight(photos, buckets=False)
    found = {one.file: one.warnings for one in report.photos}
    assert found.pop("8 cut short.jpg") == () and found.pop("1 good.png") == ()
    for (name, words), said in zip(
        found.items(),
        (
            "looks blurred",
            "cropping to the middle removes 53%",
            "smaller than the model's 512 x 512",
            "is very dark",
            "is the same file as 1 good.png",
            "is almost the same picture as 1 good.png",
        ),
        strict=True,
    ):
        assert len(words) == 1 and said in words[0], (name, words)
    assert report.warnings == ("several aspect ratios (1:1, 2:1): each is cropped to its middle",)
    assert report.notes == (
        f"class images/ is a folder inside {photos} and was skipped.",
        "hidden files were skipped: 2.",
    )
    with pytest.raises(PictureError, match="8 cut short.jpg is damaged"):
        report.refuse()


def test_all_unusable_photos_are_named_at_once(photos: Path) -> None:
    (photos / "9.png").write_text("no picture")
    with pytest.raises(PictureError, match=r"2 of 9 photos .*8 cut short.jpg.*9.png is not a pic"):
        preflight(photos).refuse()


@pytest.mark.parametrize(("count", "said"), [(1, "one photo only"), (2, "2 photos only"), (3, "")])
def test_too_few_photos(count: int, said: str, tmp_path: Path) -> None:
    for number in range(count):
        pictures.save(tmp_path / f"{number}.png", scene(number))
    warnings = preflight(tmp_path).warnings
    assert len(warnings) == (1 if said else 0) and said in " ".join(warnings)


def test_blur_lowers_sharpness_steadily() -> None:
    grey = scene(1)[..., 1].astype(np.int16)
    found = [
        sharpness(blurred(scene(1), radius)[..., 1].astype(np.int16)) for radius in (0.5, 1, 4)
    ]
    assert sharpness(grey) > found[0] > found[1] > BLURRED > found[2]
    assert sharpness(np.full((9, 9), 7, np.int16)) == 0


def test_marks_of_copies_are_near_and_of_strangers_far(tmp_path: Path) -> None:
    def apart(name: str, pixels: np.ndarray, **how: int) -> float:
        other = mark(glance(pictures.save(tmp_path / name, pixels, **how), 256).photo.pixels)
        return float(np.bitwise_count(first ^ other).sum() / (8 * len(first)))

    first = mark(glance(pictures.save(tmp_path / "a.png", scene(1)), 256).photo.pixels)
    small = np.asarray(Image.fromarray(scene(1)).resize((400, 400)))
    assert apart("b.jpg", small, quality=50) < NEAR / 2
    assert all(apart("c.png", scene(seed)) > 1.5 * NEAR for seed in range(2, 12))


@pytest.mark.parametrize(
    ("size", "wanted", "cut"),
    [((512, 512), (256, 256), 0), ((400, 800), (512, 512), 0.5), ((90, 160), (90, 160), 0)],
)
def test_what_cropping_takes(size: tuple[int, int], wanted: tuple[int, int], cut: float) -> None:
    assert cut_share(size, wanted) == pytest.approx(cut)


def test_nothing_cut_is_never_less_than_nothing() -> None:
    sizes = [(side, side) for side in range(8, 1200)]
    assert all(f"{cut_share(size, (64, 64)):.0%}" == "0%" for size in sizes)


def test_many_unusable_photos_make_a_short_message(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"30 of 30 .*22 more.*understudy check") as refusal:
        preflight(tmp_path).refuse()
    assert len(str(refusal.value)) < 200 + 2 * len(str(tmp_path))


def test_needs_are_counted_from_the_files(photos: Path, tmp_path: Path) -> None:
    from understudy.models.unet.stable_diffusion import StableDiffusion

    folder = tiny_folder("sdxl")
    model = StableDiffusion.from_folder(folder)
    counts = parameter_counts(folder)
    for part, count in counts.items():
        assert count == sum(p.numel() for p in getattr(model, part).parameters())
    assert native_size(folder) == model.picture_size
    needs = preflight(photos, model=folder, out=tmp_path / "not" / "yet").needs
    few = preflight(photos, model=folder, trains_all=False).needs
    assert needs is not None and few is not None
    trained = sum(counts.values()) - counts["vae"]
    assert needs.memory - few.memory == 16 * trained and needs.disk == 44 * trained
    assert few.memory == 4 * sum(counts.values())
    assert needs.disk_free and needs.disk_free > 0


def test_a_machine_too_small_is_said(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.preflight._memory_free", lambda: 10_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: os.stat_result([0] * 10) and Usage())
    said = " ".join(preflight(photos, model=tiny_folder("sd15")).warnings)
    assert "GB of disk" in said and "takes more than" in said


class Usage:
    free = 10


def test_damaged_weights_are_named(photos: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_folder("sd15"), tmp_path / "model"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match="diffusion_pytorch_model.safetensors is damaged"):
        preflight(photos, model=folder)


def test_photos_are_decoded_at_a_quarter_of_their_size_without_torch(tmp_path: Path) -> None:
    """What makes checks of hundreds of photos quick."""
    for number in range(3):
        pictures.save(tmp_path / f"{number}.jpg", scene(number, 1152, 1536), quality=88)
    code = (
        "import sys; from PIL import JpegImagePlugin; from understudy.preflight import preflight\n"
        "load, sizes = JpegImagePlugin.JpegImageFile.load, set()\n"
        "JpegImagePlugin.JpegImageFile.load = lambda self: (sizes.add(self.size), load(self))[1]\n"
        f"print(len(preflight({str(tmp_path)!r}).photos), max(sizes))\n"
        "print(*sys.modules)"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert lines[0] == "3 (384, 288)"
    assert not {"torch", "diffusers", "transformers"} & set(lines[1].split())


def test_the_command_prints_a_table_and_json(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(tiny_folder("sd15")))
    assert cli.main(["check", str(photos), *model]) == 2
    shown = capsys.readouterr()
    assert "8 photos, 1 of them unusable" in shown.out and "UNUSABLE" in shown.out
    assert "2 blurred.png" in shown.out and "memory: at least" in shown.out
    assert "understudy: " in shown.err and "8 cut short.jpg" in shown.err
    assert cli.main(["check", str(photos), "--method", "magic"]) == 2
    assert "--method must be one of" in capsys.readouterr().err
    (photos / "8 cut short.jpg").unlink()
    assert cli.main(["check", str(photos), *model, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["photos"]) == 7 and told["needs"]["memory"] > 0
    assert told["photos"][1]["warnings"] == ["looks blurred"]


def test_one_photo_is_what_hiper_wants(tmp_path: Path) -> None:
    for count in (1, 2):
        pictures.save(tmp_path / "photos" / f"{count}.png", scene(count))
        found = job_preflight(tmp_path / "photos", "a/b", "hiper", tmp_path).warnings
        assert list(found) == ["2 photos for a method that is made for one photo"] * (count - 1)
    assert (
        "2 photos only" in job_preflight(tmp_path / "photos", "a/b", "lora", tmp_path).warnings[0]
    )


def test_photographs_for_a_model_of_toys_are_noticed(tmp_path: Path) -> None:
    for name, side in (("toys", 128), ("photographs", 400)):
        pictures.save(tmp_path / name / "a.png", pictures.gradient(side, side))
    told = "toybox draws toys only; for photographs use another --model"
    assert told in job_preflight(tmp_path / "photographs", "toybox", "lora", tmp_path).warnings[0]
    for folder, model in (("toys", "toybox"), ("photographs", "a/b")):
        found = job_preflight(tmp_path / folder, model, "lora", tmp_path).warnings
        assert not any("toys" in warning for warning in found)
    assert not toys_only("toybox", (128, 128), [(128, 128), (256, 400)])
    assert toys_only("toybox-flow", (128, 128), [(128, 128), (300, 400)])
