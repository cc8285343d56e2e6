"""Ctrl-C and SIGTERM: the step at hand is kept, handlers are put back, a second one is obeyed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_checkpoint import checkpoints, steps_of
from tiny import tiny_model
from understudy.cli.signals import deferred, until


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
