"""All commands; errors become one line and an exit code.

Every command imports what it runs on when it runs, so that ``--help`` answers at once. Exit
codes: 0 done, 1 failed, 2 something given is wrong, 130 stopped by Ctrl-C. Errors are one line on
stderr; ``UNDERSTUDY_DEBUG=1`` shows the traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from understudy._version import __version__
from understudy.cli import (
    LAST_WORDS,
    STOPPED,
    batch,
    cache,
    check,
    concept,
    demo,
    doctor,
    drag,
    edit,
    evaluate,
    explain,
    generate,
    invert,
    learn,
    mask,
    models,
    project,
    rerun,
    studio,
    swap,
    sweep,
    toybox,
    usage,
    verify,
)
from understudy.cli.options import Command
from understudy.cli.signals import Stopped
from understudy.errors import UnderstudyError, one_line
from understudy.files.reading import system_reason

app = typer.Typer(
    name="understudy",
    help="Personalised image editing: learn a subject from a few photos and put it into any photo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
for command in (
    demo.demo,
    check.check,
    learn.learn,
    swap.swap,
    sweep.sweep,
    explain.explain,
    edit.edit,
    generate.generate,
    invert.invert,
    mask.mask,
    project.project,
    drag.drag,
    rerun.rerun,
    studio.studio,
    verify.verify,
    doctor.doctor,
    cache.forget,
    batch.batch,
):
    app.command(cls=Command)(command)
app.add_typer(concept.app, name="concept")
app.add_typer(toybox.app, name="toybox")
app.add_typer(models.app, name="models")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(cache.app, name="cache")

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Options of `understudy` itself, before any command."""


def run(words: list[str]) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    if words == ["--version"]:
        print(f"understudy {__version__}")
        return 0
    if not os.environ.get("UNDERSTUDY_DEBUG"):
        return _quietly(words)
    _run(words)
    return 0


def _run(words: list[str]) -> int:
    result = app(args=words, prog_name="understudy", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _quietly(words: list[str]) -> int:
    """Turn whatever is raised into one line and an exit code."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        code = _run(words)
        return code if code != STOPPED else _fail(LAST_WORDS, STOPPED)
    except Stopped as stop:
        return _fail(f"{LAST_WORDS} {stop}", STOPPED)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help
            print(error.format_message(), file=sys.stderr)
            return error.exit_code
        return _fail(usage.message(error), error.exit_code)
    except UnderstudyError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(LAST_WORDS, STOPPED)
    except MemoryError:
        return _fail("out of memory. Try a smaller picture, fewer at once, or --dtype float16.", 1)
    except BrokenPipeError:
        sys.stdout = None
        return 1
    except Exception as error:
        if isinstance(error, OSError) and (reason := system_reason(error)):
            return _fail(reason, 1)
        where = "UNDERSTUDY_DEBUG=1 shows where; please report it."
        return _fail(f"this is a bug: {type(error).__name__}: {error}. {where}", 1)


def _fail(message: str, code: int) -> int:
    """One line on stderr, whatever the message holds."""
    print(f"understudy: {one_line(message).strip()}", file=sys.stderr)
    return code
