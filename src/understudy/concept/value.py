"""A learnt subject as one value, however it was learnt: a name, words, and a few tensors.

What a tensor is, its name tells; a concept may hold several sorts at once. P is a weight of the
model such as "unet.conv_in.weight":

    P                               a difference, of P's shape                   DreamBooth
    P.lora_A, P.lora_B, P.alpha     a low-rank one, alpha / rank * B @ A         LoRA
    P.rows, P.ids                   rows that stand in the place of P's rows     Textual Inversion
    tail                            text embeddings behind a prompt's words      HiPer

P.lora_A is (rank, inputs), P.lora_B (outputs, rank), P.alpha a scalar; a convolution's product
takes the shape of its weight. P.rows is (n, width), P.ids (n) are tokens of the identifier. `tail`
is (n, width of the text as the U-Net reads it), to be scaled by `tail_scale` when used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxtyping import Float
from torch import Tensor

from understudy.concept.folder import read, write
from understudy.errors import InputError, PromptError

TAIL, TAIL_SCALE = "tail", 0.8
LOW_RANK, ROWS = ("lora_A", "lora_B", "alpha"), ("rows", "ids")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# Where a noun would stand with its article: at the beginning, and behind these.
_BARE = re.compile(
    r"(^\s*|[,;:]\s+|\b(?:of|and|or|with|to|by|beside|behind|near|under|like|as)\s+)(?=\{)", re.I
)


@dataclass(frozen=True, eq=False)
class Concept:
    """A learnt subject: what it is called in prompts, and what it changes in its base model.

    kind is the method it was learnt by: "dreambooth", "lora", "textual-inversion", "hiper".
    identifier: the word, or words, that mean it; empty for a tail alone. `tensors`: see the module.
    `record` says how it was learnt. `also`: further subjects learnt along with it, name to phrase.
    """

    name: str
    identifier: str
    class_noun: str
    kind: str
    base_model: str
    base_fingerprint: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    record: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    also: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        for name in (self.name, *self.also):
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"A concept's name is letters, digits, - and _, beginning with a letter, so "
                    f"that prompts can say {{rex}}. Got {name!r}."
                )

    @property
    def phrase(self) -> str:
        """What stands for the subject in a prompt: "sks cat"; "sks" where its own words say all
        (Textual Inversion), "cat" where a tail behind the prompt does (HiPer)."""
        if self.kind == "textual-inversion":
            return self.identifier
        return f"{self.identifier} {self.class_noun}".strip()

    @property
    def phrases(self) -> dict[str, str]:
        """The phrase of every subject in it by name, its own first."""
        return {self.name: self.phrase, **self.also}

    @property
    def tail(self) -> Float[Tensor, "n width"] | None:
        """The learnt embeddings that go behind a prompt, unscaled; None without."""
        return self.tensors.get(TAIL)

    @property
    def acts_by_words(self) -> bool:
        """Whether it leaves every weight but the rows of its own words as it is."""
        return all(name == TAIL or name.endswith((".rows", ".ids")) for name in self.tensors)

    @property
    def tail_scale(self) -> float:
        """What the tail is multiplied by when used: 0.8 unless learnt with another."""
        return float(self.record.get("tail_scale", TAIL_SCALE))

    def save(self, folder: Path | str) -> Path:
        """Write the concept into `folder`, replacing any concept there, and return the folder.

        Raises OutputError where the folder cannot be written; what was there before stays whole.
        """
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return write(Path(folder), fields, fields.pop("tensors"))

    @classmethod
    def load(cls, folder: Path | str) -> Concept:
        """Read a concept from `folder`.

        Raises ConceptError, naming the file, where one is missing, damaged or not ours.
        """
        fields, tensors = read(Path(folder))
        return cls(**fields, tensors=tensors)


def spelled(prompt: str, *concepts: Concept) -> str:
    """`prompt` with every "{rex}" replaced by the phrase of the concept named rex.

    Raises PromptError for a name that none of the concepts has, and for a brace without partner.
    """
    phrases = {name: said for concept in concepts for name, said in concept.phrases.items()}
    known = ", ".join(f"{{{name}}}" for name in phrases) or "none (no concept was given)"
    if set("{}") & set(_PLACEHOLDER.sub("", prompt)):
        raise PromptError(
            f'The prompt "{prompt}" has a brace without its partner. A concept is named with a '
            f"pair of them, as in {{rex}}; known are: {known}."
        )

    def phrase(match: re.Match[str]) -> str:
        if match[1] in phrases:
            return phrases[match[1]]
        raise PromptError(f"The prompt names the concept {match[0]}, but known are: {known}.")

    return _PLACEHOLDER.sub(phrase, prompt)


def with_articles(prompt: str) -> str:
    """The prompt with "a" before each "{rex}" that stands where a noun would have its article.

    "a photo of {rex}" is what people write, "a photo of a sks cat" what concepts are learnt by.
    A name behind any other word ("the {rex}", "a red {rex}") stays as it is.
    """
    return _BARE.sub(lambda match: f"{match[1]}a ", prompt)


def names_in(prompt: str) -> set[str]:
    """The names of the concepts that a prompt says: "{rex} and a cat" -> {"rex"}."""
    return {match[1] for match in _PLACEHOLDER.finditer(prompt)}
