"""Control characters from files never reach the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from understudy.cli import main, show

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
    assert main(["concept", "show", "rex\x1b]0;title\x07"]) == 1
    told = capsys.readouterr()
    assert "\\u001b" in told.err
    assert all(letter.isprintable() or letter in "\n\t" for letter in told.out + told.err)
