"""Identifiers: rare, one token, verified on the model's own tokenizer; the user's word examined."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tiny import tiny_model
from understudy.errors import InputError
from understudy.learn.identifier import TAKEN, choose_identifier, rare_words
from understudy.models.interface import DiffusionModel
from understudy.models.stable_diffusion import StableDiffusion


class Vocabulary(StableDiffusion):
    """A tiny model whose vocabulary is what a test says; every other word is spelled out."""

    def __init__(self, words: Mapping[str, int], broken: str = "") -> None:
        self.__dict__.update(tiny_model().__dict__)
        self.__dict__["vocabulary"] = {f"{word}</w>": number for word, number in words.items()}
        self.broken = broken

    def tokenize(self, prompt: str) -> object:
        from understudy.models.interface import Tokens

        whole = f"{prompt}</w>" in self.vocabulary and prompt != self.broken
        pieces = (f"{prompt}</w>",) if whole else tuple(prompt)
        return Tokens((0,), pieces)


def numbered(words: str) -> dict[str, int]:
    return {word: number for number, word in enumerate(words.split())}


def test_the_tiny_model_offers_its_rare_words() -> None:
    assert rare_words(tiny_model()) == ["sks", "zwx"]


@pytest.mark.parametrize("kind", ["sd15", "sd21", "toy"])
def test_a_chosen_identifier_is_one_token_and_seedable(kind: str) -> None:
    model: DiffusionModel = tiny_model(kind)
    chosen = {choose_identifier(model, seed=seed).word for seed in range(12)}
    assert chosen == {"sks", "zwx"}
    assert choose_identifier(model, seed=3) == choose_identifier(model, seed=3)
    word = choose_identifier(model, avoid={"sks"})
    assert (word.word, word.pieces, word.warning) == ("zwx", ("zwx</w>",), None)


def test_rare_means_the_last_fifth_of_the_vocabulary() -> None:
    words = numbered("bcd bcf bcg bch bcj bck bcl bcn bcp bcq")
    assert rare_words(Vocabulary(words)) == ["bcp", "bcq"]


def test_words_brands_and_what_does_not_survive_the_round_trip_are_left_out() -> None:
    words = numbered("a b c d e f g h i j k l m n o p q r s t u v w x bmw cat zq xxxx qzx qzv")
    assert rare_words(Vocabulary(words, broken="qzx")) == ["qzv"]
    assert all(len(word) >= 3 for word in TAKEN)


def test_spare_words_elsewhere_are_found_where_the_last_fifth_has_none() -> None:
    words = numbered("sks a photo of cat dog on the beach street")
    assert rare_words(Vocabulary(words)) == ["sks"]


def test_a_vocabulary_without_rare_words_asks_for_one() -> None:
    with pytest.raises(InputError, match="--identifier"):
        choose_identifier(Vocabulary(numbered("a photo of cat")))
    with pytest.raises(InputError, match="--identifier"):
        choose_identifier(tiny_model(), avoid={"sks", "zwx"})


def test_a_word_of_ones_own_is_taken_with_a_warning_if_split_or_common() -> None:
    model = tiny_model()
    assert choose_identifier(model, "zwx").warning is None
    split = choose_identifier(model, "rex")
    assert split.word == "rex" and split.pieces == ("re", "x</w>")
    assert split.warning is not None and "2 (re + x)" in split.warning
    common = choose_identifier(Vocabulary(numbered("cat a b c d e f g h i")), "cat")
    assert common.warning is not None and "common" in common.warning


@pytest.mark.parametrize("word", ["", " ", "two words", "{rex}"])
def test_what_is_no_single_word_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="--identifier"):
        choose_identifier(tiny_model(), word)
