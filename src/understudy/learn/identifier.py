"""The word that will mean the subject: rare, so that the model holds no view of it yet.

DreamBooth (Ruiz et al. 2023, section 3.2) avoids English words, whose meaning must first be
unlearnt, and random strings, which the tokenizer splits into letters that have meanings too. It
looks up rare tokens in the vocabulary and turns them back into text. So do we, on the model's own
tokenizer, with one token, and we verify that the word really becomes that token again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from understudy.errors import InputError
from understudy.models.interface import DiffusionModel

RAREST = 0.2  # a byte-pair vocabulary is in order of frequency: its last fifth is rare
WORD_END = "</w>"
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
    "www xml xxx zzz hhh hmm mmm mhm shh psh grr brr".split()
)


@dataclass(frozen=True)
class Identifier:
    """A word for the subject, the tokens it becomes, and what speaks against it, if anything."""

    word: str
    pieces: tuple[str, ...]
    warning: str | None = None


def choose_identifier(
    model: DiffusionModel, word: str | None = None, *, seed: int = 0, avoid: Collection[str] = ()
) -> Identifier:
    """The user's own `word`, examined; without one, a rare word drawn by `seed`.

    avoid: words in use already, such as those of other subjects. Raises InputError for something
    that is not one plain word, and where the vocabulary has no rare word to offer.
    """
    if word is not None:
        return own_identifier(model, word)
    words = [rare for rare in rare_words(model) if rare not in avoid]
    if not words:
        raise InputError(
            f"The vocabulary of {model.name!r} has no unused rare word of one token. "
            f"Choose a word of your own with --identifier."
        )
    generator = torch.Generator().manual_seed(seed)
    choice = words[int(torch.randint(len(words), (), generator=generator))]
    return Identifier(choice, model.tokenize(choice).pieces)


def own_identifier(model: DiffusionModel, word: str) -> Identifier:
    """The user's word, with a warning if the tokenizer splits it or the model knows it well."""
    pieces = model.tokenize(word).pieces
    if not word or word.split() != [word] or not pieces or set(word) & set("{}"):
        raise InputError(f"--identifier must be one word without spaces or braces. Got {word!r}.")
    return Identifier(word, pieces, _objection(model, word, pieces))


def _objection(model: DiffusionModel, word: str, pieces: tuple[str, ...]) -> str | None:
    if len(pieces) > 1:
        parts = " + ".join(piece.removesuffix(WORD_END) for piece in pieces)
        return (
            f"{word!r} is not one token of {model.name!r} but {len(pieces)} ({parts}), each of "
            f"which means something already. A rare word of one token works better."
        )
    is_rare = all(model.vocabulary.get(piece, 0) >= _rare_from(model) for piece in pieces)
    if is_rare or word in rare_words(model):
        return None
    return (
        f"{word!r} is a common token of {model.name!r}, whose meaning must first be unlearnt. "
        f"A rare word works better."
    )


def rare_words(model: DiffusionModel) -> list[str]:
    """Rare words of one token, in the order of the vocabulary: three consonants, not TAKEN.

    From the rarest fifth of the vocabulary; from all of it where that fifth has none, as in a small
    vocabulary that keeps spare words elsewhere.
    """
    words = {
        piece.removesuffix(WORD_END): number
        for piece, number in model.vocabulary.items()
        if piece.endswith(WORD_END) and _is_plain(piece.removesuffix(WORD_END))
    }
    rare = {word: number for word, number in words.items() if number >= _rare_from(model)}
    pool = rare or words
    return [word for word in sorted(pool, key=pool.__getitem__) if _survives(model, word)]


def _is_plain(word: str) -> bool:
    return len(word) == 3 and CONSONANTS.issuperset(word) and word not in TAKEN


def _survives(model: DiffusionModel, word: str) -> bool:
    """Whether the word becomes exactly its own token again (26 of CLIP's short ones do not)."""
    return model.tokenize(word).pieces == (word + WORD_END,)


def _rare_from(model: DiffusionModel) -> int:
    """The smallest id that counts as rare."""
    return int(len(model.vocabulary) * (1 - RAREST))
