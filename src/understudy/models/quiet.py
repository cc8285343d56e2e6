"""The libraries' notices and errors while a model is loaded: none of the first, one line of each
of the second."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from understudy.errors import ModelError, UnderstudyError, sentence


@contextmanager
def explained(part: Path) -> Generator[None]:
    """Whatever the libraries raise for a damaged part becomes a ModelError that names it."""
    try:
        yield
    except UnderstudyError:
        raise
    except Exception as error:
        raise ModelError(f"{part} cannot be loaded: {sentence(error)}") from error


@contextmanager
def quietly() -> Generator[None]:
    """No progress bars or notices from the libraries while loading; as before afterwards."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    logs = (diffusers_log, transformers_log)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (verbosity, bars) in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
