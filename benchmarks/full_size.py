"""Real photos through `swap`, `edit` and `mask` at full size: frames and untouched pixels.

    scripts/bench full-size --photos FOLDER --concept NAME [--limit N] [--steps N]

FOLDER holds photos, or folders of photos. The built-in model takes every subject for a dog and
does not draw it well. What is checked: each result has the photo's size upright, pixels outside the
region edited (and outside the mask, where there is one) are the photo's, the mask has the photo's
size and is not empty.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from understudy.errors import UnderstudyError
from understudy.jobs.events import Note
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.pictures.photo import SUFFIXES, read_photo

WORD = "dog"  # what the built-in model takes the subjects for


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--concept", required=True)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--log", type=Path, default=Path("build/measured/full_size.jsonl"))
    wish = parser.parse_args()
    wish.log.parent.mkdir(parents=True, exist_ok=True)
    done = wish.log.read_text().splitlines() if wish.log.exists() else []
    known = {json.loads(line)["photo"] for line in done}
    pool = Pool()
    files = sorted(f for f in wish.photos.rglob("*") if f.suffix.lower() in SUFFIXES)
    for file in files[: wish.limit or None]:
        name = str(file.relative_to(wish.photos))
        if name not in known:
            row = {"photo": name, **checked(file, wish.concept, wish.steps, pool)}
            with wish.log.open("a") as log:
                log.write(json.dumps(row) + "\n")
            print(row, flush=True)
    rows = [json.loads(line) for line in wish.log.read_text().splitlines()]
    for verb in ("mask", "edit", "swap"):
        sound = sum(row[verb] == "ok" for row in rows)
        print(f"{verb}: {sound} of {len(rows)} photos; the others:",
              {row["photo"]: row[verb] for row in rows if row[verb] != "ok"})  # fmt: skip


def checked(file: Path, concept: str, steps: int, pool: Pool) -> dict[str, Any]:
    """For each verb "ok", or what was wrong."""
    before = read_photo(file)
    found: dict[str, Any] = {"size": list(before.size)}
    with tempfile.TemporaryDirectory() as scratch:
        mask = Path(scratch) / "mask.png"
        for verb, job in jobs(file, concept, steps, Path(scratch), mask):
            began = time.perf_counter()
            try:
                notes = [one.text for one in run(job, pool) if isinstance(one, Note)]
                found[verb] = verdict(verb, before.pixels, Path(job.inputs["out"]), mask, notes)
            except UnderstudyError as error:
                found[verb] = f"refused: {error}"
            found[f"{verb}, s"] = round(time.perf_counter() - began, 1)
    return found


def jobs(
    file: Path, concept: str, steps: int, scratch: Path, mask: Path
) -> Iterator[tuple[str, Job]]:
    """The three jobs; the swap is limited to the mask where there is one by then."""
    settings: dict[str, Any] = {"run": {"model": "toybox"}}
    prompt = f"a photo of a {WORD}"
    inputs: dict[str, Any] = {"photo": str(file), "prompt": prompt}
    yield (
        "mask",
        Job(verb="mask", settings=settings, inputs={**inputs, "select": [WORD], "out": str(mask)}),
    )
    edit = {**settings, "edit": {"steps": steps}, "invert": {"steps": steps, "method": "ddim"}}
    told = {**inputs, "to": [f"a photo of a red {WORD}"], "blend": f"{WORD}=red {WORD}"}
    yield (
        "edit",
        Job(verb="edit", settings=edit, inputs={**told, "out": str(scratch / "edit.png")}),
    )
    swap = {**settings, "swap": {"steps": steps, "budget": 0, "features": 0.0},
            "invert": {"steps": steps, "method": "ddim"}}  # fmt: skip
    told = {**inputs, "swap": [f"{WORD}={concept}"], "out": str(scratch / "swap.png")}
    if mask.exists():
        told["mask"] = str(mask)
    yield "swap", Job(verb="swap", settings=swap, inputs=told)


def verdict(verb: str, before: np.ndarray, out: Path, mask: Path, notes: list[str]) -> str:
    """ "ok", or what differs where nothing may."""
    after = read_photo(out).pixels
    if after.shape != before.shape:
        return f"size {after.shape[:2]} of {before.shape[:2]}"
    if verb == "mask":
        return "ok" if after.max() > 127 else "empty"
    changed = (after != before).any(2)
    allowed = np.zeros(changed.shape, bool)
    box = next((m for n in notes if (m := re.search(r"region (\d+),(\d+),(\d+),(\d+)", n))), None)
    if box is None:
        return "no region was named"
    left, top, width, height = map(int, box.groups())
    allowed[top : top + height, left : left + width] = True
    if verb == "swap" and mask.exists():
        allowed &= read_photo(mask).pixels[..., 0] > 0
    if (changed & ~allowed).any():
        return f"{int((changed & ~allowed).sum())} pixels changed outside"
    return "ok" if changed.any() else "nothing changed"


if __name__ == "__main__":
    main()
