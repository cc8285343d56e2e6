"""Every knob once: bounds hold, presets name real knobs, values survive JSON."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from pathlib import Path

import pytest

from understudy.errors import InputError
from understudy.settings import (
    DemoSettings,
    EditSettings,
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    RunSettings,
    SwapSettings,
    verbs,
)
from understudy.settings.drag import DragSettings
from understudy.settings.knobs import Settings, check
from understudy.settings.presets import SWAP_PRESETS
from understudy.settings.project import ProjectSettings

ALL = [
    DragSettings,
    EditSettings,
    GenerateSettings,
    InvertSettings,
    SwapSettings,
    LearnSettings,
    RunSettings,
    DemoSettings,
    ProjectSettings,
]
KNOBS = [(group, field) for group in ALL for field in dataclasses.fields(group)]


@pytest.mark.parametrize("group", ALL)
def test_defaults_are_valid_frozen_and_survive_json(group: type[Settings]) -> None:
    values = json.loads(json.dumps(group().to_dict()))
    assert group.from_dict(values) == group()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(group(), next(iter(values)), 1)


@pytest.mark.parametrize(("group", "field"), KNOBS, ids=lambda x: getattr(x, "name", ""))
def test_every_knob_has_help_and_its_bounds_hold(group: type[Settings], field) -> None:
    limits = field.metadata
    assert limits["help"] and not limits["help"].endswith(".")
    name = "--" + field.name.replace("_", "-")
    bad = [object(), None]
    if limits["at_least"] is not None:
        bad.append(type(field.default)(limits["at_least"] - 1))
    if limits["at_most"] is not None:
        bad.append(type(field.default)(limits["at_most"] + 1))
    if limits["choices"]:
        bad.append("nothing of the kind")
    if isinstance(field.default, float):
        bad += [math.nan, math.inf, True]
    if isinstance(field.default, int) and not isinstance(field.default, bool):
        bad += [1.5, True, "3"]
    for value in bad:
        with pytest.raises(InputError, match=name):
            check(field, value)


def test_messages_say_wanted_and_got() -> None:
    with pytest.raises(InputError, match=r"--steps must be at least 1\. Got 0\."):
        SwapSettings(steps=0)
    with pytest.raises(InputError, match=r"one of null-text.*Got 'magic'"):
        InvertSettings(method="magic")
    with pytest.raises(InputError, match=r"has no 'stepz'. It has: steps"):
        GenerateSettings.from_dict({"stepz": 3})


@pytest.mark.parametrize("preset", SWAP_PRESETS)
def test_presets_fill_what_is_not_given(preset: str) -> None:
    filled = SwapSettings.filled({"preset": preset, "guidance": 3.0}).to_dict()
    wanted = {**SwapSettings().to_dict(), **SWAP_PRESETS[preset]}
    assert filled == {**wanted, "preset": preset, "guidance": 3.0}
    assert SwapSettings.filled({"preset": preset, "cross_map_steps": 3}).cross_map_steps == 3


def test_presets_keep_their_proportions_in_shorter_runs() -> None:
    short = SwapSettings.filled({"steps": 20, "preset": "paper"})
    assert (short.self_output_steps, short.self_map_steps, short.cross_map_steps) == (4, 10, 8)


def test_the_default_swap_is_best() -> None:
    assert SwapSettings.filled({}) == SwapSettings.filled({"preset": "best"})
    assert SWAP_PRESETS["best"].items() <= SwapSettings.filled({}).to_dict().items()


def test_the_papers_swap_has_the_published_numbers() -> None:
    wanted = {"steps": 50, "guidance": 7.5, "self_output_steps": 10, "self_map_steps": 25}
    paper = SwapSettings.filled({"preset": "paper"})
    assert wanted.items() <= paper.to_dict().items()
    assert (paper.cross_map_steps, paper.budget, paper.eta, paper.blend) == (20, 0, 0.0, False)


def test_free_of_heavy_imports() -> None:
    tree = ast.parse(Path(verbs.__file__).read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert names <= {"__future__", "collections.abc", "dataclasses", "math", "typing"} | {
        "understudy.errors",
        "understudy.settings.knobs",
        "understudy.settings.presets",
    }


def test_official_projection_ends_at_a_distance() -> None:
    assert ProjectSettings.filled({"preset": "official"}).stop_at == 0.06
    assert ProjectSettings.filled({"preset": "official", "stop_at": 0.1}).stop_at == 0.1
    assert ProjectSettings.filled({}) == ProjectSettings()


@pytest.mark.parametrize(
    "steps, phi, self_maps, cross_maps",
    [(50, 41, 40, 30), (10, 9, 8, 6), (25, 21, 20, 15), (20, 17, 16, 12), (1, 1, 0, 1)],
)
def test_official_rounds_as_the_authors_code_does(
    steps: int, phi: int, self_maps: int, cross_maps: int
) -> None:
    filled = SwapSettings.filled({"preset": "official", "steps": steps})
    assert filled.self_output_steps == phi
    assert (filled.self_map_steps, filled.cross_map_steps) == (self_maps, cross_maps)
