"""Other words for a photo, three of them in one pass: invert once, then edit."""

from pathlib import Path

from understudy import EditSettings, InvertSettings, load_model, toybox, write_picture
from understudy.edit import WordEdits, edit
from understudy.invert import invert
from understudy.pictures.tensors import to_tensor


def main(out: Path = Path("out"), model: str = "toybox", steps: int = 25) -> None:
    artist = load_model(model)
    actor = toybox.sample_identity(11, "cat")
    scene = toybox.sample_scene(11, identity=actor, subjects=1)
    photo = to_tensor(toybox.render(scene, artist.picture_size).picture)
    prompt = toybox.plain_caption(scene, colour=False)
    targets = [prompt.replace("cat", animal) for animal in ("dog", "bear", "red cat")]
    run = {"steps": steps, "guidance": 3.0}
    inversion = invert(artist, photo, prompt, InvertSettings.filled({**run, "method": "direct"}))
    words = WordEdits(weights={"red": 2.0})
    settings = EditSettings.filled(run)
    pictures = edit(artist, inversion, targets, settings, words=words)
    print(write_picture(out / "source.png", photo))
    for number, picture in enumerate(pictures.split(1)):
        print(write_picture(out / f"edited-{number}.png", picture))


if __name__ == "__main__":
    main()
