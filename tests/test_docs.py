"""The list of files is complete."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "understudy"


def test_every_file_has_its_line() -> None:
    listed = (ROOT / "docs" / "files.md").read_text()
    modules = [path for path in SOURCE.rglob("*.py") if not path.name.startswith("__")]
    missing = [
        str(p.relative_to(SOURCE)) for p in modules if f"`{p.relative_to(SOURCE)}`" not in listed
    ]
    assert not missing, f"docs/files.md lacks {', '.join(missing)}"
