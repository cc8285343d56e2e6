"""The documentation: every command parses, every page is listed, nothing is loaded from afar."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from understudy.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
COMMANDS = typer.main.get_command(app)


def commands(page: Path) -> list[str]:
    """The ``understudy`` commands of a page's code blocks, continued lines joined."""
    blocks = re.findall(r"```\w*\n(.*?)```", page.read_text(), flags=re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return re.findall(r"^understudy .*$", text, flags=re.MULTILINE)


def parsed(line: str) -> None:
    """Let the command line's own parser read it, without running anything."""
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    command, context = COMMANDS, None
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        context = command.context_class(command, parent=context)
        command = command.commands[words.pop(0)]
    if "..." in line:  # options are left out: only the given ones are checked
        known = {option for param in command.params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
    elif not hasattr(command, "commands"):
        command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_parses(page: Path) -> None:
    for line in commands(page):
        parsed(line)


def test_a_command_that_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\nunderstudy swap photo.png \\\n    --nonsense 3\n```\n")
    (line,) = commands(page)
    with pytest.raises(Exception, match="nonsense"):
        parsed(line)


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert pages <= listed
