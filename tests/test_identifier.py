"""Identifiers: rare, one token, verified on the model's own tokenizer; the user's word examined."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from tiny import tiny_model
from understudy.errors import InputError
from understudy.learn.identifier import (
    TAKEN,
    candidates,
    choose_identifier,
    prior_of,
    rare_words,
)
from understudy.models.interface import DiffusionModel
from understudy.models.unet.stable_diffusion import StableDiffusion


class Vocabulary(StableDiffusion):
    """A tiny model whose vocabulary is what a test says; every other word is spelled out."""

    def __init__(self, words: Mapping[str, int], broken: str = "") -> None:
        self.__dict__.update(tiny_model().__dict__)
        self.__dict__["vocabulary"] = {f"{word}</w>": number for word, number in words.items()}
        self.broken = broken

    def tokenize(self, prompt: str) -> object:
        from understudy.models.interface import Tokens

        whole = f"{prompt}</w>" in self.vocabulary and prompt != self.broken
        strings = (f"{prompt}</w>",) if whole else tuple(prompt)
        return Tokens((0,), strings)


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
    word = choose_identifier(model, avoid={"sks bear"})
    assert (word.word, word.strings, word.warning) == ("zwx", ("zwx</w>",), None)


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


def test_steps_on_the_way_to_a_longer_word_are_left_out() -> None:
    """Byte pairs grow from the end: "hwx" came to be for "ohwx" only, "krr" for itself."""
    words = numbered("a photo of cat masks sks hwx ohwx krr")
    assert rare_words(Vocabulary(words)) == ["krr"]
    assert rare_words(Vocabulary({**words, "krr": 2, "hwx": 99})) == ["hwx"]


def test_the_built_in_model_offers_words_it_was_trained_with() -> None:
    """Its tokenizer alone is read: twelve spare words, of which five have three consonants."""
    from transformers import CLIPTokenizer

    from understudy.models.registry import WEIGHTS

    folder = WEIGHTS / "toybox-diffusion" / "tokenizer"
    strings = CLIPTokenizer.from_pretrained(folder).get_vocab()
    words = {
        string.removesuffix("</w>"): n for string, n in strings.items() if string.endswith("</w>")
    }
    assert set(rare_words(Vocabulary(words))) == {"sks", "zwx", "qzv", "vkq", "krr"}


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_identifiers_of_several_tokens_survive_the_round_trip(tokens: int) -> None:
    words = numbered("sks zwx qzv vkq krr bcd bcf bcg")
    drawn = candidates([*words], tokens, seed=4)
    assert len(drawn) == max(1, len(words) // tokens // 2)
    used = [word for phrase in drawn for word in phrase.split()]
    assert len(used) == len(set(used)) == tokens * len(drawn)
    assert drawn == candidates([*words], tokens, seed=4) != candidates([*words], tokens, seed=5)
    model = tiny_model()
    if tokens < 3:
        found = choose_identifier(model, tokens=tokens)
        assert found.strings == tuple(f"{word}</w>" for word in found.word.split())
        assert len(found.strings) == tokens
    else:
        with pytest.raises(InputError, match="2 unused rare words of one token; 3 are wanted"):
            choose_identifier(model, tokens=tokens)
    with pytest.raises(InputError, match="1 to 3 tokens. Got 4"):
        choose_identifier(model, tokens=4)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_the_least_meaning_wins(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word whose embedding is nothing moves the encoder less than one with a large embedding."""
    from understudy.learn import identifier

    model = tiny_model(kind)
    encoders = [model.text_encoder] + ([model.text_encoder_2] if kind == "sdxl" else [])
    for encoder in encoders:
        table = encoder.get_input_embeddings().weight
        with torch.no_grad():
            loud_row = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
            table[model.vocabulary["sks</w>"]] = 3 * loud_row
            table[model.vocabulary["zwx</w>"]] = table[model.vocabulary["a</w>"]]
    loud, quiet = prior_of(model, ["sks", "zwx"], "cat")
    assert loud > quiet >= 0
    assert prior_of(model, ["sks"]) != [loud]
    monkeypatch.setattr(identifier, "candidates", lambda words, *_: list(words))
    assert choose_identifier(model, class_noun="cat").word == "zwx"


def test_a_vocabulary_without_rare_words_asks_for_one() -> None:
    with pytest.raises(InputError, match="--identifier"):
        choose_identifier(Vocabulary(numbered("a photo of cat")))
    with pytest.raises(InputError, match="--identifier"):
        choose_identifier(tiny_model(), avoid={"sks", "zwx"})


def test_a_word_of_ones_own_is_taken_with_a_warning_if_split_or_common() -> None:
    model = tiny_model()
    assert choose_identifier(model, "zwx").warning is None
    split = choose_identifier(model, "rex")
    assert split.word == "rex" and split.strings == ("re", "x</w>")
    assert split.warning is not None and "2 (re + x)" in split.warning
    common = choose_identifier(Vocabulary(numbered("cat a b c d e f g h i")), "cat")
    assert common.warning is not None and "common" in common.warning


@pytest.mark.parametrize("word", ["", " ", "two words", "{rex}"])
def test_what_is_no_single_word_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="--identifier"):
        choose_identifier(tiny_model(), word)
