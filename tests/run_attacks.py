"""Reads every attack of `hostile` as the child process would; prints what came of each as JSON.

A program of its own: without the run-time type checks of the tests, which slow the machine that
reads pickles a hundredfold, its seconds are the real ones.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from hostile import ATTACKS, Attack
from understudy.generators.quarantine import read
from understudy.untrusted.unpickling import Unsafe


def main(folder: Path) -> None:
    came: dict[str, dict[str, object]] = {}
    for name, make in ATTACKS.items():
        place = folder / str(len(came))
        (place / "out").mkdir(parents=True)
        canary, file = place / "canary", place / "a.pkl"
        file.write_bytes(make(Attack(canary)))
        started = time.process_time()
        try:
            read(file, place / "out")
            message = "read without complaint"
        except Unsafe as error:
            message = str(error)
        except Exception as error:  # anything else is a hole
            message = f"\n{type(error).__name__}: {error}"
        left = [str(path) for path in (*(place / "out").iterdir(), canary) if path.exists()]
        spent = time.process_time() - started
        came[name] = {"message": message, "seconds": spent, "left": left}
        file.unlink()
    print(json.dumps({"attacks": came, "holes": holes(folder, 400)}))


def holes(folder: Path, count: int) -> list[str]:
    """Whole files with random damage: those that neither are read nor refused in our words."""
    attack, draw = Attack(folder / "canary"), random.Random(0)
    whole = (attack.pkl(), attack.pkl(protocol=2), attack.zip())
    found: list[str] = []
    for number in range(count):
        data = bytearray(draw.choice(whole))
        for _ in range(draw.choice((1, 1, 2, 5, 20))):
            at, there = draw.randrange(len(data)), draw.randrange(len(data))
            length = draw.randrange(1, 9)
            what = draw.choice((b"", data[there : there + length], draw.randbytes(length)))
            data[at : at + draw.choice((0, length))] = what
        (folder / "mutated").write_bytes(data)
        try:
            read(folder / "mutated", folder)
        except Unsafe:
            pass
        except Exception as error:
            found.append(f"{number}: {type(error).__name__}: {error}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
