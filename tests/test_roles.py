"""swap/roles.py: prompts recast word by word, and where the words are."""

from __future__ import annotations

import pytest

from tiny import tiny_model
from understudy.errors import InputError, PromptError
from understudy.swap.subjects import Role, cast, source_places, target_places

PROMPT = "a photo of a Cat, a dog and another cat"


def test_every_occurrence_is_recast_or_one() -> None:
    assert cast(PROMPT, [Role("cat", "sks cat")]) == (
        "a photo of a sks cat, a dog and another sks cat"
    )
    two = [Role("cat", "sks cat", 0), Role("cat", "zwx bear", 1), Role("dog", "pqr dog")]
    assert cast(PROMPT, two) == "a photo of a sks cat, a pqr dog and another zwx bear"
    each = [Role("dog", ("sks dog", "zwx dog"))]
    assert cast(PROMPT, each, 1) == "a photo of a Cat, a zwx dog and another cat"
    assert cast("a category", []) == "a category"


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(PromptError, match='"bear" is not in .*words are: a, photo, of, Cat, dog'):
        cast(PROMPT, [Role("bear", "x")])
    with pytest.raises(PromptError, match=r'"cat" 2 time\(s\). Number 3'):
        cast(PROMPT, [Role("cat", "x", 2)])
    with pytest.raises(PromptError, match="categ"):
        cast("a category", [Role("categ", "x")])
    with pytest.raises(InputError, match="same word"):
        cast(PROMPT, [Role("cat", "x"), Role("another cat", "y")])


def test_places_of_all_roles_together() -> None:
    model = tiny_model("sd15")
    source = "a photo of cat on dog in cat"
    roles = [Role("cat", "sks cat", 1), Role("dog", "bear")]
    target = cast(source, roles)
    assert target == "a photo of cat on bear in sks cat"
    assert source_places(model, source, roles) == (6, 8)
    assert target_places(model, target, roles, 0) == (6, 8, 9)
