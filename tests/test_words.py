"""words.py: which tokens are a word's, and which tokens of two prompts answer to each other."""

import json

import numpy as np
import pytest

from golden_model import golden_folders
from tiny import tiny_model
from understudy.diffusion.prompt_words import fold, inflected, word_spans, words_of
from understudy.diffusion.text import Tokens
from understudy.diffusion.words import (
    align,
    exact_places,
    own_padding,
    replace_matrix,
    split_places,
    word_places,
)
from understudy.errors import PromptError

FOLDERS = [
    folder / "diffusion"
    for folder in golden_folders()
    if (folder / "diffusion" / "e_alignment.json").exists()
]


def golden(kind):
    return [
        pytest.param(folder, entry, id=f"{folder.parent.name}-{entry['id']}")
        for folder in FOLDERS
        for entry in json.loads((folder / "e_alignment.json").read_text()).get(kind, [])
    ]


def arrays(folder):
    return np.load(folder / "e_alignment.npz")


# --- Golden -----------------------------------------------------------------------------------


def expect(folder, key, ours):
    """Equal to the recorded array, where there is one."""
    if key in arrays(folder):
        assert np.array_equal(np.asarray(ours), arrays(folder)[key]), key


@pytest.mark.parametrize(("folder", "pair"), golden("pairs"))
def test_golden_alignment_is_the_published_one(folder, pair):
    length = arrays(folder)[f"{pair['id']}/mapper"].shape[-1]
    alignment = align(pair["source_ids"], pair["target_ids"], length)
    expect(folder, f"{pair['id']}/mapper", alignment.mapper)
    expect(folder, f"{pair['id']}/alphas", alignment.alphas)


@pytest.mark.parametrize(("folder", "pair"), golden("pairs"))
@pytest.mark.parametrize("side", ["source", "target"])
def test_golden_exact_places_are_the_published_ones(folder, pair, side):
    strings = pair[f"{side}_pieces"][1:-1]
    for word, places in pair.get(f"{side}_word_positions", {}).items():
        assert list(exact_places(pair[side], word, strings)) == places
        if places and words_of(word):
            assert set(places) & set(word_places(pair[side], word, strings))
    by_index = pair.get("word_positions_by_index", {}).get(side)
    if by_index is not None:
        assert [list(places) for places in split_places(pair[side], strings)] == by_index


@pytest.mark.parametrize(("folder", "pair"), golden("pairs"))
def test_golden_replace_matrix_is_the_published_one(folder, pair):
    prompts = pair["source"], pair["target"]
    strings = pair["source_pieces"][1:-1], pair["target_pieces"][1:-1]
    length = arrays(folder)[f"{pair['id']}/mapper"].shape[-1]
    if len(pair["source"].split(" ")) != len(pair["target"].split(" ")):
        assert f"{pair['id']}/replace_mapper" not in arrays(folder)
        with pytest.raises(PromptError, match="equally many words"):
            replace_matrix(*prompts, *strings, length, drift=True)
    else:
        matrix = replace_matrix(*prompts, *strings, length, drift=True)
        expect(folder, f"{pair['id']}/replace_mapper", matrix)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_golden_alignment_of_several_prompts(folder):
    told = json.loads((folder / "e_alignment.json").read_text())
    prompts = told.get("three_prompts", [])
    names = [key.split("/")[0] for key in arrays(folder) if key.endswith("multi/mapper")]
    for name in names:
        length = arrays(folder)[f"{name}/mapper"].shape[-1]
        ids = [ids_of(folder, prompt) for prompt in prompts]
        found = [align(ids[0], target, length) for target in ids[1:]]
        expect(folder, f"{name}/mapper", [each.mapper for each in found])
        expect(folder, f"{name}/alphas", [each.alphas for each in found])
    if not names:
        pytest.skip("no several prompts recorded")


