"""The concept that ships with the package: it fits the built-in model, and it stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from understudy import load_model
from understudy.cli import main
from understudy.concept import Concept, applied, named_parameters
from understudy.errors import ConceptError, InputError
from understudy.files.builtin import BUILT_IN_CONCEPTS, CONCEPTS
from understudy.jobs.forget import plan
from understudy.jobs.work import concept_folder, own_concept_folder

EXAMPLES = Path(__file__).parent.parent / "src/understudy/studio/static/examples"


@pytest.mark.parametrize("name", BUILT_IN_CONCEPTS)
def test_it_fits_the_built_in_model_and_is_small(name: str) -> None:
    model, concept = load_model("toybox", device="cpu"), Concept.load(CONCEPTS / name)
    before = {key: one.clone() for key, one in named_parameters(model).items()}
    with applied(model, concept):
        changed = [k for k, p in named_parameters(model).items() if not p.equal(before[k])]
    assert len(changed) == len([key for key in concept.tensors if key.endswith("lora_A")]) > 50
    assert sum(file.stat().st_size for file in (CONCEPTS / name).iterdir()) < 10**6


def test_it_is_found_by_name_unless_one_was_learnt_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert concept_folder("toby") == CONCEPTS / "toby"
    Concept.load(CONCEPTS / "toby").save(Path("concepts/toby"))
    assert concept_folder("toby") == Path("concepts/toby")
    assert own_concept_folder("toby") == Path("concepts/toby")
    with pytest.raises(ConceptError, match="There are: toby. "):
        concept_folder("nobody")


def test_it_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for remove in (own_concept_folder, plan):
        with pytest.raises(InputError, match="built in"):
            remove("toby")
    assert main(["concept", "remove", "toby", "--yes"]) == 2
    assert main(["concept", "show", "toby"]) == 0


def test_the_example_shows_the_photos_it_was_learnt_from() -> None:
    (ready,) = json.loads((EXAMPLES / "examples.json").read_text())["ready"]
    assert ready["name"] in BUILT_IN_CONCEPTS
    assert ready["photo"]["word"] in ready["photo"]["prompt"]
    assert all((EXAMPLES / one).is_file() for one in (*ready["files"], ready["photo"]["file"]))
    concept = Concept.load(CONCEPTS / ready["name"])
    assert concept.class_noun == ready["noun"] == ready["photo"]["word"]
    assert concept.record["photos"] == len(ready["files"])
