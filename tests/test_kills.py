"""swap, edit, evaluate and learn killed at random moments: run again, they give the same result.

The processes share imports through a fork server, so that most kills hit the work itself.
UNDERSTUDY_KILLS sets the kills per verb (default 20).
"""

from __future__ import annotations

import os
import random
import shutil
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import killable
import pictures
from tiny import tiny_folder
from understudy.evaluate.results import latest, read_rows
from understudy.pictures.photo import read_photo

KILLS = int(os.environ.get("UNDERSTUDY_KILLS", "20"))
# Imported once, by the server, which does not find modules of this folder.
PRELOAD = [
    "torch", "understudy.cli.app", "understudy.models.unet.stable_diffusion", "understudy.edit",
    "understudy.learn", "understudy.swap", "understudy.evaluate.protocols.swap", "diffusers.models",
    "transformers.models.clip.modeling_clip",
]  # fmt: skip
ABOUT = ("--prompt", "a photo of a cat", "--steps", "6")
LEARN = (
    "learn photos --class cat --name rex --method lora --rank 2 --steps 12 --save-every 2 "
    "--prior-samples 6 --prior-steps 4"
)
# What the command writes, and the words that make it go on where a run stopped.
VERBS: dict[str, tuple[tuple[str, ...], str, str, bool]] = {
    "swap": (("swap", "photo.png", *ABOUT, "--swap", "cat=rex"), "swapped.png", "", True),
    "edit": (("edit", "photo.png", *ABOUT, "--to", "a photo of a dog"), "edited.png", "", True),
    "learn": (tuple(LEARN.split()), "concepts/rex/concept.json", "concepts/rex/checkpoints/step-*",
              True),
    "evaluate": (
        ("evaluate", "swap", "--limit", "6", "--side", "64", "--methods", "right-answer,no-swap"),
        "swapbench/report.md", "swapbench/run.json", False,
    ),
}  # fmt: skip


def prepared(folder: Path) -> None:
    """The photos, and a concept for the swap."""
    folder.mkdir(parents=True)
    pictures.save(folder / "photo.png", pictures.gradient(80, 90))
    for number, level in enumerate((60, 180)):
        pictures.save(folder / f"photos/{number}.png", np.full((70, 64, 3), level, np.uint8))


def results(verb: str, folder: Path) -> dict[str, object]:
    """What must be equal, by name: pixels, files, and an evaluation's rows without their times.

    A picture's recipe says what was in the cache, so the file differs where the pixels do not.
    """
    places = {"swap": "*.png", "edit": "*.png", "learn": "concepts/rex/*", "evaluate": "*/**/*.png"}
    found: dict[str, object] = {
        str(file.relative_to(folder)): (
            read_photo(file).pixels.tobytes() if file.suffix == ".png" else file.read_bytes()
        )
        for file in folder.glob(places[verb])
        if file.suffix in (".png", ".safetensors") or file.name == "concept.json"
    }
    if verb == "evaluate":
        for key, row in latest(read_rows(folder / "swapbench" / "rows.jsonl")).items():
            found[str(key)] = {name: value for name, value in row.items() if name != "seconds"}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_killed_runs_give_the_results_of_an_unbroken_run(
    verb: str, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the fork server is spoken to through a socket of this machine
    words, result, going_on, modelled = VERBS[verb]
    words = (*words, "--model", str(tiny_folder("toy"))) if modelled else words
    concept = tmp_path / "concept"
    prepared(concept)
    if verb == "swap":
        assert Worker([*LEARN.split(), "--model", str(tiny_folder("toy"))], concept).wait() == 0
    whole = shutil.copytree(concept, tmp_path / "whole")
    began = time.monotonic()
    assert Worker([*words], whole).wait() == 0, (whole / "log.txt").read_text()
    seconds, luck = time.monotonic() - began, random.Random(verb)
    expected, kills, runs = results(verb, whole), 0, 0
    assert expected
    while kills < KILLS:
        broken, runs = shutil.copytree(concept, tmp_path / f"run-{runs}"), runs + 1
        most = min(KILLS, kills + KILLS // 4)  # then this run may end
        while not (broken / result).exists():
            begun = going_on and any(broken.glob(going_on))
            worker = Worker([*words, *(["--resume"] if begun else [])], broken)
            if kills < most and not worker.ended_within(luck.uniform(0, seconds)):
                worker.kill()
                kills += 1
            elif worker.wait() != 0:
                pytest.fail((broken / "log.txt").read_text())
        found = results(verb, broken)
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []
    print(f"\n{verb}: {kills} kills in {runs} runs of {seconds:.1f} s, all equal")


class Worker:
    """A command in a process of its own."""

    def __init__(self, words: list[str], folder: Path) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.process = context.Process(
            target=killable.command, args=(words, folder, folder / "cache")
        )
        self.process.start()

    def ended_within(self, seconds: float) -> bool:
        self.process.join(seconds)
        return not self.process.is_alive()

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
