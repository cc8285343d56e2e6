"""jobs/words.py: what is said of prompts and concepts before any model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from understudy import cli
from understudy.concept import Concept, spelled
from understudy.errors import PromptError, listed, sentence
from understudy.jobs.words import check_concepts, check_plain
from understudy.jobs.work import Work

TENSORS = {
    "dreambooth": {"unet.conv_in.weight": torch.ones(1)},
    "textual-inversion": {"t.weight.rows": torch.ones(1, 2), "t.weight.ids": torch.zeros(1).long()},
    "hiper": {"tail": torch.ones(1, 2)},
}


class Notes(Work):
    """Work that only notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._noted = set[str]()


def concept(kind: str, identifier: str = "sks") -> Concept:
    return Concept("rex", identifier, "cat", kind, "toybox", "0" * 64, TENSORS[kind])


@pytest.mark.parametrize("prompt", ["a photo of {rex", "a photo of rex}", "{{rex}}", "}{", "{a{b}"])
def test_a_brace_without_its_partner_is_refused(prompt: str) -> None:
    with pytest.raises(PromptError, match="unmatched brace.*Known concepts: {rex}"):
        spelled(prompt, concept("dreambooth"))
    with pytest.raises(PromptError, match="--prompt cannot name a concept"):
        check_plain("--prompt", prompt)


def test_a_concept_that_was_not_given_is_told_how_to_give() -> None:
    with pytest.raises(PromptError, match=r"concept {mia}.*concepts: {rex}. .*--concept mia"):
        spelled("a photo of {mia}", concept("dreambooth"))


@pytest.mark.parametrize("kind", ["textual-inversion", "hiper"])
def test_a_concept_that_would_change_nothing_is_refused(kind: str) -> None:
    named = ["a photo of {rex}", "a cat"]
    check_concepts(Notes(), named, [concept(kind)])
    with pytest.raises(PromptError, match=r"--concept rex has no effect.*write {rex}"):
        check_concepts(
            Notes(), ["a photo of a cat"], [concept(kind, "sks" if kind != "hiper" else "")]
        )


def test_weights_that_act_unnamed_are_noted() -> None:
    notes = Notes()
    for prompt in ("a photo of {rex}", "a photo of a sks cat", "SKS, sleeping"):
        check_concepts(notes, [prompt], [concept("dreambooth")])
    assert not notes.notes
    check_concepts(notes, ["a photo of a cat"], [concept("dreambooth")])
    assert "the prompt does not name the concept rex" in notes.notes[0]


def test_the_commands_say_so_before_they_load_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    concept("hiper", "").save(tmp_path / "concepts/rex")
    how = ("--concept", "rex", "--model", "nowhere")
    for words, said in (
        (("generate", "a photo of a cat", *how), "--concept rex has no effect"),
        (("generate", "a photo of {rex", *how), "unmatched brace"),
        (("generate", "a photo of {rex}", *how, "--negative", "{rex}"), "--negative cannot name"),
        (
            ("swap", "--prompt", "a {rex}", "--swap", "rex=rex", "--seed", "1"),
            "--prompt cannot name",
        ),
    ):
        assert cli.main([*words]) == 2
        assert said in capsys.readouterr().err


def test_foreign_words_end_as_sentences() -> None:
    assert (
        sentence("Torch not compiled with CUDA enabled") == "Torch not compiled with CUDA enabled."
    )
    assert sentence(OSError("no\n such  file.")) == "no such file." and sentence("") == ""
    assert listed("abc") == "a, b, c" and listed("abcdef", 2) == "a, b and 4 more"
