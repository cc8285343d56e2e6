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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxtyping import Float
from torch import Tensor

from understudy.concept.folder import read, write
from understudy.diffusion.prompt_weights import factor_in
from understudy.errors import InputError, PromptError

TAIL, TAIL_SCALE = "tail", 0.8
OWN_WORDS = ("textual-inversion", "pivotal")  # kinds whose words alone stand for the subject
LOW_RANK, ROWS = ("lora_A", "lora_B", "alpha"), ("rows", "ids")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PLACEHOLDER = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
STRONGEST = 2.0  # largest strength of a concept; 1 is as it was learnt
# Where a noun would stand with its article: at the beginning, and behind these.
_BARE = re.compile(
    r"(^\s*|[,;:]\s+|\b(?:of|and|or|with|to|by|beside|behind|near|under|like|as)\s+)(?=\{)", re.I
)


@dataclass(frozen=True, eq=False)
class Concept:
    """A learnt subject: what it is called in prompts, and what it changes in its base model.

    kind is the method it was learnt by: "dreambooth", "lora", "textual-inversion",
    "pivotal", "hiper".
    identifier: the word, or words, that mean it; empty for a tail alone. `tensors`: see the module.
    `record` says how it was learnt. `also`: further subjects learnt along with it, name to phrase.
    strength: share of its change that is applied, 0 to 2; of a use, so it is not saved.
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
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= STRONGEST:
            raise InputError(
                f"The strength of a concept must be from 0 to {STRONGEST:g}. Got {self.strength} "
                f"for {self.name}."
            )
        for name in (self.name, *self.also):
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"A concept's name must consist of letters, digits, - and _, and start with "
                    f"a letter, so that prompts can contain {{rex}}. Got {name!r}."
                )

    @property
    def phrase(self) -> str:
        """What stands for the subject in a prompt: "sks cat"; "sks" where its own words say all
        (Textual Inversion, pivotal), "cat" where a tail behind the prompt does (HiPer)."""
        if self.kind in OWN_WORDS:
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
    """`prompt` with every "{rex}" or "{rex:0.7}" replaced by the phrase of the concept named rex.

    Raises PromptError for a name that none of the concepts has, and for a brace without partner.
    """
    phrases = {name: said for concept in concepts for name, said in concept.phrases.items()}
    known = ", ".join(f"{{{name}}}" for name in phrases) or "none (no concept was given)"
    if set("{}") & set(_PLACEHOLDER.sub("", prompt)):
        raise PromptError(
            f'The prompt "{prompt}" has an unmatched brace. Write a concept in braces, like '
            f"{{rex}}. Known concepts: {known}."
        )

    def phrase(match: re.Match[str]) -> str:
        if match[1] in phrases:
            return phrases[match[1]]
        named = f"{{{match[1]}}}"
        raise PromptError(
            f"The prompt names the concept {named}, which was not given. Known concepts: {known}. "
            f"Give it with --concept {match[1]}, or correct the name."
        )

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


def strengths_in(prompt: str) -> dict[str, float]:
    """The strengths at which a prompt names concepts: "{rex:0.7} and {tom}" -> rex 0.7, tom 1.

    Raises PromptError for a strength that is no number from 0 to 2, and for two of one name.
    """
    found: dict[str, float] = {}
    for match in _PLACEHOLDER.finditer(prompt):
        strength = 1.0 if match[2] is None else _strength(match[2], match[0])
        if found.setdefault(match[1], strength) != strength:
            raise PromptError(
                f"The prompt {prompt!r} gives {match[1]} two strengths. A picture has one strength "
                "per concept: write the same number each time."
            )
    return found


def with_strengths(concepts: Sequence[Concept], prompts: Sequence[str]) -> tuple[Concept, ...]:
    """The concepts at the strengths that prompts ask for; 1 where none names a concept.

    A strength scales the change of the model, which is one for all prompts. Raises PromptError
    where prompts, or the several names of one concept, ask for different ones.
    """
    asked = [strengths_in(prompt) for prompt in prompts]
    found: list[Concept] = []
    for concept in concepts:
        wanted = {one[name] for one in asked for name in one.keys() & concept.phrases.keys()} or {
            1.0
        }
        if len(wanted) > 1:
            raise PromptError(
                f"The prompts ask for {concept.name} with strengths "
                f"{', '.join(f'{one:g}' for one in sorted(wanted))}. A run has one strength per "
                "concept: run the command once for each."
            )
        found.append(replace(concept, strength=wanted.pop()))
    return tuple(found)


def _strength(written: str, where: str) -> float:
    value = factor_in(written, STRONGEST)
    if value is None:
        raise PromptError(
            f"The strength of a concept is a number from 0 to {STRONGEST:g}, like {{rex:0.7}}. "
            f"Got {where}."
        )
    return value
