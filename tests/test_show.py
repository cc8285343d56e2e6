"""Control characters from files never reach the terminal."""

from __future__ import annotations

import ast
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import rich.console

from understudy.cli import main, show
from understudy.errors import ConceptError, InputError, ModelError, UnderstudyError
from understudy.untrusted.unpickling import Unsafe

SOURCE = Path(show.__file__).parent.parent

EVIL = "a\x1b[2J\x07\x9b31m\x7f\u202e\r\udc9b\x00z"


def test_every_line_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    show.note(EVIL)
    show.result({}, False, EVIL, "one\ntwo\tthree")
    show.result({"name": EVIL}, True)
    told = capsys.readouterr()
    assert all(letter.isprintable() or letter in "\n\t" for letter in told.out + told.err)
    assert "\\u001b[2J" in told.out and "one\ntwo\tthree" in told.out
    assert json.loads(told.out.splitlines()[-1]) == {"name": EVIL}


def test_errors_and_lists_are_printable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", str(tmp_path / "a\x1b[2J\x9bb")]) != 0
    (tmp_path / "a\x1b[2Jb").mkdir()
    (tmp_path / "a\x1b[2Jb" / "model_index.json").write_text("{}")
    main(["models", "list", str(tmp_path)])
    assert main(["concept", "show", "rex\x1b]0;title\x07"]) == 2
    told = capsys.readouterr()
    assert "\\u001b" in told.err
    assert all(letter.isprintable() or letter in "\n\t" for letter in told.out + told.err)


@dataclass
class At:
    index: int
    total: int


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("title", [f"{EVIL} [bold]x[/nothing]", lambda step: f"{EVIL} [/b]"])
def test_titles_of_bars_are_printable(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    title: str,
) -> None:
    """Bars draw escape sequences of their own; those of a title are written as text."""
    monkeypatch.setattr(rich.console.Console, "is_terminal", terminal)
    monkeypatch.setattr(show, "PLAIN_SECONDS", 0.0)
    for _ in show.follow([At(0, 2), At(1, 2)], title):
        time.sleep(0.15 if terminal else 0)
    told = capsys.readouterr().err
    assert "\\u001b[2J" in told and "took" in told
    for sign in ("\x1b[2J", "\x07", "\x9b", "\u202e", "\x00", "\udc9b"):
        assert sign not in told


@pytest.mark.parametrize("kind", [UnderstudyError, InputError, ModelError, ConceptError, Unsafe])
def test_a_message_is_one_printable_line(kind: type[UnderstudyError]) -> None:
    message = str(kind(f"one\n two {EVIL}" + "x" * 10_000))
    assert "\n" not in message and "\x1b" not in message and "\u202e" not in message
    assert message.startswith("one") and len(message) < 2_100


def test_only_the_functions_of_show_print() -> None:
    """What is printed elsewhere would not be checked for control characters."""
    allowed = {
        "cli/show.py",
        "cli/app.py",  # the version, and one_line of an error
        "cli/study.py",  # the address of the server
        "evaluate/study/server.py",  # the name of an exception's class
        "generators/quarantine.py",  # JSON for the parent process, which escapes
    }
    for path in sorted(SOURCE.rglob("*.py")):
        names = {
            node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
        }
        place = str(path.relative_to(SOURCE))
        assert not names & {"print", "echo", "secho"} or place in allowed, place
