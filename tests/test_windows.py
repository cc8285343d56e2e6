"""edit/windows.py: in which steps which word takes the source's attention."""

import json

import numpy as np
import pytest
import torch

from golden_edits import paired
from test_words import arrays, golden, ids_of
from understudy.edit.windows import places_in, word_windows
from understudy.errors import PromptError


@pytest.mark.parametrize(("folder", "schedule"), golden("schedules"))
def test_golden_word_windows_are_the_published_ones(folder, schedule):
    targets = schedule["prompts"][1:]
    windows, steps = paired(schedule["cross_replace_steps"]), schedule["num_steps"]
    strings = [strings_of(folder, target) for target in targets]
    recorded = arrays(folder)[schedule["id"]]
    rows = word_windows(targets, strings, steps, windows, recorded.shape[-1], exact=True)
    assert np.array_equal(rows.numpy(), recorded)


def strings_of(folder, prompt):
    """Its pieces: known from a pair, or else every word is one token."""
    pairs = json.loads((folder / "e_alignment.json").read_text())["pairs"]
    known = {
        number: string
        for pair in pairs
        for side in ("source", "target")
        for number, string in zip(pair[f"{side}_ids"], pair[f"{side}_pieces"], strict=True)
    }
    ids = ids_of(folder, prompt)[1:-1]
    words = prompt.split() if len(prompt.split()) == len(ids) else [""] * len(ids)
    return [known.get(number, word) for number, word in zip(ids, words, strict=True)]


CATS, PIECES = "a cat, and a rhinoceros", ["a", "cat", ",", "and", "a", "rhino", "cer", "os"]


def test_a_word_has_its_own_window_whatever_its_punctuation_and_tokens():
    windows = {"default_": 0.5, "cat": 1.0, "rhinoceros": (0.5, 1.0)}
    rows = word_windows([CATS], [PIECES], 3, windows, 12)[:, 0]
    assert rows[:, 2].tolist() == [1, 1, 1, 1]
    assert rows[:, [6, 7, 8]].T.tolist() == [[0, 0, 1, 1]] * 3
    assert rows[:, [0, 1, 3, 4, 5, 9, 11]].T.tolist() == [[1, 1, 0, 0]] * 7
    # The published rule takes "cat," for another word than "cat".
    with pytest.raises(PromptError, match='"cat" is not in'):
        word_windows([CATS], [PIECES], 3, windows, 12, exact=True)


def test_a_word_of_one_target_leaves_the_others_alone():
    rows = word_windows(["a cat", "a dog"], [["a", "cat"]] * 2, 4, {"dog": 0.0}, 4)
    assert torch.equal(rows[:, 0], torch.ones(5, 4))
    assert rows[:, 1].sum(0).tolist() == [5, 5, 0, 5]


def test_a_word_that_no_prompt_has_is_an_error_that_lists_the_words():
    with pytest.raises(PromptError, match='"dog" is in none.*words are: a, cat, red'):
        word_windows(
            ["a cat", "a red cat"], [["a", "cat"], ["a", "red", "cat"]], 9, {"dog": 1.0}, 8
        )
    with pytest.raises(PromptError, match="words are: a, cat"):
        places_in(["a cat"], "mouse", [["a", "cat"]])
