"""swap/roles.py: prompts recast word by word, and where the words are."""

from __future__ import annotations

import pytest

from tiny import tiny_model
from understudy.errors import InputError, PromptError
from understudy.swap.subjects import source_places, target_places, with_replacements
from understudy.transfer.source_target import Replacement

PROMPT = "a photo of a Cat, a dog and another cat"


def test_every_occurrence_is_recast_or_one() -> None:
    assert with_replacements(PROMPT, [Replacement("cat", "sks cat")]) == (
        "a photo of a sks cat, a dog and another sks cat"
    )
    two = [
        Replacement("cat", "sks cat", 0),
        Replacement("cat", "zwx bear", 1),
        Replacement("dog", "pqr dog"),
    ]
    assert with_replacements(PROMPT, two) == "a photo of a sks cat, a pqr dog and another zwx bear"
    assert with_replacements("a category", []) == "a category"


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(PromptError, match='"bear" is not in .*words are: a, photo, of, Cat, dog'):
        with_replacements(PROMPT, [Replacement("bear", "x")])
    with pytest.raises(PromptError, match=r'"cat" 2 time\(s\), so it has no occurrence 3'):
        with_replacements(PROMPT, [Replacement("cat", "x", 2)])
    with pytest.raises(PromptError, match="categ"):
        with_replacements("a category", [Replacement("categ", "x")])
    with pytest.raises(InputError, match="same word"):
        with_replacements(PROMPT, [Replacement("cat", "x"), Replacement("another cat", "y")])


def test_places_of_all_roles_together() -> None:
    model = tiny_model("sd15")
    source = "a photo of cat on dog in cat"
    replacements = [Replacement("cat", "sks cat", 1), Replacement("dog", "bear")]
    target = with_replacements(source, replacements)
    assert target == "a photo of cat on bear in sks cat"
    assert source_places(model, source, replacements) == (6, 8)
    assert target_places(model, target, replacements) == (6, 8, 9)
