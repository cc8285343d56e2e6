"""Whether a folder holds a whole diffusion model, of whatever family, and what it is."""

from __future__ import annotations

from pathlib import Path

from understudy.models.parts import check_model
from understudy.models.transformer.families import family_in
from understudy.models.transformer.load import check_flow_model


def check_any(folder: Path) -> dict[str, str]:
    """Facts of a folder, everything that loading checks having passed; weights are not read.

    Raises ModelError for a folder that could not be loaded.
    """
    if family_in(folder) is None:
        check_model(folder)
        return {"kind": "stable diffusion"}
    return {"kind": check_flow_model(folder).name}
