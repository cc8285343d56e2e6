"""A flow model's folder before it is loaded: of a known family, complete, every part plain."""

from __future__ import annotations

from pathlib import Path

from understudy.errors import ModelError
from understudy.models.folder import read_json
from understudy.models.transformer.families import FlowFamily, family_named, tokenizer_of


def check_flow_folder(folder: Path) -> FlowFamily:
    """The family of a folder. Raises ModelError where it is none, or lacks a part."""
    kind = str(read_json(folder / "model_index.json").get("_class_name", ""))
    family = family_named(kind)
    if family is None:
        raise ModelError(f"{folder} holds a {kind[:60]}, which is no flow transformer known here.")
    wanted = ("transformer", "vae", "scheduler", *encoders_in(folder, family))
    wanted += tuple(map(tokenizer_of, encoders_in(folder, family)))
    missing = [part for part in dict.fromkeys(wanted) if not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            f"{folder} lacks {', '.join(f'{part}/' for part in missing)}. A {family.name} folder "
            f"needs {', '.join(f'{part}/' for part in wanted)}. Copy or download it again."
        )
    return family


def encoders_in(folder: Path, family: FlowFamily) -> tuple[str, ...]:
    """The text encoders that a folder has or must have: an optional one is null in the index."""
    index = read_json(folder / "model_index.json")

    def absent(encoder: str) -> bool:
        said = index.get(encoder)
        return encoder in family.optional and (said is None or said == [None, None])

    return tuple(encoder for encoder in family.encoders if not absent(encoder))
