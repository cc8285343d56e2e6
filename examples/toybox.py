"""The toy world: a scene, its caption, and the right answer of a swap."""

from pathlib import Path

from understudy import toybox
from understudy.pictures.photo import write_pixels
from understudy.pictures.sheet import Row, Tile, contact_sheet


def main(out: Path = Path("out"), seed: int = 7) -> None:
    scene = toybox.sample_scene(seed, subjects=1)
    other = toybox.sample_identity(seed + 1, scene.subjects[0].identity.class_name)
    right = toybox.recast(scene, 0, other)  # the same scene, another toy in the part
    tiles = [
        Tile(toybox.render(scene).picture, "the scene"),
        Tile(toybox.render(right).picture, "another toy in its part"),
    ]
    sheet = contact_sheet([Row(toybox.caption(scene, seed), tiles)])
    print(write_pixels(out / "toybox.png", sheet))


if __name__ == "__main__":
    main()
