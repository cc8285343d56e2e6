"""Captions of photos as training prompts, and what they and the class noun say of writing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from understudy.errors import PromptError

# Things that often have writing on them: mirrored letters would be learnt.
WRITTEN = frozenset(
    "banknote banner bill book bottle box can cap card carton clock coin flag jar jersey keyboard "
    "label letter license logo magazine map menu mug newspaper notebook package packet page phone "
    "poster screen shirt sign stamp sticker t-shirt tag ticket tin tshirt vinyl watch".split()
)
_SAID = re.compile(
    r"\b(text|letters?|lettering|logo|writing|written|says|saying|reads|inscription|words?|numbers?"
    r"|digits?|label(l?ed|s)?|brand(ed)?)\b",
    re.IGNORECASE,
)


def prompt_of(caption: str, subject: str, noun: str, name: str, template: str) -> str:
    """The training prompt of a photo with a caption.

    subject: how prompts say the subject, such as "sks dog". It takes the place of {subject} or
    {name} in the caption, else that of the first class noun. A caption without any of them follows
    the usual training prompt (`template`), after a comma. Raises PromptError for other braces.
    """
    # A character that no caption has stands for the place, so that braces left over are an error.
    for place in ("{subject}", f"{{{name}}}"):
        caption = caption.replace(place, "\0")
    if set(caption) & set("{}"):
        raise PromptError(
            f"A caption may say {{subject}} or {{{name}}} and no other braces. Got {caption!r}."
        )
    if "\0" in caption:
        return caption.replace("\0", subject)
    # Whole words only, and the first one: a caption may mention the class again in the background.
    found, count = re.subn(
        rf"(?<![\w-]){re.escape(noun)}(?![\w-])", lambda _: subject, caption, count=1, flags=re.I
    )
    return found if count else f"{template}, {caption}"


def has_writing(noun: str, captions: Iterable[str], wish: str) -> bool:
    """Whether the subject is taken to have writing on it. wish: auto, yes or no."""
    if wish != "auto":
        return wish == "yes"
    words = re.findall(r"[\w-]+", noun.lower())
    thing = any(word in WRITTEN or word.removesuffix("s") in WRITTEN for word in words)
    return thing or any(_SAID.search(caption) for caption in captions)