def ids_of(folder, prompt):
    """Token ids of a prompt of this folder, from wherever it is written down."""
    pairs = json.loads((folder / "e_alignment.json").read_text())["pairs"]
    texts = json.loads((folder / "text.json").read_text())
    ids = {pair[side]: pair[f"{side}_ids"] for pair in pairs for side in ("source", "target")}
    return (ids | {text["prompt"]: text["ids"] for text in texts})[prompt]


# --- Words ------------------------------------------------------------------------------------

WOMAN = "A photo of a woman woman, smiling", ["a", "photo", "of", "a", "woman", "woman", ",", "s"]


def test_words_are_listed_without_punctuation():
    assert words_of("A cat's toy, well-worn (blue)!") == ("A", "cat's", "toy", "well-worn", "blue")


@pytest.mark.parametrize(
    ("prompt", "word", "found"),
    [
        ("a toy-cat on a mat", "cat", []),  # the hyphen makes it one word
        ("a toy-cat on a mat", "toy-cat", ["toy-cat"]),
        ("a toy cat on a mat", "toy cat", ["toy cat"]),
        ("a toy, cat on a mat", "toy cat", ["toy, cat"]),
        ("the cat's bed", "cat", ["cat"]),
        ("the Cat’S bed", "cat", ["Cat"]),
        ("the cat's bed", "cat's", ["cat's"]),
        ("a cat in the cat's bed", "cat", ["cat", "cat"]),
        ("a category", "cat", []),
        ("a cat_1 (cat)", "cat", ["cat"]),
        ("two cats and a dog", "cat", ["cats"]),
        ("two cats and a cat", "cat", ["cat"]),  # a plural counts only where the word is absent
        ("two cats' beds", "cat", ["cats"]),
        ("a cat on a mat", "cats", ["cat"]),
        ("two toy buses", "toy bus", ["toy buses"]),
        ("some toys bus", "toy bus", []),  # of a phrase the last word alone is inflected
        ("puppies, wolves and knives", "puppy", ["puppies"]),
        ("puppies, wolves and knives", "wolf", ["wolves"]),
        ("puppies, wolves and knives", "knife", ["knives"]),
        ("men, children and mice", "man", ["men"]),
        ("policewomen in a car", "policewoman", ["policewomen"]),
        ("men, children and mice", "child", ["children"]),
        ("his hat as", "hi", []),
        ("un cafe\u0301 noir", "CAF\u00c9", ["cafe\u0301"]),
        ("un cafe\u0301 noir", "cafe", []),
        ("cat cat cat", "cat cat", ["cat cat"]),
    ],
)
def test_one_rule_finds_a_word_in_a_prompt(prompt, word, found):
    """A word is whole; a possessive ending is none of its; plurals stand in for what is absent."""
    if not found:
        with pytest.raises(PromptError, match="is not in the prompt"):
            word_spans(prompt, word)
        assert inflected(prompt, word) == ()
        return
    spans = word_spans(prompt, word)
    assert [prompt[start:end] for start, end in spans] == found
    forms = inflected(prompt, word)
    assert bool(forms) == (words_of(fold(found[0])) != words_of(fold(word)))
    strings = [f"{w}</w>" for w in prompt.split()]  # one token a blank-separated word
    assert word_places(prompt, word, strings), "what is found in the text is found in the tokens"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cat", (2,)),
        ("CAT,", (2,)),
        ("rhinoceros", (6, 7, 8)),
        ("a", (1, 5)),
        ("a rhinoceros", (5, 6, 7, 8)),
        ("cat and", (2, 4)),  # the comma between them is neither's
    ],
)
def test_a_word_is_found_whatever_its_case_punctuation_and_tokens(word, expected):
    prompt = "a Cat, and a rhinoceros!"
    strings = ["a</w>", "cat</w>", ",</w>", "and</w>", "a</w>", "rhino", "cer", "os</w>", "!</w>"]
    expected = (2, 3, 4) if word == "cat and" else expected
    assert word_places(prompt, word, strings) == expected


