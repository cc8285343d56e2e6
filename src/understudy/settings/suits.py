"""What suits a model: values in understudy.json in the model's own folder.

::

    {"format": 1, "shows": "toys",
     "settings": {"learn": {"steps": 100}, "learn lora": {"steps": 250}}}

A key of the settings is a verb, or a verb and one of its methods. shows: "toys" where the model
draws the toy world, so that the recogniser can score its pictures; else it is left out. The
file lies beside the weights and is copied with them, so a model behaves alike by name and by path.
A model without the file (a hub id, a checkpoint file) takes the defaults, and what suits its family
(`families.py`); what the file says counts before that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from understudy.errors import ModelError
from understudy.files.builtin import builtin_folder
from understudy.files.reading import read_json
from understudy.settings.families import family_suits
from understudy.settings.resolve import Value, Values

FILE, FORMAT = "understudy.json", 1
MAX_BYTES = 100_000


def suits(model: str) -> Mapping[str, Values]:
    """The values that suit the model of this name or folder; empty where it says nothing.

    Raises ModelError, naming the file, for one that is not as described above. Whether a value is
    within its bounds is checked where the settings are made.
    """
    file, body = _body(model)
    general = family_suits(model)
    if not body:
        return general
    found: Any = body.get("settings")
    if not isinstance(found, dict) or body.get("format") != FORMAT:
        raise ModelError(f"{file} must hold format {FORMAT} and settings. Remove or correct it.")
    for verb, values in cast(dict[str, Any], found).items():
        plain = isinstance(values, dict) and all(
            isinstance(value, Value) for value in cast(dict[str, Any], values).values()
        )
        if not plain:
            raise ModelError(f"{file}: {verb} must hold names and values. Remove or correct it.")
    own = cast(dict[str, Values], found)
    return {verb: {**general.get(verb, {}), **own.get(verb, {})} for verb in (*general, *own)}


def shows_toys(model: str) -> bool:
    """Whether the model of this name or folder draws the toy world."""
    return _body(model)[1].get("shows") == "toys"


def _body(model: str) -> tuple[Path, dict[str, Any]]:
    """The file of a model, and what it holds; empty where there is none."""
    folder = builtin_folder(model)
    if folder is None and model:
        folder = Path(model).expanduser()
    file = (folder or Path()) / FILE
    if folder is None or not os.path.lexists(file):
        return file, {}
    body = read_json(file, most=MAX_BYTES, error=ModelError)
    if not isinstance(body, dict) or not body:
        raise ModelError(f"{file} must hold format {FORMAT} and settings. Remove or correct it.")
    return file, cast(dict[str, Any], body)
