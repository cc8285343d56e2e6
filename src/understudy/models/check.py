"""Checks that a folder holds a complete diffusion model of any family, and says which."""

from __future__ import annotations

from pathlib import Path

from understudy.models.folder import family_in
from understudy.models.parts import check_model
from understudy.models.transformer.load import check_flow_model
from understudy.settings.bases import licence_of, trained_instead


def check_any(folder: Path, name: str = "") -> dict[str, str]:
    """Check a folder as loading does, without reading the weights, and return facts about it.

    name: what the user calls it. "licence" is that of a published model, "" if it is not known;
    "train_on" is the base to train instead of a step-distilled model, "" for others.
    Raises ModelError for a folder that could not be loaded.
    """
    if not family_in(folder).flows:
        check_model(folder)
        return {"kind": "stable diffusion"}
    told = {"kind": check_flow_model(folder).name}
    return told | {"licence": licence_of(name or str(folder)),
                   "train_on": trained_instead(name or str(folder))}  # fmt: skip