def test_an_identifier_of_several_tokens_is_found():
    strings = ["a</w>", "photo</w>", "of</w>", "x", "q", "z</w>", "dog</w>"]
    assert word_places("a photo of xqz dog", "xqz", strings) == (4, 5, 6)
    assert word_places("a photo of xqz dog", "xqz dog", strings) == (4, 5, 6, 7)


def test_a_repeated_word_is_found_everywhere_or_once():
    prompt, strings = WOMAN[0], [*WOMAN[1][:-1], "smiling"]
    assert word_places(prompt, "woman", strings) == (5, 6)
    assert word_places(prompt, "woman", strings, occurrence=1) == (6,)
    assert exact_places(prompt, "woman", strings) == (5,)
    with pytest.raises(PromptError, match=r"2 time\(s\), so it has no occurrence 3"):
        word_places(prompt, "woman", strings, occurrence=2)


@pytest.mark.parametrize("word", ["dog", "ca", "cat asleep", "cats mat", "", ","])
def test_an_unknown_word_is_an_error_that_lists_the_words(word):
    with pytest.raises(PromptError, match="its words are: a, cat, on, mat"):
        word_places("a cat on a mat", word, ["a", "cat", "on", "a", "mat"])


def test_letters_beyond_ascii_are_found_in_text_and_in_byte_pieces():
    prompt = "un café noir"
    assert word_places(prompt, "café", ["un</w>", "café</w>", "noir</w>"]) == (2,)
    assert word_places(prompt, "café", ["un</w>", "caf", "Ã", "©</w>", "noir</w>"]) == (2, 3, 4)
    assert word_places(prompt, "noir", ["un</w>", "caf", "\ufffd</w>", "noir</w>"]) == (4,)


# --- Alignment --------------------------------------------------------------------------------


def test_a_learnt_tail_keeps_its_own_attention():
    alignment = align([0, 5, 9], [0, 5, 9], 10, own=range(8, 10))
    assert alignment.alphas == (1,) * 8 + (0, 0)


def test_padding_of_a_shorter_target_can_be_kept_off_the_sources_words():
    source, target = [0, 1, 2, 3, 4, 9], [0, 1, 9]
    assert align(source, target, 8).mapper[3:] == (3, 4, 5, 6, 7)
    kept = align(source, target, 8, own=own_padding(source, target))
    assert kept.alphas == (1, 1, 1, 0, 0, 0, 1, 1)


def test_without_drift_what_follows_a_longer_word_stays_on_its_partner():
    source = ["a", "cat", "on", "mats"]
    target = ["a", "rhino", "cer", "on", "mats"]
    prompts = "a cat on mats", "a rhinocer on mats"
    right = replace_matrix(*prompts, source, target, 8)
    assert right[3, 4] == 1 and right[4, 5] == 1 and right[2, 2] == right[2, 3] == 0.5
    drifted = replace_matrix(*prompts, source, target, 8, drift=True)
    assert drifted[4, 4] == 1 and drifted[3, 4] == 0


def test_words_are_found_by_the_tokenizers_offsets() -> None:
    """Pieces that do not spell the prompt, blanks in front of pieces, a sequence of its own."""
    prompt = "a Café by the sea"
    spans = ((0, 1), (1, 4), (4, 6), (6, 9), (9, 13), (13, 17))
    tokens = Tokens((0,) * 9, ("?",) * 6, spans, first=77)
    assert word_places(prompt, "café", tokens) == (78, 79)
    assert word_places(prompt, "the sea", tokens) == (81, 82)
    with pytest.raises(PromptError, match="its words are"):
        word_places(prompt, "dog", tokens)


@pytest.mark.parametrize("kind", ["sd15", "toy"])
def test_offsets_and_pieces_find_the_same_places(kind: str) -> None:
    model = tiny_model(kind)
    prompt = "a photo of the Red dog, sitting on the beach"
    tokens = model.tokenize(prompt)
    assert tokens.spans is not None and len(tokens.spans) == tokens.length
    for word in ("photo", "red", "dog", "red dog", "the beach"):
        assert word_places(prompt, word, tokens) == word_places(prompt, word, tokens.strings)
