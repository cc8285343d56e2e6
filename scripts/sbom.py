"""A CycloneDX 1.6 list of the pinned dependencies, as JSON on standard output."""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def component(line: str) -> dict[str, object]:
    name, _, version = line.partition("==")
    found: dict[str, object] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}",
        "bom-ref": f"{name}=={version}",
    }
    try:
        licence = metadata.metadata(name).get("License-Expression")
    except metadata.PackageNotFoundError:
        licence = None
    if licence:
        found["licenses"] = [{"expression": licence}]
    return found


def main() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line.strip() for line in lines if "==" in line and not line.startswith("#")]
    version = (ROOT / "src/understudy/_version.py").read_text().split('"')[-2]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "name": "understudy",
                "version": version,
                "purl": f"pkg:pypi/understudy@{version}",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [component(line) for line in pinned],
    }
    json.dump(bill, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
