"""The DreamBooth protocol: the published list as it is, broken data named, every number exact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lookers import clip_folder, dino_folder
from recognisers import untaught
from tiny import tiny_model
from understudy.concept import Concept
from understudy.errors import InputError
from understudy.evaluate.dreambench import PROMPTS, read_data_set, write_toy_set
from understudy.evaluate.learners import LEARNERS
from understudy.evaluate.protocols.dreambooth import evaluation_steps
from understudy.evaluate.protocols.dreambooth_report import subject_sheets, summed
from understudy.evaluate.protocols.published import orders
from understudy.evaluate.results import ResultsFolder, Row, read_rows
from understudy.evaluate.setup import Setup
from understudy.pictures import metrics
from understudy.pictures.tensors import read_picture
from understudy.settings.evaluate import DreamBoothSettings
from understudy.vision.encoders import load_clip, load_dino
from understudy.vision.features import ClipFeatures, DinoFeatures, FeatureScorers, ToyFeatures
from understudy.vision.perceptual import RecogniserFeatures, between

LIST = """Classes

subject_name,class
bear_plushie,stuffed animal
cat2,cat
vase,vase

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
"a {0} {1} on the moon's face".format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} wearing a red hat'.format(unique_token, class_token),
]
"""


def data_set(folder: Path, *names: str) -> Path:
    """The list above, with toys' photos as those subjects."""
    toys = write_toy_set(folder / "toys", len(names), 64)
    for toy, name in zip(sorted(t for t in toys.iterdir() if t.is_dir()), names, strict=True):
        toy.rename(folder / name)
    (folder / PROMPTS).write_text(LIST)
    return folder


def test_the_published_form_is_read_not_run(tmp_path: Path) -> None:
    found = read_data_set(data_set(tmp_path, "bear_plushie", "cat2"))
    bear, cat = found.subjects
    assert (bear.name, bear.noun, len(bear.photos)) == ("bear_plushie", "stuffed animal", 4)
    assert bear.prompt(0, "sks stuffed animal") == "a sks stuffed animal in the jungle"
    assert bear.prompt(1, "stuffed animal") == "a stuffed animal on the moon's face"
    assert cat.prompt(0, "sks dog") == "a sks dog wearing a red hat" and len(cat.prompts) == 1
    assert [note.split(":")[0] for note in found.notes] == [
        "subject vase was left out",
        "folder toys was left out",
    ]


def test_broken_data_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no prompts_and_classes.txt"):
        read_data_set(tmp_path)
    list_file = tmp_path / PROMPTS
    list_file.write_text(LIST)
    with pytest.raises(InputError, match="any of the 3 subjects"):
        read_data_set(tmp_path)
    list_file.write_text(LIST.replace("Live Subject", "Other"))
    with pytest.raises(InputError, match="not as published"):
        read_data_set(tmp_path)
    list_file.write_text(LIST.replace("{0} {1} in", "{0} in"))
    with pytest.raises(InputError, match="for the subject"):
        read_data_set(data_set(tmp_path / "b", "cat2").parent)


def test_toys_come_in_the_same_form(tmp_path: Path) -> None:
    found = read_data_set(write_toy_set(tmp_path, 2, 32))
    assert [s.name for s in found.subjects] == ["cat0", "dog1"] and not found.notes
    assert len(found.subjects[0].prompts) == 12
    assert found.subjects[1].prompt(2, "zwx dog") == "a photo of a zwx dog in the snow"


LEARN = {"steps": 2, "prior_samples": 2, "prior_steps": 2, "batch_size": 1}
WISH = DreamBoothSettings(pictures=2, plain_pictures=2)


def run(
    folder: Path,
    data: Path,
    scorers: FeatureScorers,
    *methods: str,
    resume: bool = False,
    limit: int = 0,
) -> list[Row]:
    model = tiny_model("toy")
    setup = Setup(model, {"learn": LEARN, "generate": {"steps": 2}}, folder / "made")
    found = read_data_set(data)
    wish = replace(WISH, limit=limit)
    steps = evaluation_steps(
        ResultsFolder(folder), wish, found, scorers, setup, methods, resume=resume
    )
    return [step.row for step in steps]


