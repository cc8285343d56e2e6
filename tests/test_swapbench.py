"""SwapBench on renders alone: fixed cases, known scores, outside PNGs, runs that go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy.errors import InputError, OutputError
from understudy.evaluate import swapbench
from understudy.evaluate.copying import paste_score
from understudy.evaluate.methods import METHODS
from understudy.evaluate.protocols.swap import all_cases, evaluation_steps, summed, write_cases
from understudy.evaluate.results import ResultsFolder, Row, read_rows
from understudy.evaluate.swap_scores import MEASURES, Answers, score
from understudy.evaluate.toy_bench import ToyBench
from understudy.pictures.photo import write_pixels
from understudy.settings.evaluate import CasesSettings
from understudy.toybox import STANCES
from understudy.toybox.sample import is_reserved
from understudy.vision.recogniser import Recogniser, load

CONTROLS = ["right-answer", "no-swap", "copy-paste"]
SIDE = 64


@pytest.fixture(scope="module", autouse=True)
def rendered_once() -> Iterator[None]:
    """What is known of a case follows from its number and the side; most tests ask for the same."""
    of, known = Answers.of, dict[tuple[int, int], Answers]()

    def answers(case: swapbench.ToyCase, recogniser: Recogniser, side: int) -> Answers:
        if (case.number, side) not in known:
            known[case.number, side] = of(case, recogniser, side)
        return known[case.number, side]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answers, "of", answers)
        yield


def bench(limit: int = 2) -> ToyBench:
    return ToyBench(CasesSettings(limit=limit, side=SIDE), load())


def run(folder: Path, methods: list[str], limit: int = 2, **how: object) -> list[Row]:
    """Rows of a small run on the real recogniser, without a model."""
    steps = evaluation_steps(ResultsFolder(folder), bench(limit), methods, **how)  # type: ignore[arg-type]
    return [step.row for step in steps]


def test_the_case_list_is_this_one() -> None:
    # Whoever changes a case changes VERSION too, and then this number.
    cases = [swapbench.case(n) for n in (*range(8), 63, 64, 511)]
    lists = [[c.name, c.prompt, c.noun, c.source.to_json(), c.right.to_json()] for c in cases]
    lists += [[photo.to_json() for photo in c.subject.photos] for c in cases[::8]]
    digest = hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]
    assert (swapbench.VERSION, digest) == (1, "9294eea83d594236")
    assert [len(swapbench.cases(size)) for size in ("small", "full")] == [64, 512]
    with pytest.raises(InputError, match="small, full"):
        swapbench.cases("huge")


@pytest.mark.parametrize("number", range(8, 24))
def test_a_case_is_what_its_kind_says(number: int) -> None:
    case = swapbench.case(number)
    old, new = case.source.subjects[0], case.right.subjects[0]
    own, noun = new.identity.class_name, old.identity.class_name
    assert new.identity == case.subject.identity and old.identity != new.identity
    assert is_reserved(new.identity) and is_reserved(old.identity)
    assert case.noun == noun and f" {noun} " in case.prompt
    assert len(case.source.subjects) == (2 if case.kind == "multi" else 1)
    assert (STANCES[own] != STANCES[noun]) == (case.kind == "shape")
    assert case.kind != "background" or case.source.background.kind in swapbench.HARD
    assert case.source.background == case.right.background
    others = [s.identity.class_name for s in case.source.subjects[1:]]
    assert noun not in others


def test_known_pictures_score_as_they_must() -> None:
    recogniser, found = load(), dict[str, list[dict[str, float]]]()
    cases = ToyBench(CasesSettings(limit=9, side=SIDE), recogniser)
    for case in (cases.names[number] for number in (0, 3, 8)):
        for name in CONTROLS:
            row = cases.score(case, METHODS[name].make(cases.case(case), None))
            found.setdefault(name, []).append(row)
    perfect = {m.name: m.perfect for m in MEASURES if not np.isnan(m.perfect)}
    for row in found["right-answer"]:
        assert {name: row[name] for name in perfect} == pytest.approx(perfect, abs=1e-5)

    def mean(name: str, measure: str) -> float:
        return float(np.mean([row[measure] for row in found[name]]))

    # No swap: the background is unchanged, the toy is the old one. A paste: the right toy, badly
    # posed.
    assert mean("no-swap", "background, dB") > 60 and mean("no-swap", "identity") < 0.5
    assert mean("no-swap", "overall") < 0.7 and mean("no-swap", "copying") < 0.05
    assert mean("copy-paste", "identity") > 0.8 and mean("copy-paste", "pose error") > 0.1
    assert mean("copy-paste", "copying") > 0.15


def test_a_subject_is_found_where_it_was_pasted() -> None:
    generator = torch.Generator().manual_seed(3)
    toy = torch.rand(1, 3, 10, 10, generator=generator).mul(2).sub(1)
    toy = torch.nn.functional.interpolate(toy, (30, 24), mode="bilinear")

    def placed(x: int, y: int, toy: torch.Tensor, ground: float) -> torch.Tensor:
        picture = torch.full((1, 3, 64, 64), ground)
        picture[..., y : y + toy.shape[2], x : x + toy.shape[3]] = toy
        return picture

    photo, mask = placed(5, 8, toy, 0.9), torch.zeros(1, 1, 64, 64)
    mask[..., 8:38, 5:29] = 1
    smaller = torch.nn.functional.interpolate(toy, (26, 21), mode="bilinear", antialias=True)
    assert paste_score(photo, photo, mask) == pytest.approx(1, abs=1e-3)
    assert paste_score(placed(36, 30, toy.flip(3) * 0.5, -0.4), photo, mask) > 0.9
    assert paste_score(placed(10, 20, smaller, 0.0), photo, mask) > 0.85
    assert paste_score(placed(10, 20, -toy, 0.0), photo, mask) < 0.6
    assert paste_score(photo, photo, 0 * mask) == -1


def test_the_papers_own_duel_stands_beside_ours(tmp_path: Path) -> None:
    rows = run(tmp_path, ["right-answer", "no-swap"])
    titles = [table.title for table in summed(ResultsFolder(tmp_path), bench()).tables]
    assert not any("the paper's study" in title for title in titles)  # its rival is not here
    names = {"right-answer": "photoswap-best", "no-swap": "p2p"}
    lines = [json.dumps({**row, "method": names[row["method"]]}) + "\n" for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    record = json.loads((tmp_path / "run.json").read_text())
    record["methods"] = {names[name]: facts for name, facts in record["methods"].items()}
    (tmp_path / "run.json").write_text(json.dumps(record))
    tables = summed(ResultsFolder(tmp_path), bench()).tables
    (found,) = [table for table in tables if "the paper's study" in table.title]
    assert found.lines[0][1:] == ["47 / 28 / 26", "41 / 27 / 33", "51 / 21 / 28", "-"]
    assert found.lines[1][0].startswith("photoswap-best") and found.lines[1][-1] == "2"
    assert found.lines[1][1] == found.lines[1][3] == "100 / 0 / 0"  # the answer beats no swap


def test_a_run_is_kept_resumed_and_summed(tmp_path: Path) -> None:
    rows = run(tmp_path, CONTROLS)
    assert len(rows) == 6 and not any("error" in row for row in rows)
    with pytest.raises(OutputError, match="--resume"):
        run(tmp_path, CONTROLS)
    again = run(tmp_path, CONTROLS, resume=True)
    assert again == read_rows(tmp_path / "rows.jsonl") == rows  # nothing was made anew
    report = summed(ResultsFolder(tmp_path), bench())
    lines = {line[0]: line for line in report.tables[0].lines}
    assert lines["right-answer"][1] == "1.000" and len(lines) == 3
    assert any("copy-paste looks cut out" in warning for warning in report.warnings)
    (sheet,) = all_cases(
        ResultsFolder(tmp_path), bench()
    )  # two cases, each: photo, source, copy-paste, right answer
    assert sheet.shape[1] > 4 * 64 and sheet.shape[0] > 2 * 64
    duels = report.tables[1].lines
    assert [line[:2] for line in duels] == [["no-swap", "copy-paste"]]
    files = report.write(tmp_path)
    assert [file.name for file in files] == ["report.md", "report.csv", "report.html"]
    html = files[2].read_text()
    assert html.count("<svg") == len(MEASURES) and html.count("data:image/png") == 3
    assert "http" not in html.replace("http-equiv", "")


def test_a_shard_gives_the_rows_of_the_whole_run(tmp_path: Path) -> None:
    (row,) = run(tmp_path, ["no-swap"], limit=9, shard="2/2")  # toys 0 and 1: this is toy 1
    answers = Answers.of(swapbench.case(8), load(), SIDE)
    alone = score(answers.source.picture, answers, load())
    assert row["case"] == "008-single" and {name: row[name] for name in alone} == alone
    with pytest.raises(InputError, match="2/4"):
        run(tmp_path / "bad", ["no-swap"], shard="3/2")


def test_pngs_from_outside(tmp_path: Path) -> None:
    ours = run(tmp_path / "a", ["right-answer"], limit=3)
    theirs = tmp_path / "theirs"
    source = tmp_path / "a" / "pictures" / "right-answer"
    write_pixels(theirs / "000-single.png", np.zeros((SIDE, 2 * SIDE, 3), np.uint8))
    (theirs / "001-multi.png").write_bytes((source / "001-multi.png").read_bytes())
    how = {"outside": {"mine": theirs}, "resume": True}
    rows = run(tmp_path / "b", [], limit=3, **how)
    wrong, right, missing = rows
    assert "128 x 64 pixels; expected 64 x 64" in wrong["error"]
    assert "no file" in missing["error"] and "002-occluded.png" in missing["error"]
    measures = {m.name for m in MEASURES}
    assert {k: right[k] for k in measures} == {k: ours[1][k] for k in measures}
    report = summed(ResultsFolder(tmp_path / "b"), bench(3))
    assert len(report.warnings) == 2 and report.tables[0].lines[0][0] == "mine"
    # A picture that was made anew is scored anew.
    (theirs / "000-single.png").write_bytes((source / "000-single.png").read_bytes())
    assert "error" not in run(tmp_path / "b", [], limit=1, **how)[0]
    (theirs / "001-multi.png").write_bytes((source / "000-single.png").read_bytes())
    assert run(tmp_path / "b", [], limit=2, **how)[1]["overall"] < 0.9
    with pytest.raises(InputError, match="another name"):
        run(tmp_path / "c", [], outside={"no-swap": theirs})


def test_another_version_or_size_is_not_mixed_in(tmp_path: Path) -> None:
    run(tmp_path, ["no-swap"], limit=1)
    manifest = json.loads((tmp_path / "run.json").read_text())
    manifest["bench"]["version"] = 0
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="another bench"):
        run(tmp_path, ["no-swap"], limit=1, resume=True)
    with pytest.raises(InputError, match="another bench"):
        summed(ResultsFolder(tmp_path), bench())
    with pytest.raises(InputError, match="no results"):
        summed(ResultsFolder(tmp_path / "nowhere"), bench())


def test_what_others_are_given(tmp_path: Path) -> None:
    wish = CasesSettings(limit=1, side=SIDE)
    assert [step.total for step in write_cases(tmp_path, wish)] == [1]
    here = tmp_path / "000-single"
    said = json.loads((here / "case.json").read_text())
    assert said["answer"] == "000-single.png" and said["swap"] in said["prompt"]
    names = sorted(file.name for file in here.iterdir())
    assert names == ["case.json", *(f"photo-{k}.png" for k in range(4)), "source.png"]
