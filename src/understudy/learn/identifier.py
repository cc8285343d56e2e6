"""Chooses the identifier: rare tokens to which the model attaches no meaning yet.

DreamBooth (Ruiz et al. 2023, section 3.2) avoids English words, whose meaning must first be
unlearnt, and random strings, which the tokenizer splits into letters that have meanings too. It
looks up rare tokens in the vocabulary and turns them back into text. So do we, on the model's own
tokenizer; we verify that the words really become those tokens again, and of the candidates that a
seed draws we take the one that moves the text encoder least.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from understudy.errors import InputError
from understudy.models.interface import DiffusionModel
from understudy.models.word_tables import word_tables

RAREST = 0.2  # a byte-pair vocabulary is in order of frequency: its last fifth is rare
CANDIDATES = 24  # are measured, and at most half of those there are
MOST_TOKENS = 3  # the paper's k
LETTERS = 3  # of a rare word: the paper's limit
WORD_END = "</w>"
WORD_STARTS = ("\u2581", "\u0120")  # how T5 and byte-level tokenizers write a blank in front
# For vocabularies without rare words of one token (T5 and language models have few or none).
USUAL = ("sks", "shs", "znx", "vtq", "hwk", "qzt")
CONSONANTS = frozenset("bcdfghjklmnpqrstvwxz")

# Three consonants are no English word, but they may be an acronym, a brand or worse.
TAKEN = frozenset(
    "bbc bbq bcc bdsm bff bjp bmw bmx bnp bnw brb brt bts cbc cbd cbs ccp cctv cdc cds cnn crt css "
    "ctv dbz dfb dlc dmc dmv dnd dvd fck fcb fml fps fpl fsb ftw gdp ghz gmc gmt gps gtx gtr hbd "
    "hdr hmr hmv hrh jfk jpg jrs kbs kgb kkk kmh ksp ktm kst lbc lbs ldn lfc lgb lgbt ltd mbc mbs "
    "mcr mdt mfs mgm mhz mls mlb mlm mms mph mrs mrt msg mtb mtg mtv mvp nbc ncc ndp nfc nfl nfr "
    "ngc nhl nhs nks npr nrl nsfw nsw ntv nvr nwt nws nxt pbs pcs pdf pdx pfw phd php pkg plc pls "
    "plz pms png ppl ppp ppt pps prs psd psg psn pst ptc ptsd pvc pvp qld qtr rbs rdr rnb rpg rps "
    "rtv sbs scm sdk sms smh snp sql ssc ssh sss std stl svg svr swf swr tbs tbt tcm tdf tgif thc "
    "thx tkt tlc tls tnt tps tsp tvs tvd txt vhs vmas vpn wbc wcs wcw wfp wwf wnd wsj wth wtf wwe "
    "www xml xxx zzz hhh hmm mmm mhm shh psh grr brr "
    # Slurs and obscenities without their vowels.
    "bch btch clt cnt dck dyk fgt fgg fkr fkn jgg kyk mfr ngr ngg ngs nzs pss prn prk rtd shg sht "
    "slt spc spk stf trn tts wnk wtb wtv whr".split()
)


@dataclass(frozen=True)
class Identifier:
    """A word for the subject, the tokens it becomes, and what speaks against it, if anything."""

    word: str
    strings: tuple[str, ...]
    warning: str | None = None


def choose_identifier(
    model: DiffusionModel,
    word: str | None = None,
    *,
    seed: int = 0,
    avoid: Collection[str] = (),
    tokens: int = 1,
    class_noun: str = "",
    whole: bool = False,
) -> Identifier:
    """The user's own `word`, examined; without one, rare words drawn by `seed`, one a token.

    avoid: words in use already, such as those of other subjects. class_noun: what will stand behind
    the identifier. whole: it must be one token in every text encoder, because its embeddings are
    replaced. Raises InputError for something that is not one plain word, or not one token where it
    must be, and where the vocabulary has not enough rare words to offer.
    """
    if word is not None:
        found = own_identifier(model, word)
        if whole:
            _check_whole(model, word)
        return found
    if not 1 <= tokens <= MOST_TOKENS:
        raise InputError(f"An identifier has 1 to {MOST_TOKENS} tokens. Got {tokens}.")
    used = {part for phrase in avoid for part in phrase.split()}
    # Two subjects with one identifier could not be told apart in a prompt.
    rare = spare_words(model, tokens + len(used)) if whole else rare_words(model)
    words = [word for word in rare if word not in used]
    if len(words) < tokens and not whole and not _ends_words(model):
        free = [word for word in USUAL if word not in used]
        if len(free) >= tokens:
            choice = " ".join(free[:tokens])
            return Identifier(choice, model.tokenize(choice).strings)
    if len(words) < tokens:
        raise InputError(
            f"The vocabulary of {model.name!r} has {len(words)} unused rare words of one token; "
            f"{tokens} are wanted. Choose a word of your own with --identifier."
        )
    drawn = candidates(words, tokens, seed)
    if whole and not _is_plain(words[0]):  # what they mean is replaced
        return Identifier(drawn[0], model.tokenize(drawn[0]).strings)
    strength = prior_of(model, drawn, class_noun)
    choice = drawn[min(range(len(drawn)), key=strength.__getitem__)]
    return Identifier(choice, model.tokenize(choice).strings)


def candidates(words: Sequence[str], tokens: int, seed: int) -> list[str]:
    """Phrases of so many of the words, none twice, drawn by seed from half of all there are."""
    generator = torch.Generator().manual_seed(seed)
    places: list[int] = torch.randperm(len(words), generator=generator).tolist()
    mixed = [words[place] for place in places]
    phrases = [" ".join(mixed[i : i + tokens]) for i in range(0, len(mixed) - tokens + 1, tokens)]
    return phrases[: max(1, min(CANDIDATES, len(phrases) // 2))]


@torch.no_grad()
def prior_of(model: DiffusionModel, phrases: Sequence[str], class_noun: str = "") -> list[float]:
    """How much each phrase means to the text encoder already: what it moves, 0 being nothing.

    The distance (1 - cosine) between the text of "a photo of a {phrase} {noun}" and that of "a
    photo of a {noun}", at the token that ends the prompt and has read all of it.
    """
    plain = f"a photo of a {class_noun}".strip()
    prompts = [f"a photo of a {phrase} {class_noun}".strip() for phrase in phrases]
    ends = [one.first + one.length for one in map(model.tokenize, (plain, *prompts))]
    text = model.embed([plain, *prompts]).tokens
    # CLIP is causal: the last token is the first one that has read the whole prompt.
    states = text[torch.arange(len(text)), ends].float()
    return (1 - F.cosine_similarity(states[1:], states[:1])).tolist()


def own_identifier(model: DiffusionModel, word: str) -> Identifier:
    """The user's word, with a warning if the tokenizer splits it or the model knows it well."""
    strings = model.tokenize(word).strings
    if not word or word.split() != [word] or not strings or set(word) & set("{}"):
        raise InputError(f"--identifier must be one word without spaces or braces. Got {word!r}.")
    return Identifier(word, strings, _objection(model, word, strings))


