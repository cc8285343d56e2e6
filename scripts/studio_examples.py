"""Draw the example photos of the studio: src/understudy/studio/static/examples.

python scripts/studio_examples.py

Two subjects with four photos each, and four photos to swap and edit in, all from the toy world. The
toys are held out of the training of the built-in model. Besides, the photos that the built-in
concept was learnt from (`scripts/ready_concept.py`), and a photo to swap it into.
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
READY = ("toby", 49, 127)  # name, seed of `toybox subject`, seed of `toybox render`


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
    made = ready()
    body = {"subjects": subjects, "photos": [*photos, made["photo"]], "ready": [made]}
    listed = json.dumps(body, indent=1)
    (FOLDER / "examples.json").write_text(listed + "\n", encoding="utf-8")


def ready() -> dict[str, object]:
    """The photos of the built-in concept, and the photo it is swapped into."""
    name, subject, source = READY
    scenes = toybox.subject_photos(subject, 4)
    files = [f"{name}-{number}.png" for number in range(1, len(scenes) + 1)]
    for file, scene in zip(files, scenes, strict=True):
        write_pixels(FOLDER / file, toybox.render(scene, SIZE).picture)
    scene, file = toybox.sample_scene(source), "photo-5.png"
    write_pixels(FOLDER / file, toybox.render(scene, SIZE).picture)
    noun = scenes[0].subjects[0].identity.class_name
    prompt = toybox.plain_caption(scene, colour=False)
    photo = {"file": file, "prompt": prompt, "word": scene.subjects[0].identity.class_name}
    return {"name": name, "noun": noun, "files": files, "photo": photo}


if __name__ == "__main__":
    main()
