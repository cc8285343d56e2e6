"""The pictures of docs/how-to/holiday.md: rendered photos through the commands of the guide.

    .venv/bin/python scripts/holiday_pictures.py --work build/holiday [--concept FOLDER]

Four photos of a toy dog, of different shapes and with captions; a holiday photo of 1200 x 900
pixels in which a toy cat is small. The dog is learnt, unless its concept is given; the cat is
found, and swapped for the dog. Writes docs/holiday-photos.jpg, -mask.jpg and -swap.jpg.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from understudy import toybox
from understudy.cli import main as command
from understudy.pictures.photo import Pixels, read_photo, write_pixels
from understudy.toybox import Camera, Scene

DOCS = Path(__file__).parent.parent / "docs"
SEED = 50_000_001  # of the dog: the second toy of SwapBench
SIZES = ((320, 240), (240, 320), (256, 256), (200, 320))  # height, width of the photos of it
HOLIDAY = (900, 1200)
PROMPT = "a photo of a cat on the beach"
ROW = 240  # pixels: height of a row of pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/holiday"))
    parser.add_argument("--concept", type=Path, help="of the dog, learnt before")
    wish = parser.parse_args()
    here: Path = wish.work
    here.mkdir(parents=True, exist_ok=True)
    dog = toybox.subject_photos(SEED, 4, class_name="dog", held_out=True)
    for number, (scene, size) in enumerate(zip(dog, SIZES, strict=True), start=1):
        write_pixels(here / "dog" / f"{number}.png", toybox.render(scene, size).picture)
        place = toybox.BACKGROUNDS[scene.background.kind]
        (here / "dog" / f"{number}.txt").write_text(f"a photo of a dog {place}\n")
    photo = write_pixels(here / "holiday.png", toybox.render(holiday(), HOLIDAY).picture)
    concept = wish.concept or here / "rex"
    if not concept.exists():
        run("learn", here / "dog", "--class", "dog", "--name", "rex", "--out", concept)
    seen, made = here / "seen.png", here / "swapped.png"
    run("mask", photo, "--select", "cat", "--prompt", PROMPT, "--view", seen,
        "--out", here / "mask.png")  # fmt: skip
    run("swap", photo, "--prompt", PROMPT, "--swap", f"cat={concept}", "--out", made)
    shown = [read_photo(here / "dog" / f"{n}.png").pixels for n in range(1, 5)]
    save("photos", shown)
    save("mask", [read_photo(photo).pixels, read_photo(seen).pixels])
    save("swap", [read_photo(made).pixels, near(read_photo(photo).pixels, read_photo(made).pixels)])


def holiday() -> Scene:
    """A small cat on a beach, left of the middle."""
    scene = toybox.sample_scene(50_100_800, background="beach", subjects=1, props=2, held_out=True)
    cat = toybox.sample_identity(50_100_801, "cat", held_out=True)
    figure = replace(
        scene.subjects[0],
        identity=cat,
        pose=replace(scene.subjects[0].pose, stance="sitting", x=0.0),
    )
    camera = Camera(distance=7.5, height=1.9, aim=0.8, pan=0.7, field=32.0)
    return replace(scene, subjects=(figure,), camera=camera)


def run(*words: object) -> None:
    """One command; the script ends where it fails."""
    print("understudy", *words, flush=True)
    if code := command([str(word) for word in words]):
        raise SystemExit(code)


def near(before: Pixels, after: Pixels) -> Pixels:
    """The part that changed, before and after, side by side."""
    rows, columns = np.nonzero((before != after).any(2))
    middle = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
    half = max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) * 6 // 10 + 20
    top, left = (max(0, place - half) for place in middle)
    parts = [one[top : top + 2 * half, left : left + 2 * half] for one in (before, after)]
    return np.concatenate(parts, axis=1)


def save(name: str, pictures: list[Pixels]) -> None:
    """A row of pictures as JPEG, all of one height, a white gap between them."""
    tiles: list[np.ndarray] = []
    for one in pictures:
        width = round(one.shape[1] * ROW / one.shape[0])
        tiles.append(
            np.asarray(Image.fromarray(one).resize((width, ROW), Image.Resampling.LANCZOS))
        )
        tiles.append(np.full((ROW, 8, 3), 255, np.uint8))
    Image.fromarray(np.concatenate(tiles[:-1], axis=1)).save(
        DOCS / f"holiday-{name}.jpg", quality=88
    )


if __name__ == "__main__":
    main()
