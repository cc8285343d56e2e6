"""Weights of words in prompts: what is read, what the encoder gets, and what must not change."""

from __future__ import annotations

import re

import pytest
import torch

from tiny import tiny_model
from understudy.diffusion.prompt_weights import escaped, token_weights, unweighted, weighted
from understudy.diffusion.words import split_places, word_places
from understudy.errors import PromptError


@pytest.mark.parametrize(
    ("prompt", "text", "weights"),
    [
        ("a cat", "a cat", {"a": 1, "cat": 1}),
        ("a (cat)", "a cat", {"a": 1, "cat": 1.1}),
        ("a [cat]", "a cat", {"cat": 1 / 1.1}),
        ("a (red cat:1.3) on grass", "a red cat on grass", {"red": 1.3, "cat": 1.3, "on": 1}),
        ("((cat))", "cat", {"cat": 1.21}),
        ("(a (red:2) cat:0.5)", "a red cat", {"a": 0.5, "red": 1.0, "cat": 0.5}),
        ("( cat : 1.5 )", " cat ", {"cat": 1.5}),
        (r"a cat \(old\) \[x\]", "a cat (old) [x]", {"cat": 1, "old": 1}),
        ("a cat: red (b: c:1.2)", "a cat: red b: c", {"red": 1, "c": 1.2}),
        ("half past 10:30", "half past 10:30", {"30": 1}),
        ("a\\b", "a\\b", {"b": 1}),
    ],
)
def test_weights_are_read_as_other_programs_read_them(
    prompt: str, text: str, weights: dict[str, float]
) -> None:
    found = weighted(prompt)
    assert found.text == text == unweighted(prompt)
    for word, weight in weights.items():
        at = re.search(rf"\b{word}\b", text).start()
        assert found.weights[at : at + len(word)] == pytest.approx([weight] * len(word))
        start, end = found.written(at, at + len(word))
        assert prompt[start:end] == word


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a (cat", r"\( at character 3"),
        ("a cat)", r"\) at character 6"),
        ("(a cat]", r"\] at character 7"),
        ("(cat:big)", "from 0 to 4"),
        ("(cat:5)", "from 0 to 4"),
        ("(cat:-1)", "from 0 to 4"),
        ("(cat:nan)", "from 0 to 4"),
    ],
)
def test_what_is_no_weight_is_refused(prompt: str, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        weighted(prompt)


def test_escaped_text_is_read_as_it_is() -> None:
    for text in ("a (b) [c]", "a\\b", "plain", "(((", "\\("):
        assert unweighted(escaped(text)) == text and weighted(escaped(text)).plain


def test_a_tokens_weight_is_that_of_its_characters() -> None:
    found = token_weights(weighted("a (cat:2) on"), [(0, 1), (2, 5), (6, 8)], 1, 6)
    assert found.tolist() == [1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_weights_move_tokens_from_the_empty_prompt_and_nothing_else(kind: str) -> None:
    model = tiny_model(kind)
    plain, empty = model.embed(["a red cat"]), model.embed([""])
    strong, none = model.embed(["a (red:1.5) cat"]), model.embed(["a (red:0) cat"])
    same = [place for place in range(plain.tokens.shape[1]) if place != 2]
    assert torch.equal(strong.tokens[:, same], plain.tokens[:, same])
    unsaid = empty.tokens[:, 2]
    moved = unsaid + 1.5 * (plain.tokens[:, 2] - unsaid)
    assert torch.allclose(none.tokens[:, 2], unsaid) and not torch.equal(moved, plain.tokens[:, 2])
    assert torch.allclose(strong.tokens[:, 2], moved, atol=1e-6)
    if kind == "sdxl":
        assert torch.equal(strong.pooled, plain.pooled)
    assert model.embed(["a (red:1.0) cat"]).equals(plain)
    mixed = model.embed(["a red cat", "a (red:1.5) cat"])
    assert torch.allclose(mixed.tokens[0], plain.tokens[0], atol=1e-6)
    assert torch.allclose(mixed.tokens[1], strong.tokens[0], atol=1e-6)


def test_words_are_found_behind_weights() -> None:
    model = tiny_model("sd15")
    prompt = "a photo of (a red cat:1.3)"
    tokens = model.tokenize(prompt)
    assert tokens.ids == model.tokenize("a photo of a red cat").ids
    assert word_places(prompt, "cat", tokens) == (6,)
    assert word_places(prompt, "red cat", tokens) == (5, 6)
    assert split_places(prompt, tokens.strings)[-1] == (6,)
