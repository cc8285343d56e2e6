"""What a release consists of: versions agree, container and workflow files name what exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from understudy import __version__
from understudy.cli.app import app

ROOT = Path(__file__).parent.parent
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__ and cited["license"] == "Apache-2.0"
    assert cited["cff-version"] == "1.2.0" and cited["references"]


def test_the_bill_of_materials_lists_every_pinned_version() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts/sbom.py"], capture_output=True, check=True, text=True
    )
    bill = json.loads(made.stdout)
    listed = {f"{one['name']}=={one['version']}" for one in bill["components"]}
    pinned = {line for line in CONSTRAINTS.splitlines() if "==" in line}
    assert listed == pinned and len(pinned) > 50
    assert bill["metadata"]["component"]["version"] == __version__


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_dockerfile_copies_what_exists_and_runs_as_a_user(name: str) -> None:
    text = (ROOT / f"docker/{name}.Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for names in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for source in names.split():
            assert (ROOT / source).exists() and f"!{source}" in ignored
    instructions = re.findall(r"^([A-Z]+) ", text, re.MULTILINE)
    assert instructions[0] == "FROM" and "USER" in instructions
    assert instructions.index("USER") < instructions.index("ENTRYPOINT")
    assert not re.search(r"^FROM \S+(:latest)?$", text, re.MULTILINE) or ":3.11-" in text


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda p: p.stem)
def test_a_workflow_runs_scripts_that_exist(path: Path) -> None:
    flow = yaml.safe_load(path.read_text())
    assert flow["permissions"] == {"contents": "read"}
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert ("run" in step) != ("uses" in step)
        for script in re.findall(r"\./(scripts/\w+)", step.get("run", "")):
            assert (ROOT / script).stat().st_mode & 0o111


def test_the_smoke_test_runs_every_command() -> None:
    run = set(re.findall(r"^say (\w+)", (ROOT / "scripts/smoke").read_text(), re.MULTILINE))
    groups = {group.name for group in app.registered_groups}
    known = {one.callback.__name__ for one in app.registered_commands if one.callback} | groups
    assert known - run <= {"demo", "rerun", "studio", "batch"}  # the last two need extras
