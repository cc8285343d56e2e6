"""A CLIP tokenizer's folder: its files bounded and checked, then read by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from understudy.errors import ModelError
from understudy.files.reading import MAX_JSON, check_regular, read_bytes, read_json
from understudy.files.spec import shown
from understudy.models.quiet import explained

WORDS = 1_000_000
FILES = ("vocab.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
         "added_tokens.json")  # fmt: skip
# Keys that name code or files elsewhere.
REFUSED = ("auto_map", "custom_pipelines")
# Of a token in tokenizer_config.json and special_tokens_map.json. The library prints any other key
# to the terminal as it is, in front of what --json prints, too.
TOKEN = {"content", "single_word", "lstrip", "rstrip", "normalized", "special", "id", "__type"}
DECODER = "added_tokens_decoder"


def load_tokenizer(folder: Path) -> Any:
    """The CLIPTokenizer of a folder.

    Raises ModelError, naming the file, where it is missing, damaged, or of another kind.
    """
    from transformers import CLIPTokenizer

    check_tokenizer(folder)
    with explained(folder):
        found: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    ids = (found.bos_token_id, found.eos_token_id, found.pad_token_id)
    if not all(type(one) is int and 0 <= one < len(found) for one in ids):
        raise ModelError(f"{folder} names no words for start, end and padding of a prompt.")
    if type(found.model_max_length) is not int or found.model_max_length < 3:
        if not isinstance(found.model_max_length, float) or found.model_max_length < 3:
            raise ModelError(f"{folder} says model_max_length = {found.model_max_length!r:.40}.")
    return found


def check_tokenizer(folder: Path) -> None:
    """Raise ModelError unless the folder holds the files of a byte-pair tokenizer, each whole."""
    told = {name: _object(folder / name) for name in FILES if (folder / name).exists()}
    merges = folder / "merges.txt"
    if "vocab.json" in told and merges.exists():
        _check_words(folder / "vocab.json", told["vocab.json"])
        lines = read_bytes(merges, error=ModelError)
        if b"\0" in lines or not lines.strip():
            raise ModelError(f"{merges} is empty or damaged. Copy or download it again.")
    elif "tokenizer.json" in told:
        model = told["tokenizer.json"].get("model")
        words = cast("dict[str, Any]", model).get("vocab") if isinstance(model, dict) else None
        _check_words(folder / "tokenizer.json", words)
    else:
        raise ModelError(
            f"{folder} has neither vocab.json with merges.txt nor tokenizer.json. Copy or "
            "download it again."
        )
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        check_tokens(folder / name, told.get(name, {}))
    for name in REFUSED:
        if told.get("tokenizer_config.json", {}).get(name):
            raise ModelError(
                f"{folder / 'tokenizer_config.json'} has {name!r}, which is not read because it "
                "brings code. Use a plain copy of the model."
            )


def check_tokens(file: Path, told: dict[str, Any]) -> None:
    """Raise ModelError for a token with a key that tokens do not have."""
    left: list[Any] = list(told.values())
    decoder = told.get(DECODER)
    tokens = list(cast("dict[str, Any]", decoder).values()) if isinstance(decoder, dict) else []
    while left:
        value: Any = left.pop()
        if isinstance(value, dict):
            tokens += [value] if "content" in value else []
            left += cast("dict[str, Any]", value).values()
        elif isinstance(value, list):
            left += cast("list[Any]", value)
    for token in tokens:
        if isinstance(token, dict) and (odd := set(cast("dict[str, Any]", token)) - TOKEN):
            raise ModelError(
                f"{file} has a token with the key {shown(min(odd))}. Copy or download it again."
            )


def _object(file: Path) -> dict[str, Any]:
    check_regular(file, most=MAX_JSON, error=ModelError)
    found = read_json(file, error=ModelError)
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds no JSON object. Copy or download it again.")
    return cast("dict[str, Any]", found)


def _check_words(file: Path, words: Any) -> None:
    """A table of words with ids from 0 on, each once."""
    ids = list(cast("dict[str, Any]", words).values()) if isinstance(words, dict) else []
    if not ids or len(ids) > WORDS or not all(type(one) is int for one in ids):
        raise ModelError(f"{file} holds no table of words with their numbers.")
    if min(ids) < 0 or max(ids) >= WORDS or len(set(ids)) != len(ids):
        raise ModelError(f"{file} numbers its words twice or out of bounds.")
