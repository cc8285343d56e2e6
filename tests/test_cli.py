"""The command line in-process: every verb on a tiny model, its options, its exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import pictures
from lookers import clip_folder, dino_folder
from recognisers import untaught
from tiny import tiny_folder
from understudy import cli
from understudy.cli import show
from understudy.cli.app import app
from understudy.concept import Concept
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import read_recipe
from understudy.toybox import Scene

FROZEN = Path(__file__).parent.parent / "docs" / "cli.txt"


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def ran(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    """Run a command that must succeed with --json, and return what it printed."""
    assert run(*words, "--json") == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def model() -> list[str]:
    return ["--model", str(tiny_folder("toy"))]


def commands(group: Any) -> Iterator[list[str]]:
    """The words of every command and group of commands, each group before its own."""
    yield []
    for name, command in getattr(group, "commands", {}).items():
        yield from ([name, *words] for words in commands(command))


def helps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The --help of every command, as docs/cli.txt keeps it."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    pages: list[str] = []
    for words in commands(typer.main.get_command(app)):
        assert run(*words, "--help") == 0
        page = re.sub(r" +$", "", capsys.readouterr().out, flags=re.MULTILINE).strip()
        pages.append(f"$ {' '.join(['understudy', *words, '--help'])}\n\n{page}\n")
    return "\n\n".join(pages)


def test_help_is_as_documented(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = helps(monkeypatch, capsys)
    if os.environ.get("UNDERSTUDY_FREEZE"):
        FROZEN.write_text(found)
    hint = "the help changed: UNDERSTUDY_FREEZE=1 pytest tests/test_cli.py writes docs/cli.txt"
    assert found == FROZEN.read_text(), hint


def test_no_command_shows_the_help_on_many_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("models",)):
        assert run(*words) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("Usage: understudy") and "\n  -h, --help" in shown


def loaded(*words: str) -> set[str]:
    """The packages outside the standard library that `python WORDS` imports.

    What a command imports decides how soon it answers, and unlike seconds it is the same on
    every machine: PyTorch alone takes more than a second, NumPy a tenth.
    """
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = re.findall(r"^import time: +\d+ \| +\d+ \| *([\w.]+)$", ran.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in lines}


@pytest.mark.parametrize("words", ["--help", "swap --help", "evaluate swap --help", "--version"])
def test_help_imports_no_heavy_package(words: str) -> None:
    heavy = {"torch", "numpy", "PIL", "numba", "scipy", "diffusers", "transformers", "safetensors"}
    found = loaded("-m", "understudy.cli", *words.split())
    assert "typer" in found and not found & (heavy | {"huggingface_hub", "jaxtyping", "fastapi"})


def test_import_of_the_package_imports_nothing_else() -> None:
    found = loaded("-c", "import understudy") - loaded("-c", "pass")
    assert {name for name in found if name not in sys.stdlib_module_names} == {"understudy"}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"understudy \d+\.\d+\.\d+\n", said)
    words = [sys.executable, "-m", "understudy", "--version"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == said


def test_the_oldest_typer_allowed_has_what_the_errors_are_made_of() -> None:
    """`typer.TyperException` came with 0.28, and faults that name what came with 0.29."""
    declared = (FROZEN.parent.parent / "pyproject.toml").read_text()
    (found,) = re.findall(r'"typer>=(\d+)\.(\d+)"', declared)
    assert tuple(map(int, found)) >= (0, 29) and hasattr(typer, "TyperException")


def test_toybox_render(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ran(capsys, "toybox", "render", "--seed", 7, "--size", 64, "--out", "a/scene.png")
    assert read_photo("a/scene.png").size == (64, 64)
    recipe = read_recipe("a/scene.png")
    assert recipe.command == "toybox render" and recipe.seed == 7
    assert recipe.arguments["caption"] == shown["caption"]
    first = Path("a/scene.png").read_bytes()
    ran(capsys, "toybox", "render", "--seed", 7, "--size", 64, "--out", "b.png")
    assert Path("b.png").read_bytes() == first


def test_toybox_truth(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("toybox", "render", "--seed", 6, "--size", 64, "--out", "scene.png", "--truth")
    shown = ran(capsys, *words)
    record = json.loads(Path("scene.json").read_text())
    scene = Scene.from_json(json.dumps(record["scene"]))
    assert record["caption"] == shown["caption"]
    assert len(shown["truth"]) == 1 + len(scene.subjects) == 1 + len(record["keypoints"])
    mask = read_photo("scene.mask-0.png").pixels
    assert mask.shape == (64, 64, 3) and mask.min() == 0 and mask.max() > 200
    nose = record["keypoints"][0]["nose"]
    assert set(nose) == {"x", "y", "visible"}


def test_toybox_subject(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("toybox", "subject", "--seed", 3, "--photos", 3, "--size", 32, "--out", "rex")
    shown = ran(capsys, *words)
    assert [Path(name).name for name in shown["pictures"]] == ["01.png", "02.png", "03.png"]
    photos = [read_photo(name).pixels for name in shown["pictures"]]
    assert not np.array_equal(photos[0], photos[1])
    assert run(*words) == 2  # never over somebody's photos
    assert "already contains pictures" in capsys.readouterr().err


def test_a_stopped_toybox_subject_leaves_no_pictures(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the same command would be refused: its folder would hold pictures."""
    from understudy.jobs import results

    write, left = results.write_rendered, [2]

    def stopped(*words: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        write(*words)

    monkeypatch.setattr(results, "write_rendered", stopped)
    words = ("toybox", "subject", "--photos", 3, "--size", 32, "--out", "rex")
    assert run(*words) == 130 and not list(Path("rex").glob("*"))
    assert run(*words) == 0


def test_generate(here: Path, capsys: pytest.CaptureFixture[str], model: list[str]) -> None:
    words = ("generate", "a photo of a cat", *model, "--steps", 2)
    shown = ran(capsys, *words, "--count", 5, "--seed", 3, "--out", "cats")
    assert [Path(p).name for p in shown["pictures"]][::4] == ["seed-0003.png", "seed-0007.png"]
    recipe = read_recipe("cats/seed-0007.png")
    assert recipe.command == "generate" and recipe.seed == 7
    assert recipe.settings["steps"] == 2 and recipe.arguments["prompt"] == "a photo of a cat"
    assert len(recipe.model_fingerprint) == 64
    # One picture alone is the picture it was among others.
    ran(capsys, *words, "--seed", 7, "--out", "one.png")
    assert np.array_equal(read_photo("one.png").pixels, read_photo("cats/seed-0007.png").pixels)


@pytest.fixture(scope="module")
def learnt_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, and a concept named rex in concepts/, learnt in two steps."""
    folder, printed = tmp_path_factory.mktemp("learnt"), io.StringIO()
    for number, level in enumerate((60, 180)):
        pictures.save(folder / f"photos/{number}.png", np.full((70, 64, 3), level, np.uint8))
    words = ("--class", "cat", "--name", "rex", "--steps", 2, "--prior-samples", 2)
    words = (*words, "--prior-steps", 2, "--model", tiny_folder("toy"), "--json")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        assert run("learn", "photos", *words) == 0
    shown = json.loads(printed.getvalue())
    assert shown["concept"] == "concepts/rex" and shown["phrase"].endswith(" cat")
    return folder


@pytest.fixture
def learnt(here: Path, learnt_once: Path) -> Path:
    """The concept, in a copy of its folder, which is the working directory."""
    shutil.copytree(learnt_once, here, dirs_exist_ok=True)
    return here / "concepts" / "rex"


def test_learn_by_several_methods_then_generate_with_both(
    learnt: Path, here: Path, capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    given = ("learn", "photos", "--class", "cat", *model, "--steps", 2, "--prior-steps", 2)
    shown = ran(capsys, *given, "--name", "mia", "--method", "hiper", "--preview-every", 2)
    assert shown["phrase"] == "cat" and shown["best"] == "concepts/mia/checkpoints/step-000002"
    assert (here / "concepts/mia/previews/step-000002.png").exists()
    later = ("--after", "rex", "--method", "lora", "--prior-samples", 1)
    shown = ran(capsys, *given, "--name", "tom", *later)
    first = json.loads((learnt / "concept.json").read_text())["identifier"]
    assert shown["phrases"] == {"tom": shown["phrase"]} and first not in shown["phrase"].split()
    asked = ("generate", "{rex}, {tom} and {mia}", *model, "--steps", 2, "--out", "all.png")
    ran(capsys, *asked, "--concept", "rex", "--concept", "tom", "--concept", "mia")
    assert run(*given, "--name", "mia", "--method", "hiper", "--resume") == 0
    said = capsys.readouterr()
    assert 'write {mia} in a prompt; it expands to "cat"' in said.out
    assert "Learning took " in said.err
    swap = ("swap", "photos/0.png", "--prompt", "a photo of a cat", "--swap", "cat=mia")
    assert run(*swap, "--out", "no.png") == 2
    assert "mia was learnt with --method hiper and cannot replace a word" in capsys.readouterr().err
    assert run(*given, "--name", "mia", "--also", "ada:dog") == 2
    assert "--also must be NAME:CLASS:PHOTOS" in capsys.readouterr().err


def test_clip_names_the_class_and_judges_previews(
    here: Path, capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    for number, level in enumerate((60, 180)):
        pictures.save(here / f"photos/{number}.png", np.full((70, 64, 3), level, np.uint8))
    seeing = ("--clip-model", clip_folder())
    proposed = ran(capsys, "check", "photos", *model, *seeing)["nouns"]
    noun = max(proposed, key=proposed.get)
    assert len(proposed) == 3 and 0 < proposed[noun] <= 1
    words = ("learn", "photos", "--name", "rex", "--steps", 2, "--prior-samples", 0, *model)
    shown = ran(capsys, *words, *seeing, "--dino-model", dino_folder(), "--preview-every", 2)
    assert shown["phrase"].endswith(f" {noun}")
    journal = (here / "concepts/rex/learn.jsonl").read_text().splitlines()
    looks = [entry for entry in map(json.loads, journal) if "identity" in entry]
    assert looks and all(-1 <= look["identity"] <= 1 and look["prompt"] >= 0 for look in looks)
    # Nobody asks CLIP where the class is said and nothing is looked at: it is not even loaded.
    unasked = ("--class", "cat", "--clip-model", "no such folder")
    assert ran(capsys, *words, *unasked, "--out", "unasked")["phrase"].endswith(" cat")
    assert run(*words, *unasked, "--preview-every", 2) == 2
    told = capsys.readouterr().err
    assert "no such folder" in told and "toybox" not in told  # which is no CLIP
    alone = ("--class", "cat", "--dino-model", "x")
    for asked, said in (((), "Give --class"), (alone, "--clip-model")):
        assert run(*words, *asked) == 2
        assert said in capsys.readouterr().err


def test_generate_says_how_many(
    here: Path, capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    words = ("generate", "a cat", *model, "--steps", 1, "--out", "cats", "--count")
    for count, told in ((1, "Generating took"), (3, "Generating 3 pictures took")):
        assert run(*words, count) == 0
        assert told in capsys.readouterr().err


def test_learn_then_generate(
    learnt: Path, capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    words = ("generate", "a photo of {rex}", *model, "--steps", 2, "--concept")
    shown = ran(capsys, *words, "rex", "--out", "rex.png")
    assert "{" not in shown["prompt"]
    (file,) = read_recipe("rex.png").ingredients
    assert file.role == "concept" and file.name == "rex"
    ran(capsys, *words, learnt, "--out", "again.png")
    assert np.array_equal(read_photo("rex.png").pixels, read_photo("again.png").pixels)


def test_invert_then_swap(
    learnt: Path, cache: Path, capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    photo = pictures.save(Path("photo.png"), pictures.gradient(80, 90))
    white = np.full((80, 90, 3), 255, np.uint8)
    mask = pictures.save(Path("mask.png"), white)
    about = ("--prompt", "a photo of a cat", "--method", "direct", "--steps", 2, *model)
    shown = ran(capsys, "invert", photo, *about)
    assert Path(shown["inversion"]).name == "photo.inversion.safetensors"
    assert shown["replayed"] == shown["autoencoder"]  # direct inversion stays on the photo
    for number in range(2):
        out = f"swapped-{number}.png"
        shown = ran(
            capsys, "swap", photo, *about, "--swap", "cat=rex", "--mask", mask, "--out", out
        )
    assert alike("swapped-0.png", "swapped-1.png")
    assert shown["target_prompt"].startswith("a photo of a ")
    recipe = read_recipe("swapped-0.png")
    assert [file.role for file in recipe.ingredients] == ["photo", "concept", "mask"]
    # Bare the inversion is one, with rex applied another; the second swap finds rex's in the cache.
    assert len(list(cache.rglob("inversions/*.safetensors"))) == 2


def alike(one: str, two: str) -> bool:
    """Equal but for rounding: kept features leave rows out, and processors multiply a batch of
    another size in another order."""
    gaps = read_photo(one).pixels.astype(int) - read_photo(two).pixels
    return bool(abs(gaps).max() <= 1)


def test_a_swap_leaves_features_for_the_next(
    learnt: Path, cache: Path, capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    photo = pictures.save(Path("photo.png"), pictures.gradient(64, 64))
    about = (
        "--prompt",
        "a photo of a cat",
        "--swap",
        "cat=rex",
        "--steps",
        2,
        "--preset",
        "paper",
        *model,
    )
    ran(capsys, "swap", photo, *about, "--blend", "--paste", "--out", "one.png")
    assert len(list(cache.rglob("sources/*/step-*.safetensors"))) == 2
    ran(capsys, "swap", photo, *about, "--blend", "--paste", "--out", "two.png")
    assert alike("one.png", "two.png")
    shown = ran(capsys, "swap", *about, "--seed", 3, "--out", "seeded.png")
    assert shown["target_prompt"] == ran(capsys, "swap", photo, *about)["target_prompt"]
    assert read_recipe("seeded.png").seed == 3
    for words, told in (
        (("swap", *about), "either a photo, or --seed"),
        (("swap", photo, *about, "--seed", 3), "either a photo, or --seed"),
        (("swap", photo, *about, "--paste"), "add --blend or a --mask"),
        (("swap", photo, "--prompt", "a cat", "--swap", "cat#2=rex", *model), "no occurrence 2"),
        (("swap", photo, "--prompt", "a toy-cat", "--swap", "cat=rex", *model), "are: a, toy-cat."),
        (("swap", photo, *about, "--swap", "a cat=rex"), "same word"),
        (("swap", photo, *about, "--cross-map-steps", "1.5"), "share from 0.0 to 1.0"),
    ):
        assert run(*words) == 2
        assert told in capsys.readouterr().err


def test_a_swap_finds_possessives_and_plurals(
    learnt: Path, cache: Path, capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    """Whatever the first check finds in the prompt is found in the tokens behind the inversion."""
    how = ("--seed", 1, "--swap", "cat=rex", "--steps", 1, "--preset", "paper", "--blend", *model)
    for prompt, noted in (("two cats in a box", True), ("the cat's box", False)):
        assert run("swap", "--prompt", prompt, *how, "--json", "--out", "swapped.png") == 0
        shown = capsys.readouterr()
        assert ('"cat" is read as "cats"' in shown.err) == noted
        expected = prompt.replace("cats", "cat").replace("cat", Concept.load(learnt).phrase)
        assert json.loads(shown.out)["target_prompt"] == expected


def test_sweep_and_explain(
    learnt: Path, cache: Path, capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    photo = pictures.save(Path("photo.png"), pictures.gradient(64, 64))
    about = ("--prompt", "a photo of a cat", "--steps", 4, *model)
    about = (*about, "--swap", "cat=rex")
    swept = ("sweep", photo, *about, "--preset", "paper", "--method", "direct")
    shown = ran(capsys, *swept, "--vary", "self-output=0,1,2", "--vary", "cross-map=0,0.5")
    assert shown["cells"] == 6 and shown["evaluations"]["swaps"] < 6 * 2 * 4 + 2 * 4
    assert read_recipe("sweep.png").command == "sweep"
    assert run(*swept, "--vary", "nonsense=1") == 2
    assert "one of self-output-steps" in capsys.readouterr().err
    shown = ran(capsys, "explain", photo, *about, "--out", "maps.png")
    assert shown["words"] == ["a", "photo", "of", "cat"]
    drawn = read_photo("maps.png").pixels
    assert drawn.std() > 10 and read_recipe("maps.png").command == "explain"


def test_demo(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: list[str],
) -> None:
    monkeypatch.setattr("understudy.vision.recogniser.load", untaught)
    monkeypatch.setattr("understudy.vision.examiner.load_scorer", untaught)
    words = ("demo", *model, "--photos", 2, "--learn-steps", 2, "--prior-samples", 1, "--steps", 2)
    shown = ran(capsys, *words, "--out", "shown")
    made = {"sheet.png", "source.png", "swapped.png", "right.png", "table.txt"}
    assert {file.name for file in Path("shown").iterdir()} == made
    assert read_recipe("shown/sheet.png").arguments["prompt"] == shown["prompt"]
    assert "identity" in shown["scores"]["swap"]
    assert "autoencoder alone" in Path("shown/table.txt").read_text()


def test_models_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    told = ran(capsys, "models", "list")
    assert [line.split("   ")[0] for line in lines] == [*told["models"], *told["generators"]]
    assert lines[-1].endswith("   (built in; --generator)")
    assert [line for line in lines if line.endswith("(built in)")] == lines[:2]
    schnell = next(line for line in lines if "FLUX.1-schnell" in line)
    assert "Apache-2.0" in schnell and "to learn use black-forest-labs/FLUX.1-dev" in schnell


def test_models_of_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for place in ("sd/model_index.json", "faces/generator.json", "other/notes.json"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text("{}")
    model, faces = (str(tmp_path / name) for name in ("sd", "faces"))
    assert ran(capsys, "models", "list", tmp_path) == {"models": [model], "generators": [faces]}
    assert ran(capsys, "models", "list", model) == {"models": [model], "generators": []}
    assert run("models", "list", tmp_path) == 0
    assert capsys.readouterr().out == f"{faces}   (--generator)\n{model}   (--model)\n"
    assert run("models", "list", tmp_path / "other") == 0
    assert "holds no models" in capsys.readouterr().out
    assert run("models", "list", tmp_path / "none") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_bug_is_one_line_and_debug_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("understudy.models.registry.available", broken)
    assert run("models", "list") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "RuntimeError: two lines" in error
    monkeypatch.setenv("UNDERSTUDY_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run("models", "list")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_stopped_and_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    def stop() -> None:
        raise error

    monkeypatch.setattr("understudy.models.registry.available", stop)
    assert run("models", "list") == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert capsys.readouterr().err.count("\n") == 1


def test_progress_passes_steps_on(capsys: pytest.CaptureFixture[str]) -> None:
    from understudy.cli.show import follow
    from understudy.learn.learn import LearnStep

    steps = [LearnStep("learn", index, 3) for index in range(1, 4)]
    assert list(follow(iter(steps), "Testing")) == steps
    assert re.match(r"Testing took \d+\.\d s", capsys.readouterr().err)


@dataclass(frozen=True)
class Stage:
    index: int
    total: int


def test_a_log_file_gets_plain_progress_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(show.time, "monotonic", lambda: now[0])

    def steps() -> Iterator[Stage]:
        for total, seconds in ((4, 3.0), (2, 10.0)):  # two phases of another speed
            for index in range(total):
                now[0] += seconds
                yield Stage(index, total)

    titles = {4: "Drawing [the] class", 2: "Learning"}
    assert len(list(show.follow(steps(), lambda step: titles[step.total]))) == 6
    *lines, took = capsys.readouterr().err.splitlines()
    assert lines == [
        "Drawing [the] class: step 2 of 4, about 6 s left",
        "Drawing [the] class: step 4 of 4, about 0 s left",
        "Learning: step 1 of 2, about 10 s left",
        "Learning: step 2 of 2, about 0 s left",
    ]
    assert took.startswith("Learning took ")


def test_show_settings_prints_what_a_run_would_use(capsys: pytest.CaptureFixture[str]) -> None:
    """Model, method and preset count; no photo, prompt or output is needed, and nothing is made."""
    pnp = ["edit", "--show-settings", "--method", "pnp", "--steps", 20]
    shown = ran(capsys, *pnp)
    assert (shown["guidance"], shown["inversion_steps"], shown["feature_steps"]) == (3.0, 0, 16)
    assert ran(capsys, *pnp, "--preset", "official")["inversion_steps"] == 999
    assert ran(capsys, *pnp, "--model", "a/b")["guidance"] == 7.5
    assert ran(capsys, "drag", "--show-settings")["learning_rate"] == 2e-2
    assert run("learn", "--show-settings", "--lora") == 2
    assert run("swap", "--show-settings") == 0
    assert re.search(r"^guidance +2.5$", capsys.readouterr().out, re.MULTILINE)


def test_a_phase_may_end_with_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress, then the result, with no end of the phase told in between: as `mask` does."""
    from understudy.cli import show
    from understudy.jobs.events import Note, Progress, Result

    events = [Progress("Looking", 0, 1), Note("found"), Result({"mask": "mask.png"})]
    assert show.drawn(iter(events)).values == {"mask": "mask.png"}
    assert "found" in capsys.readouterr().err
