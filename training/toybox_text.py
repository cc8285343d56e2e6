"""Captions of the toy world for training, and the tokenizer of the built-in models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from understudy import toybox

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

TOKENS = 40
CAPTIONS = 8  # of each training picture
SPARE = ("sks", "zwx", "ohwx", "qzv", "vkq", "xjy", "bnha", "krr", "wuk", "phlo", "ydu", "grol")
"""Rare tokens: each is one token; in training they stand before nouns now and then and mean
nothing, so that a subject learnt later can take any of them."""


def random_caption(scene: toybox.Scene, rng: np.random.Generator) -> str:
    """A caption; one in ten with a meaningless rare token before a noun."""
    text = toybox.caption(scene, int(rng.integers(2**31)))
    if rng.random() < 0.1:
        nouns = [w for w in text.split() if w in toybox.CLASSES]
        text = text.replace(nouns[0], f"{rng.choice(SPARE)} {nouns[0]}", 1)
    return text


def vocabulary() -> list[str]:
    """Every word that a caption of the world can hold."""
    from understudy.toybox import vocabulary as words

    phrases = [*words.CLASSES, *words.COLOURS, *words.PATTERNS, *words.ACCESSORIES, *words.LIGHTS,
               *words.ALL_STANCES, *words.BACKGROUNDS.values(), *words.PROPS, "a an photo of and",
               "with next to light sunlight in toy the its picture small big"]  # fmt: skip
    return sorted({word for phrase in phrases for word in phrase.split()})


def new_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with a small vocabulary: any text, one token for each known word."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*alphabet, *(c + "</w>" for c in alphabet)])}
    merges: list[tuple[str, str]] = []
    for word in (*vocabulary(), *SPARE):
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:  # join from the right: endings are shared least
            pair = (pieces[-2], pieces[-1])
            pieces[-2:] = ["".join(pair)]
            if pair not in merges:
                merges.append(pair)
            vocab.setdefault("".join(pair), len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)
