"""The tokenizers of flow models: their files bounded and checked, then read by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from understudy.errors import ModelError
from understudy.files.reading import check_regular, read_json
from understudy.models import tokenizer_files
from understudy.models.quiet import explained

MOST = 64 * 2**20  # bytes of a file; Mistral's tokenizer.json has 17 MB
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
         "added_tokens.json", "vocab.json")  # fmt: skip


def load_tokenizer(folder: Path, kind: str) -> Any:
    """The tokenizer of a folder, of one of transformers' classes.

    Raises ModelError, naming the file, where it is missing, damaged, or brings code.
    """
    if kind == "CLIPTokenizer":
        return tokenizer_files.load_tokenizer(folder)
    import transformers

    _check(folder)
    with explained(folder):
        found: Any = getattr(transformers, kind).from_pretrained(folder, local_files_only=True)
    ids = (found.eos_token_id, found.pad_token_id)
    if not all(type(one) is int and 0 <= one < len(found) for one in ids):
        raise ModelError(f"{folder} names no tokens for the end and the padding of a prompt.")
    most = found.model_max_length
    if type(most) not in (int, float) or most < 3:
        raise ModelError(f"{folder} says model_max_length = {most!r:.40}. Expected 3 or more.")
    return found


def _check(folder: Path) -> None:
    whole = (folder / "tokenizer.json").is_file()
    if not whole and not all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        raise ModelError(
            f"{folder} has neither tokenizer.json nor vocab.json with merges.txt. Copy or "
            "download it again."
        )
    for name in FILES:
        if (folder / name).exists():
            check_regular(folder / name, most=MOST, error=ModelError)
            told = read_json(folder / name, most=MOST, error=ModelError)
            if not isinstance(told, dict):
                raise ModelError(f"{folder / name} holds no JSON object. Download it again.")
            if name in ("tokenizer_config.json", "special_tokens_map.json"):
                tokenizer_files.check_tokens(folder / name, cast("dict[str, Any]", told))
            for key in tokenizer_files.REFUSED:
                if cast("dict[str, Any]", told).get(key):
                    raise ModelError(
                        f"{folder / name} has {key!r}, which is not read because it brings code. "
                        "Use a plain copy of the model."
                    )
