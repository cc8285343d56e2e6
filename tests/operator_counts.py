"""Counts kernels, synchronisations and waits of steps; prints them as JSON.

A program of its own: see `test_operators.py`.
"""

import json
from dataclasses import asdict
from typing import Any

from benchmarks import operators, training, waits


def main() -> None:
    first, later = operators.swaps(side=8, steps=3)
    null_text = operators.null_text(side=8, steps=2, inner=2)
    found: dict[str, Any] = {
        "swap": {
            which: {"share": row.share, "syncs": row.syncs}
            for which, row in (("first", first), ("later", later))
        },
        "null-text": {"share": null_text.share},
        "drag": {
            case: operators.drag(case).share for case in ("1 point", "3 points", "2 points, mask")
        },
        "learn": {method: operators.learning(method).share for method in training.METHODS},
        "drag reads": {case: operators.drag_reads(case) for case in ("3 points", "2 points, mask")},
    }
    found["waits"] = [asdict(one) for one in waits.every_loop()]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
