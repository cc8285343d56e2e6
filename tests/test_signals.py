"""Ctrl-C and SIGTERM: the step at hand is kept, handlers are put back, a second one is obeyed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pictures
from cases import few
from test_checkpoint import checkpoints, steps_of
from tiny import tiny_folder, tiny_model
from understudy import cli
from understudy.cli import LAST_WORDS, show
from understudy.cli.signals import deferred, until
from understudy.jobs.events import Note, Progress
from understudy.jobs.request import Job
from understudy.learn import LearnStep
from understudy.toybox import render, sample_scene


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_learning_after_the_step_and_keeps_it(tmp_path: Path, number: int) -> None:
    model, before, seen = tiny_model(), signal.getsignal(number), list[int]()
    with pytest.raises(KeyboardInterrupt), deferred() as asked:
        for step in until(steps_of(model, tmp_path, save_every=0), asked):
            seen.append(step.index)
            if step.phase == "learn" and step.index == 2:
                os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    assert seen[-1] == 2 and checkpoints(tmp_path) == ["step-000003"]
    assert model.fingerprint == model.base_fingerprint


def test_a_second_signal_stops_at_once() -> None:
    with deferred() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_without_a_signal_all_steps_pass() -> None:
    def steps() -> Iterator[int]:
        yield from range(3)

    with deferred() as asked:
        assert list(until(steps(), asked)) == [0, 1, 2]


def test_a_failing_printer_leaves_no_handlers_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """While its traceback is alive, so is the job's generator: it must have been closed before."""

    def run(_: Job) -> Iterator[Progress | Note]:
        yield Progress("learn", 0, 3)
        yield Note("of a broken pipe")

    def broken(*_: str) -> None:
        raise BrokenPipeError

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("understudy.jobs.runner.run", run)
    monkeypatch.setattr(show, "note", broken)
    with pytest.raises(BrokenPipeError) as held:
        show.job(Job(verb="learn"), False, finish_step=True)
    assert held.value and signal.getsignal(signal.SIGTERM) is before


# The command's own process


def test_ctrl_c_while_the_toy_world_is_rendered() -> None:
    """numba hides the KeyboardInterrupt in a SystemError."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    scene = sample_scene(1)
    render(scene, 64)  # compiled, or read from the cache
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for after in (0.03, 0.05, 0.07):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, after)
                render(scene, 1024)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


DRIVER = """
import os, signal, sys
left = int(sys.argv.pop(1))
def hook(event, _):
    global left
    if event == "import" and "understudy.cli.app" in sys.modules:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
from understudy.cli import script
script()
"""


@pytest.mark.parametrize("number", few([1, 40, 700, 1800], [1, 40, 1800]))
def test_ctrl_c_at_any_import_is_one_line(number: int, tmp_path: Path) -> None:
    """The signal is sent at the import statement of this number after the handler is in place."""
    words = ["generate", "a cat", "--model", str(tiny_folder()), "--out", str(tmp_path / "a.png")]
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, str(number), *words],
        capture_output=True, text=True, preexec_fn=interruptible,
    )  # fmt: skip
    assert ended.returncode == 130, ended
    assert ended.stderr.splitlines() == [f"understudy: {LAST_WORDS}"], ended
    assert ended.stdout == "" and not list(tmp_path.iterdir())


def test_hardly_anything_is_imported_before_the_handler() -> None:
    """The command's file imports re and sys, then `script`. What that adds takes a millisecond."""
    code = "import re, sys; known = {*sys.modules}; from understudy.cli import script; "
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}print(*({{*sys.modules}} - known))"],
        capture_output=True, text=True,
    )  # fmt: skip
    ours = {"understudy", "understudy._version", "understudy.cli"}
    assert ours <= {*ended.stdout.split()} <= ours | {"__future__", "signal"}, ended


def interruptible() -> None:
    """A process in the background may have been started with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_ignored_ctrl_c_stays_ignored(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    script = f"import sys; sys.argv[1:] = ['--version']\n{code}\nfrom understudy.cli import script"
    ended = subprocess.run(
        [sys.executable, "-c", f"{script}\nscript()"],
        capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert ended.returncode == 0 and ended.stdout.startswith("understudy ")


def stopping(count: int) -> Iterator[LearnStep]:
    """Steps that are interrupted after `count` of them."""
    for index in range(count):
        yield LearnStep("prior", index, count + 1, kept=3 * index)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "steps", "said"),
    [
        (("learn", "photos", "--class", "cat", "--name", "rex"),
         "understudy.jobs.learn.learn_steps",
         "3 class images are cached; running the same command again reuses them."),
        (("edit", "photos/0.png", "--prompt", "a photo of a cat", "--to", "a photo of a dog"),
         "understudy.jobs.edit.edit_steps", "The inversion is cached; running the same command"),
        (("evaluate", "swap", "--methods", "no-swap"),
         "understudy.evaluate.protocols.swap.evaluation_steps",
         "rows are in swapbench. To continue, add --resume."),
    ],
)  # fmt: skip
def test_a_stop_says_what_was_kept(
    words: tuple[str, ...], steps: str, said: str, here: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for number in range(2):
        pictures.save(here / f"photos/{number}.png", pictures.gradient(80, 90))
    monkeypatch.setattr(steps, lambda *_, **__: stopping(2))
    small = () if words[0] == "evaluate" else ("--model", str(tiny_folder("toy")), "--steps", "1")
    assert cli.main([*words, *small]) == 130
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"understudy: {LAST_WORDS} ") and said in line


def test_a_stop_does_not_name_a_cache_that_took_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures.save(here / "photo.png", pictures.gradient(80, 90))
    (here / "file").touch()
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(here / "file" / "cache"))
    monkeypatch.setattr("understudy.jobs.edit.edit_steps", lambda *_, **__: stopping(2))
    words = "edit photo.png --prompt cat --to dog --steps 1 --model"
    assert cli.main([*words.split(), str(tiny_folder("toy"))]) == 130
    *_, line = capsys.readouterr().err.splitlines()
    assert line == f"understudy: {LAST_WORDS}"


def test_a_stop_before_training_names_neither_a_full_cache_nor_an_older_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        pictures.save(here / f"photos/{number}.png", pictures.gradient(80, 90))
    words = "learn photos --class cat --name rex --method lora --rank 2 --steps 1 --prior-samples 0"
    words = f"{words} --save-every 1 --model {tiny_folder('toy')}"
    assert cli.main(words.split()) == 0
    assert Path("concepts/rex/checkpoints/step-000001").is_dir()
    monkeypatch.setattr("understudy.jobs.learn.learn_steps", lambda *_, **__: stopping(1))
    assert cli.main(words.split()) == 130  # no class image was kept
    *_, line = capsys.readouterr().err.splitlines()
    assert line == f"understudy: {LAST_WORDS}"


def test_a_stopped_learn_names_its_checkpoint(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from understudy.learn.training import Trainer

    for number in range(2):
        pictures.save(here / f"photos/{number}.png", pictures.gradient(80, 90))
    step = Trainer.step

    def interrupted(trainer: Trainer) -> object:
        if trainer.done == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted)
    words = "learn photos --class cat --name rex --method lora --rank 2 --steps 3 --prior-samples 0"
    assert cli.main([*words.split(), "--model", str(tiny_folder("toy"))]) == 130
    *_, line = capsys.readouterr().err.splitlines()
    folder = "concepts/rex/checkpoints/step-000002"
    assert f"Step 2 is saved in {folder}. To continue, add --resume." in line
    assert Path(folder).is_dir()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert cli.main([*words.split(), "--model", str(tiny_folder("toy")), "--resume"]) == 0
