"""Draw the example photos of the studio: src/understudy/studio/static/examples.

python scripts/studio_examples.py

Two subjects with four photos each, and four photos to swap and edit in, all from the toy world. The
toys are held out of the training of the built-in model.
"""

from __future__ import annotations

import json
from pathlib import Path

from understudy import demo, toybox
from understudy.pictures.photo import write_pixels

FOLDER = Path(__file__).parent.parent / "src/understudy/studio/static/examples"
SIZE = 128  # pixels, as the built-in model wants them
SUBJECTS = {"pip": 0, "nova": 2}  # name -> seed of the demo
PHOTOS = (0, 1, 2, 3)  # seeds of the demo


def main() -> None:
    """Write the pictures and their list."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    subjects: list[dict[str, object]] = []
    for name, seed in SUBJECTS.items():
        case = demo.case(seed)
        files = [f"{name}-{number}.png" for number in range(1, len(case.photos) + 1)]
        for file, scene in zip(files, case.photos, strict=True):
            write_pixels(FOLDER / file, toybox.render(scene, SIZE).picture)
        subjects.append({"name": name, "noun": case.noun, "files": files})
    photos: list[dict[str, object]] = []
    for seed in PHOTOS:
        case, file = demo.case(seed), f"photo-{seed + 1}.png"
        write_pixels(FOLDER / file, toybox.render(case.source, SIZE).picture)
        photos.append({"file": file, "prompt": case.prompt, "word": case.noun})
    listed = json.dumps({"subjects": subjects, "photos": photos}, indent=1)
    (FOLDER / "examples.json").write_text(listed + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
