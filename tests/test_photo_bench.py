"""Swaps between photos whose right answer nobody knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lookers import clip_folder, dino_folder
from tiny import tiny_model
from understudy.errors import InputError
from understudy.evaluate.bench import BenchCase
from understudy.evaluate.photo_bench import PhotoBench, read_cases
from understudy.evaluate.protocols.swap import all_cases, evaluation_steps, summed, write_cases
from understudy.evaluate.results import ResultsFolder, Row
from understudy.evaluate.setup import Setup
from understudy.evaluate.study.contests import contests
from understudy.pictures import metrics
from understudy.pictures.photo import write_pixels
from understudy.pictures.tensors import read_picture
from understudy.settings.evaluate import CasesSettings
from understudy.vision.encoders import load_clip, load_dino
from understudy.vision.features import ClipFeatures, DinoFeatures, FeatureScorers

SIDE = 64
TOLD = {
    "learn": {"steps": 1, "prior_samples": 0},
    "generate": {"steps": 2},
    "invert": {"steps": 2, "inner_steps": 1},
    "swap": {"steps": 2},
}


@pytest.fixture(scope="module")
def scorers() -> FeatureScorers:
    clip = ClipFeatures(load_clip(str(clip_folder())))
    dino = DinoFeatures(load_dino(str(dino_folder())))
    return FeatureScorers({"DINO": dino, "CLIP-I": clip}, clip, "CLIP-T")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cases of one toy; the second has a mask."""
    for _ in write_cases(tmp_path / "cases", CasesSettings(limit=3, side=SIDE)):
        pass
    for file in (tmp_path / "cases").glob("*/case.json"):  # the tiny model reads short prompts
        said = json.loads(file.read_text())
        file.write_text(json.dumps({**said, "prompt": f"a photo of a {said['swap']}"}))
    mask = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)
    mask[16:48, 16:48] = 255
    write_pixels(tmp_path / "cases" / "001-multi" / "mask.png", mask.numpy())
    return tmp_path / "cases"


def run(out: Path, bench: PhotoBench, *methods: str, **how: object) -> list[Row]:
    setup = Setup(tiny_model("toy"), TOLD, out / "made")
    steps = evaluation_steps(ResultsFolder(out), bench, methods, setup, **how)  # type: ignore[arg-type]
    return [step.row for step in steps]


def test_methods_and_outside_pictures_end_to_end(
    folder: Path, scorers: FeatureScorers, tmp_path: Path
) -> None:
    bench = PhotoBench(folder, CasesSettings(limit=2, side=SIDE), scorers, 512)
    theirs = tmp_path / "theirs"
    write_pixels(theirs / "001-multi.png", torch.full((SIDE, SIDE, 3), 40).byte().numpy())
    out, others = tmp_path / "run", {"theirs": theirs}
    rows = run(out, bench, "no-swap", "photoswap-paper", "plain-generation", outside=others)
    by = {(row["method"], row["case"]): row for row in rows}
    assert [row["error"] for row in rows if "error" in row and row["method"] != "theirs"] == []
    assert [key for key, row in by.items() if "error" in row] == [("theirs", "000-single")]
    kept = by["no-swap", "001-multi"]
    assert kept["background, dB"] == 100  # nothing changed
    assert kept["background SSIM"] == pytest.approx(1) and kept["text"].startswith("a photo of a")
    assert "background, dB" not in by["no-swap", "000-single"]
    # The numbers, computed again from the files.
    row, case = by["photoswap-paper", "001-multi"], bench.cases["001-multi"]
    drawn = read_picture(out / row["picture"])
    real = torch.cat([scorers.subject["DINO"].of(read_picture(file)) for file in case.photos])
    fidelity = metrics.subject_fidelity(scorers.subject["DINO"].of(drawn), real).item()
    assert row["DINO"] == pytest.approx(fidelity, abs=1e-4)
    outside = torch.ones(1, 1, SIDE, SIDE)
    outside[..., 16:48, 16:48] = 0
    source = read_picture(case.source)
    assert row["background, dB"] == pytest.approx(metrics.psnr(drawn, source, outside).item())

    again = run(out, bench, "no-swap", "photoswap-paper", "plain-generation", outside=others,
                resume=True)  # fmt: skip
    assert [r for r in again if "error" not in r] == [r for r in rows if "error" not in r]
    report = summed(ResultsFolder(out), bench)
    assert [line[0] for line in report.tables[0].lines][-1] == "theirs"
    assert report.tables[1].heads == ["first", "second", "subject", "prompt", "background", "cases"]
    assert len(report.warnings) == 1 and "theirs 000-single" in report.warnings[0]
    assert report.write(out)[2].read_text().count("data:image/png") == 4
    assert len(list(all_cases(ResultsFolder(out), bench))) == 1

    with pytest.raises(InputError, match="Give --data.* The run was on "):
        contests(out, "photoswap-paper,plain-generation")
    made, tasks = contests(out, "photoswap-paper,plain-generation", folder)
    assert [contest.subject for contest in made] == ["cat0", "cat0"] and "subject" in tasks


