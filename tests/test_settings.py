"""Every knob once: bounds hold, presets name real knobs, values survive JSON."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

from understudy.errors import InputError, ModelError
from understudy.files.builtin import builtin_folder
from understudy.jobs.request import Job
from understudy.settings import (
    DemoSettings,
    EditSettings,
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    RunSettings,
    SwapSettings,
    suits,
)
from understudy.settings.drag import DragSettings
from understudy.settings.knobs import Settings, check
from understudy.settings.project import ProjectSettings
from understudy.settings.swap import PRESETS

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


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fill_what_is_not_given(preset: str) -> None:
    filled = SwapSettings.filled({"preset": preset, "guidance": 3.0}).to_dict()
    wanted = {**SwapSettings().to_dict(), **PRESETS[preset]}
    assert filled == {**wanted, "preset": preset, "guidance": 3.0}
    assert SwapSettings.filled({"preset": preset, "cross_map_steps": 3}).cross_map_steps == 3


def test_presets_keep_their_proportions_in_shorter_runs() -> None:
    short = SwapSettings.filled({"steps": 20, "preset": "paper"})
    assert (short.self_output_steps, short.self_map_steps, short.cross_map_steps) == (4, 10, 8)


def test_the_default_swap_is_best() -> None:
    assert SwapSettings.filled({}) == SwapSettings.filled({"preset": "best"})
    assert PRESETS["best"] == {}


def test_the_papers_swap_has_the_published_numbers() -> None:
    wanted = {"steps": 50, "guidance": 7.5, "self_output_steps": 10, "self_map_steps": 25}
    paper = SwapSettings.filled({"preset": "paper"})
    assert wanted.items() <= paper.to_dict().items()
    assert (paper.cross_map_steps, paper.budget, paper.eta, paper.blend) == (20, 0, 0.0, False)


@pytest.mark.parametrize("group", ALL)
def test_the_bare_value_is_what_nothing_given_resolves_to(group: type[Settings]) -> None:
    assert group() == group.filled({})


@pytest.mark.parametrize("model", ["", "toybox", "toybox-gan"])
@pytest.mark.parametrize("group", [g for g in ALL if g.filling.presets])
def test_naming_best_changes_nothing_for_any_method(group: type[Settings], model: str) -> None:
    for method, presets in group.filling.presets.items():
        given = {"method": method} if method else {}
        unnamed = group.filled(given, model)
        assert group.filled({**given, "preset": "best"}, model) == unnamed
        assert presets["best"] == {}


# Verb, what is given, model, what comes of it. 50 steps unless given.
PUBLISHED_GUIDANCE, TOY_GUIDANCE = {"guidance": 7.5}, {"guidance": 3.0}
UGLY = "ugly, blurry, black, low res, unrealistic"
RESOLVED = [
    (LearnSettings, {}, "", {"steps": 400, "learning_rate": 5e-6, "prior_samples": 200}),
    (LearnSettings, {}, "toybox", {"steps": 200, "learning_rate": 5e-4, "average": 0.95}),
    (LearnSettings, {"steps": 7}, "toybox", {"steps": 7, "learning_rate": 5e-4}),
    (LearnSettings, {"method": "lora"}, "", {"steps": 500, "learning_rate": 1e-4, "rank": 8}),
    (LearnSettings, {"method": "lora"}, "toybox", {"steps": 250, "rank": 16, "average": 0.0}),
    (
        LearnSettings,
        {"preset": "paper"},
        "toybox",
        {"steps": 1000, "learning_rate": 5e-6, "batch_size": 1, "flip": False},
    ),
    (LearnSettings, {"preset": "paper", "method": "lora"}, "toybox", {"steps": 500, "rank": 4}),
    (
        LearnSettings,
        {"preset": "photoswap", "method": "textual-inversion"},
        "toybox",
        {"steps": 1000, "learning_rate": 5e-4, "vectors": 1, "batch_size": 4},
    ),
    (EditSettings, {}, "toybox", {"cross_map_steps": 40, "self_map_side": 32, **TOY_GUIDANCE}),
    (EditSettings, {"preset": "paper"}, "", {"self_map_steps": 20, "self_map_side": 16}),
    (EditSettings, {"method": "pnp"}, "", {"inversion_steps": 999, "negative": UGLY}),
    (EditSettings, {"method": "pnp"}, "toybox", {"inversion_steps": 0, "negative": ""}),
    (
        EditSettings,
        {"method": "pnp", "preset": "official"},
        "toybox",
        {"inversion_steps": 999, "negative": UGLY, **TOY_GUIDANCE},
    ),
    (
        EditSettings,
        {"method": "pnp", "preset": "paper"},
        "toybox",
        {"inversion_steps": 999, "negative": ""},
    ),
    (EditSettings, {"method": "pnp", "steps": 10}, "", {"feature_steps": 8, "self_map_steps": 5}),
    (EditSettings, {"method": "hiper", "preset": "paper"}, "toybox", {"tail_scale": 1.0}),
    (SwapSettings, {}, "toybox", {"guidance": 2.5, "paste": True, "blend": True, "eta": 1.0}),
    (SwapSettings, {"preset": "paper", "steps": 10}, "", {"self_map_steps": 5, "blend": False}),
    (SwapSettings, {"preset": "paper"}, "toybox", {"eta": 0.0, "budget": 0, "guidance": 2.5}),
    (SwapSettings, {"cross_map_steps": 0.5}, "", {"cross_map_steps": 0.5, "budget": 0}),
    (SwapSettings, {"preset": "official", "cross_map_steps": 3}, "", {"cross_map_steps": 3}),
    (SwapSettings, {"blend": False}, "", {"paste": False}),
    (SwapSettings, {"blend": False, "paste": True}, "", {"paste": True}),
    (InvertSettings, {}, "toybox", {"learning_rate": 0.03, **TOY_GUIDANCE}),
    (InvertSettings, {}, "", {"learning_rate": 0.01, **PUBLISHED_GUIDANCE}),
    (GenerateSettings, {"eta": 0.5}, "toybox", {"guidance": 5.0, "eta": 0.5, "temperature": 0.9}),
    (DragSettings, {}, "toybox-gan", {"learning_rate": 2e-2, "feature_resolution": 32}),
    (DragSettings, {"preset": "official"}, "toybox-gan", {"learning_rate": 1e-3}),
    (ProjectSettings, {"preset": "official"}, "toybox-gan", {"stop_at": 0.06, "tune_rate": 3e-3}),
]


@pytest.mark.parametrize(("group", "given", "model", "wanted"), RESOLVED)
def test_each_layer_counts_over_those_below(
    group: type[Settings], given: dict, model: str, wanted: dict
) -> None:
    found = group.filled(given, model).to_dict()
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("name", ["toybox", "toybox-gan"])
def test_what_suits_a_model_goes_with_its_folder(name: str, tmp_path: Path) -> None:
    ours = builtin_folder(name)
    assert ours is not None
    copy = tmp_path / "another name"
    copy.mkdir()
    shutil.copy(ours / suits.FILE, copy)
    for group in ALL:
        assert group.filled({}, str(copy)) == group.filled({}, name)
        assert group.filled({}, str(tmp_path)) == group()
    for verb in suits.suits(name):
        (group,) = (g for g in ALL if g.filling.verb == verb.split(" ")[0])
        assert set(suits.suits(name)[verb]) <= set(group().to_dict())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2, "settings": {}}', '{"format": 1, "settings": {"swap": 3}}']
    + ['{"format": 1, "settings": {"swap": {"steps": [1]}}}'],
)
def test_a_damaged_file_of_a_model_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / suits.FILE).write_text(text)
    with pytest.raises(ModelError, match=suits.FILE):
        SwapSettings.filled({}, str(tmp_path))


def test_a_models_values_are_bounded_like_any_others(tmp_path: Path) -> None:
    (tmp_path / suits.FILE).write_text('{"format": 1, "settings": {"swap": {"steps": 100000}}}')
    with pytest.raises(InputError, match="steps must be at most"):
        SwapSettings.filled({}, str(tmp_path))


FILES = sorted(Path(suits.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_free_of_heavy_imports(file: Path) -> None:
    tree = ast.parse(file.read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    ours = {name for name in names if name.startswith("understudy")}
    assert names - ours <= {"__future__", "collections.abc", "dataclasses", "math", "typing"} | {
        "os",
        "pathlib",
        "re",
    }
    assert all(
        name.startswith(("understudy.settings", "understudy.files"))
        for name in ours - {"understudy.errors"}
    )


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


def test_former_names_of_settings_and_inputs_are_read() -> None:
    assert SwapSettings.from_dict({"keep": 0.25}).features == 0.25
    assert SwapSettings.filled({"keep": 0.0}).features == 0.0
    old = {"format": 1, "verb": "edit", "seed": None, "inputs": {"keep": ["tree"]}}
    job = Job.from_dict({**old, "settings": {"edit": {"keep_threshold": 0.4}}})
    assert job.inputs == {"preserve": ["tree"]}
    assert job.settings == {"edit": {"preserve_threshold": 0.4}}
