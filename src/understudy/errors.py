"""Our errors. Every message says what was wanted, what came, and what to do about it.


    UnderstudyError                 anything this package refuses or fails to do      exit 1
     ├ InputError (ValueError)      something given is wrong: an option, mask, point  exit 2
     │  ├ PictureError              a file that is no usable picture, or is missing   exit 2
     │  └ PromptError               a word the prompt lacks, a prompt that is too long exit 2
     ├ ModelError                   missing or mismatched parts                       exit 1
     │  └ NoSuchModel (InputError)  a name, folder or file that holds no model        exit 2
     ├ ConceptError                 concept made for another model, missing files     exit 1
     │  └ NoSuchConcept (InputError) a name or folder that is not there               exit 2
     ├ OutputError                  read-only, disk full, exists already              exit 1
     └ ExtraMissing                 an optional dependency is not installed           exit 1

The exit code is what the command line ends with: 2 means "change what you gave me", 1 means
"what you asked for is fine, but it could not be done". Tracebacks are for bugs alone.

A message often quotes a file or its name. It is made one printable line when the error is made,
so that no escape sequence of a file reaches a terminal, a log or a test report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_MESSAGE = 2_000  # characters
# C0 and C1 controls, DEL, line separators, direction overrides and lone surrogates.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with control characters written as \\uXXXX. Line feeds and tabs stay.

    Names and records come from files of others, and an escape sequence in one could rewrite what
    a terminal shows.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """The text on one printable line of at most MAX_MESSAGE characters."""
    line = printable(" ".join(re.split(r"[ \t\n\r]+", text)))
    return line if len(line) <= MAX_MESSAGE else line[:MAX_MESSAGE] + "..."


def sentence(text: object, most: int = 300) -> str:
    """A foreign message on one line that ends as a sentence does, to be followed by another.

    most: characters; a longer one is cut, with dots. An error without a message gives its type.
    """
    line = " ".join(str(text).split())
    if not line and isinstance(text, BaseException):
        line = type(text).__name__
    line = line if len(line) <= most else f"{line[:most].rstrip()}..."
    return line if not line or line[-1] in ".!?" else f"{line}."


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names in a message: "a, b and 3 more" where there are more than `most`."""
    all_ = list(names)
    if len(all_) <= most:
        return ", ".join(all_)
    return f"{', '.join(all_[:most])} and {len(all_) - most} more"


class UnderstudyError(Exception):
    """Base of every error this package raises on purpose. The message is one printable line."""

    exit_code: int = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class InputError(UnderstudyError, ValueError):
    """Something given is wrong: an option, a prompt, a mask, points."""

    exit_code = 2


class PictureError(InputError):
    """A file that is no usable picture, or a folder that holds none."""


class PromptError(InputError):
    """A word that the prompt lacks, or a prompt over the model's token limit."""


class ModelError(UnderstudyError):
    """Missing or mismatched parts of a model, a layer that takes no attention control."""


class NoSuchModel(ModelError, InputError):
    """A model that was named and is not there, or a file or folder that holds none."""


class ConceptError(UnderstudyError):
    """A concept made for another model, or one whose files are missing or damaged."""


class NoSuchConcept(ConceptError, InputError):
    """A concept that was named and is not there."""


class OutputError(UnderstudyError):
    """A result that cannot be written; nothing half-written is left behind."""


class ExtraMissing(UnderstudyError):
    """An optional dependency is wanted and not installed."""

    def __init__(self, extra: str, wanted_for: str) -> None:
        super().__init__(
            f"{wanted_for} needs an optional dependency that is not installed. "
            f"Install it with: pip install 'understudy[{extra}]'"
        )
        self.extra = extra