def test_the_protocol_end_to_end_gives_the_metrics_of_its_pictures(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", "cat2", "vase")
    clip, dino = (
        ClipFeatures(load_clip(str(clip_folder()))),
        DinoFeatures(load_dino(str(dino_folder()))),
    )
    scorers = FeatureScorers({"DINO": dino, "CLIP-I": clip}, clip, "CLIP-T")
    folder = tmp_path / "run"
    rows = run(folder, data, scorers, "untuned", "dreambooth")
    assert not [row for row in rows if "error" in row]
    cases = [(row["method"], row["case"]) for row in rows]
    assert cases == [
        ("real-images", "cat2/photos"),
        ("untuned", "cat2/00"), ("untuned", "cat2/plain"),
        ("dreambooth", "cat2/00"), ("dreambooth", "cat2/plain"),
        ("real-images", "vase/photos"),
        ("untuned", "vase/00"), ("untuned", "vase/01"), ("untuned", "vase/plain"),
        ("dreambooth", "vase/00"), ("dreambooth", "vase/01"), ("dreambooth", "vase/plain"),
    ]  # fmt: skip
    # The numbers, computed again from the files that were written.
    photos = [read_picture(file) for file in sorted((data / "vase").iterdir())]
    real = torch.cat([dino.of(photo) for photo in photos])
    by = dict(zip(cases, rows, strict=True))
    bound = by["real-images", "vase/photos"]
    assert bound["DINO"] == pytest.approx(metrics.self_fidelity(real).item(), abs=1e-5)
    row = by["dreambooth", "vase/01"]
    assert row["text"] == "a vase on the moon's face" and "vase on" in row["prompt"]
    assert row["prompt"] != row["text"] and row["seeds"] == by["untuned", "vase/01"]["seeds"]
    drawn = torch.cat([read_picture(folder / file) for file in row["pictures"]])
    fidelity = metrics.subject_fidelity(dino.of(drawn), real).item()
    assert row["DINO"] == pytest.approx(fidelity, abs=2e-3)
    clip_t = metrics.identity_score(clip.of(drawn), clip.texts([row["text"]] * 2)).mean().item()
    assert row["CLIP-T"] == pytest.approx(clip_t, abs=2e-3)
    assert "PRES (DINO)" in by["dreambooth", "vase/plain"]

    # Again: nothing is made anew; the report has the paper's tables beside ours.
    assert run(folder, data, scorers, "untuned", "dreambooth", resume=True) == rows
    assert len(read_rows(folder / "rows.jsonl")) == len(rows)
    report = summed(ResultsFolder(folder), ["a note"])
    assert [line[0] for line in report.tables[0].lines] == ["real-images", "untuned", "dreambooth"]
    assert any("table 1" in table.title for table in report.tables[1:])
    assert report.warnings == ["a note"]
    said = json.loads((folder / "run.json").read_text())["choices"]
    assert said["DINO"]["resize"] == "37" and said["identifier in the text"] is False
    assert len(report.sheets) == 2


def test_toys_and_their_ruler(tmp_path: Path) -> None:
    scorers = ToyFeatures(untaught())
    data = write_toy_set(tmp_path / "toys", 1, 64)
    (data / PROMPTS).write_text((data / PROMPTS).read_text().replace("cat0,cat", "cat0,cat", 1))
    rows = run(
        tmp_path / "run",
        data,
        FeatureScorers({"identity": scorers}, scorers, "words"),
        "wrong-noun",
    )
    drawn = rows[1]
    assert "thing" in drawn["prompt"] and "thing" not in drawn["text"]
    assert {"identity", "words", "copy score"} <= drawn.keys()
    assert set(LEARNERS) >= {"untuned", "dreambooth", "without-prior", "wrong-noun"}


@pytest.mark.slow
def test_one_photo_rare_nouns_tails_and_what_learning_took(tmp_path: Path) -> None:
    scorers = ToyFeatures(untaught())
    far = between(RecogniserFeatures(scorers.recogniser))
    seeing = FeatureScorers(
        {"identity": scorers}, scorers, "prompt words", far, "recogniser's features"
    )
    data, folder = write_toy_set(tmp_path / "toys", 2, 64), tmp_path / "run"
    names = ("dreambooth", "no-noun", "hiper", "hiper-5", "hiper-1")
    rows = run(folder, data, seeing, *names, limit=1)
    assert not [row for row in rows if "error" in row]
    said = json.loads((folder / "run.json").read_text())
    assert said["methods"]["hiper-1"]["photos"] == 1 and said["choices"]["DIV"].startswith("recog")
    assert said["methods"]["no-noun"]["noun"] == "none"
    # A rare word stands where the noun would: two words, neither of them the class.
    drawn = {(row["method"], row["case"]): row for row in rows}
    words = drawn["no-noun", "cat0/00"]["prompt"].removeprefix("a photo of a ").split()[:2]
    assert "cat" not in words and len(set(words)) == 2
    kept = {folder.name: Concept.load(folder) for folder in (folder / "made/concepts").iterdir()}
    assert {one.class_noun for one in kept.values()} == {"cat", "dog", words[1]}
    # HiPer and HiPer with its usual 5 embeddings are one: four kinds of two subjects were learnt.
    assert len(kept) == 8
    tails = sorted(len(one.tail) for one in kept.values() if one.tail is not None)
    assert tails == [1, 1, 5, 5]

    # What it took is kept with the concept: rows made again later say the same, and learn nothing.
    took = drawn["dreambooth", "cat0/plain"]
    assert took["seconds to learn"] > 0 and took["seconds for the class"] > 0
    assert drawn["hiper", "cat0/plain"]["seconds for the class"] == 0
    (folder / "rows.jsonl").unlink()
    again = run(folder, data, seeing, *names, resume=True, limit=1)
    assert [_untimed(row) for row in again] == [_untimed(row) for row in rows]


def _untimed(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "seconds"}


def told(method: str, subject: str, case: str, **found: float) -> Row:
    return {"method": method, "case": f"{subject}/{case}", "subject": subject, **found}


def test_orders_are_looked_for_subject_by_subject() -> None:
    """Means alone would say the reverse: the better one was given the harder subjects."""
    rows: list[Row] = []
    for number in range(6):
        better, worse = 0.1 * number + 0.05, 0.1 * number
        rows.append(told("dreambooth", f"s{number}", "00", identity=better))
        rows.append(told("textual-inversion", f"s{number}", "00", identity=worse))
        prompts = {"prompt words": 0.5 + 0.1 * (-1) ** number}
        rows.append(told("dreambooth", f"s{number}", "01", **prompts))
        rows.append(told("textual-inversion", f"s{number}", "01", **{"prompt words": 0.5}))
    rows += [told("textual-inversion", f"easy{n}", "00", identity=1.0) for n in range(9)]
    for method, identity in (("hiper-5", 0.1), ("hiper-1", 0.3)):
        rows += [told(method, f"s{n}", "00", identity=identity) for n in range(6)]
    rows += [told("wrong-noun", f"s{n}", "00", identity=-1.0) for n in range(5)]
    found = orders(rows)
    assert found is not None
    lines = {line[0]: line for line in found.lines}
    held = lines["dreambooth > textual-inversion in identity"]
    assert held[2] == "holds" and held[4].startswith("0.050 [0.050") and held[5] == "6 of 6"
    assert lines["dreambooth > textual-inversion in prompt words"][2] == "not decided"
    assert lines["hiper-5 > hiper-1 in identity"][2].startswith("does not hold")
    # Five of five agree, and clearly; five subjects are too few all the same.
    few = lines["dreambooth > wrong-noun in identity"]
    assert few[2] == "not decided: fewer than 6 subjects" and few[5] == "5 of 5"
    assert not [name for name in lines if "no-noun" in name]
    assert orders([told("untuned", "s0", "00", identity=1.0)]) is None


def test_sheets_show_a_subject_in_every_way(tmp_path: Path) -> None:
    scorers = ToyFeatures(untaught())
    data = write_toy_set(tmp_path / "toys", 2, 64)
    seeing = FeatureScorers({"identity": scorers}, scorers, "prompt words")
    run(tmp_path / "run", data, seeing, "untuned", "hiper-1", limit=1)
    subjects = read_data_set(data).subjects
    sheets = dict(subject_sheets(ResultsFolder(tmp_path / "run"), subjects))
    fewer = dict(subject_sheets(ResultsFolder(tmp_path / "run"), subjects, ["untuned"]))
    assert list(sheets) == ["cat0", "dog1"]
    assert fewer["cat0"].shape[0] < sheets["cat0"].shape[0]  # photos and one line, not two
    (report,) = [
        t for t in summed(ResultsFolder(tmp_path / "run")).tables if "Every way" in t.title
    ]
    assert report.heads[-1] == "subjects" and [line[-1] for line in report.lines] == ["2"] * 3