def _objection(model: DiffusionModel, word: str, strings: tuple[str, ...]) -> str | None:
    if len(strings) > 1:
        parts = " + ".join(string.removesuffix(WORD_END) for string in strings)
        return (
            f"{word!r} is not one token of {model.name!r} but {len(strings)} ({parts}), each of "
            f"which already has a meaning. A rare word of one token works better."
        )
    is_rare = all(model.vocabulary.get(string, 0) >= _rare_from(model) for string in strings)
    if is_rare or word in rare_words(model):
        return None
    return (
        f"{word!r} is a common token of {model.name!r}, and training must first remove its "
        f"meaning. A rare word works better."
    )


def rare_words(model: DiffusionModel) -> list[str]:
    """Rare words of one token, in the order of the vocabulary: three consonants, not TAKEN.

    From the rarest fifth of the vocabulary; from all of it where that fifth has none, as in a small
    vocabulary that keeps spare words elsewhere. A token that a later word ends in is left out: it
    may be no word of any text, just a step in which byte pairs grew into that word ("hwx" on
    the way to "ohwx"), and then the model has never seen it.
    """
    words: dict[str, int] = {}
    latest: dict[str, int] = {}
    for string, number in model.vocabulary.items():
        word = _word_of(string)
        if word is None:
            continue
        if _is_plain(word):
            words[word] = number
        elif len(word) > LETTERS:
            latest[word[-LETTERS:]] = max(number, latest.get(word[-LETTERS:], number))
    whole = {word: number for word, number in words.items() if latest.get(word, -1) < number}
    # BPE merges are ranked by frequency, so high ids are rare.
    rare = {word: number for word, number in whole.items() if number >= _rare_from(model)}
    pool = rare or whole
    return [word for word in sorted(pool, key=pool.__getitem__) if _survives(model, word)]


def is_whole(model: DiffusionModel, word: str) -> bool:
    """Whether every text encoder reads the word as one token."""
    return all(len(table.ids(word)) == 1 for table in word_tables(model).values())


def spare_words(model: DiffusionModel, count: int) -> list[str]:
    """Words of one token in every text encoder, in the order of the vocabulary: rare words, or
    longer ones where there are fewer than `count` of those. The rarest fifth, where that has any.

    Longer ones may mean something: they are for embeddings that replace those of the word.
    """
    rare = [word for word in rare_words(model) if is_whole(model, word)]
    if len(rare) >= count:
        return rare
    words = {
        word: number
        for string, number in model.vocabulary.items()
        if (word := _word_of(string)) and word.isascii() and word.isalpha() and word.islower()
        and len(word) > LETTERS
    }  # fmt: skip
    ordered = sorted(words, key=words.__getitem__)
    rarest = [word for word in ordered if words[word] >= _rare_from(model)]
    found = [word for word in rarest if is_whole(model, word)]
    return found or [word for word in ordered if is_whole(model, word)] or rare


def _check_whole(model: DiffusionModel, word: str) -> None:
    tables = word_tables(model)
    for part, table in tables.items():
        count = len(table.ids(word))
        if count != 1:
            where = f" in the {part}" if len(tables) > 1 else ""
            raise InputError(
                f"--identifier must be one token of {model.name!r}, because its embedding is "
                f"replaced. {word!r} has {count}{where}. Leave it out, or use another."
            )


def _is_plain(word: str) -> bool:
    return len(word) == LETTERS and CONSONANTS.issuperset(word) and word not in TAKEN


def _word_of(string: str) -> str | None:
    """The word that a piece of a vocabulary is; None for a part of one."""
    if string.endswith(WORD_END):
        return string.removesuffix(WORD_END)
    return string[1:] if string.startswith(WORD_STARTS) else None


def _ends_words(model: DiffusionModel) -> bool:
    """Whether the vocabulary marks the ends of words, as CLIP's does."""
    return any(string.endswith(WORD_END) for string in model.vocabulary)


def _survives(model: DiffusionModel, word: str) -> bool:
    """Whether the word becomes exactly its own token again (26 of CLIP's short ones do not)."""
    if _ends_words(model):
        return model.tokenize(word).strings == (word + WORD_END,)
    return [_word_of(string) for string in model.tokenize(f"a {word}").strings[1:]] == [word]


def _rare_from(model: DiffusionModel) -> int:
    """The smallest id that counts as rare."""
    return int(len(model.vocabulary) * (1 - RAREST))