def test_a_case_that_changed_is_not_averaged_with_the_old(
    folder: Path, scorers: FeatureScorers, tmp_path: Path
) -> None:
    wish = CasesSettings(limit=1, side=SIDE)
    run(tmp_path / "run", PhotoBench(folder, wish, scorers, 512), "no-swap")
    (folder / "001-multi" / "mask.png").unlink()
    changed = PhotoBench(folder, wish, scorers, 512)
    with pytest.raises(InputError, match="another bench"):
        run(tmp_path / "run", changed, "no-swap", resume=True)
    with pytest.raises(InputError, match="another bench"):
        summed(ResultsFolder(tmp_path / "run"), changed)


def test_broken_cases_are_named_and_left_out(
    folder: Path, scorers: FeatureScorers, tmp_path: Path
) -> None:
    first, second, third = sorted(folder.iterdir())
    said = json.loads((first / "case.json").read_text())
    (first / "case.json").write_text(json.dumps({**said, "swap": "unicorn"}))
    (second / "photo-1.png").write_bytes(b"no picture")
    bench = PhotoBench(folder, CasesSettings(side=SIDE), scorers, 512)
    assert list(bench.names) == [third.name] and len(bench.notes) == 2
    assert "unicorn" in bench.notes[0] and "photo-1.png" in bench.notes[1]
    with pytest.raises(InputError, match="64 or more"):
        PhotoBench(folder, CasesSettings(side=8), scorers, 512)
    (third / "case.json").write_text("{}")
    with pytest.raises(InputError, match="holds no case"):
        read_cases(folder)
    with pytest.raises(InputError, match="no folder"):
        read_cases(tmp_path / "nowhere")


def test_what_is_swapped_may_be_several_words_and_touch_punctuation(folder: Path) -> None:
    first = min(folder.iterdir())
    said = json.loads((first / "case.json").read_text())
    words = {"prompt": "An Old teddy bear, and a dog.", "swap": "old teddy bear"}
    (first / "case.json").write_text(json.dumps({**said, **words}))
    (case, *_), notes = read_cases(folder)
    assert not notes
    assert case.opened((SIDE, SIDE)).target_prompt("sks cat") == "a sks cat, and a dog."


def test_a_shared_folder_of_photos_is_one_subject(folder: Path) -> None:
    photos = folder / "rex"
    photos.mkdir()
    for here in sorted(folder.glob("0*")):
        said = json.loads((here / "case.json").read_text())
        del said["subject"]
        (here / "case.json").write_text(json.dumps({**said, "photos": "../rex"}))
        for file in here.glob("photo-*.png"):
            (photos / file.name).write_bytes(file.read_bytes())
            file.unlink()
    cases, notes = read_cases(folder)
    assert not notes and {case.subject for case in cases} == {"rex"}
    assert all(len(case.photos) == 4 for case in cases)


@pytest.mark.parametrize("named", ["../../rex", "/", "../rex/../../rex", "link"])
def test_a_case_names_no_folder_elsewhere(folder: Path, tmp_path: Path, named: str) -> None:
    here = sorted(folder.iterdir())[0]
    (tmp_path / "rex").mkdir()
    (tmp_path / "rex" / "photo-0.png").write_bytes((here / "photo-0.png").read_bytes())
    (here / "link").symlink_to(tmp_path / "rex")
    said = json.loads((here / "case.json").read_text())
    (here / "case.json").write_text(json.dumps({**said, "photos": named}))
    (note,) = read_cases(folder)[1]
    assert "photos must name a folder within" in note


def test_controls_that_need_answers_are_refused(
    folder: Path, scorers: FeatureScorers, tmp_path: Path
) -> None:
    bench = PhotoBench(folder, CasesSettings(side=SIDE), scorers, 512)
    with pytest.raises(InputError, match="copy-paste needs right answers"):
        run(tmp_path / "run", bench, "copy-paste")


def test_the_article_follows_the_word() -> None:
    blank = torch.zeros(1, 3, SIDE, SIDE)
    task = BenchCase("0", 0, "rex", "dog", blank, blank, "an owl and a cat", "owl")
    assert task.target_prompt("sks dog") == "a sks dog and a cat"
    assert task.target_prompt("odd dog") == "an odd dog and a cat"
    loose = replace(task, prompt="my cats, owl and cat", noun="cat")
    assert loose.target_prompt("sks dog") == "my cats, owl and sks dog"
