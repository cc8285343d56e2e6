"""The recorded networks and cases of every golden folder that has a drag/ inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from golden_model import all_folders
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.generator import StyleGAN2


@dataclass(frozen=True)
class DragCase:
    """One recorded case: a folder (networks) or a .json with its .npz."""

    root: Path  # the drag folder
    path: Path

    @property
    def settings(self) -> Mapping[str, Any]:
        file = self.path / "config.json" if self.path.is_dir() else self.path
        return json.loads(file.read_text())

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of these settings that was recorded."""
        told = self.settings
        return next((told[name] for name in names if told.get(name) is not None), default)

    def arrays(self) -> dict[str, Tensor]:
        """The recorded arrays."""
        if self.path.is_dir():
            return load_file(self.path / "golden.safetensors")
        with np.load(self.path.with_suffix(".npz"), allow_pickle=False) as found:
            return {name: torch.from_numpy(found[name]) for name in found.files}

    def network(self, name: str = "") -> StyleGAN2:
        """The network of this folder, or another one of the golden folder by name."""
        return network(self.root / name if name else self.path)


@cache
def network(folder: Path) -> StyleGAN2:
    """A recorded network."""
    config = StyleGAN2Config.from_arguments(
        arguments_of(json.loads((folder / "config.json").read_text()))
    )
    return StyleGAN2.from_tensors(
        config, load_file(folder / "weights.safetensors"), name=folder.name, fingerprint="golden"
    )


def arguments_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded arguments of a network, in whichever layout they are."""
    layouts = ("layout_nested", "init_kwargs", "layout_flat")
    return dict(next(told[layout] for layout in layouts if told.get(layout)))


def golden_drag_folders() -> list[Path]:
    """Every drag folder there is."""
    return [folder / "drag" for folder in all_folders() if (folder / "drag").is_dir()]


def drag_cases(group: str, pattern: str = "*", where: Any = lambda case: True) -> Any:
    """Parametrise a test over `case`; one skipped test when no golden data is there.

    pattern: of file names, which tell the kind of a file; where(case) filters by what it records.
    """
    cases: list[DragCase] = []
    for root in golden_drag_folders():
        for path in sorted((root / group).glob(pattern)):
            if path.is_dir() or path.suffix == ".json":
                cases.append(DragCase(root, path))
    cases = [case for case in cases if where(case)]
    if cases:
        ids = [f"{case.root.parent.name}-{case.path.stem}" for case in cases]
        return pytest.mark.parametrize("case", cases, ids=ids)
    reason = f"no golden data: set UNDERSTUDY_GOLDEN to a folder with drag/ ({group})"
    return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason))])
