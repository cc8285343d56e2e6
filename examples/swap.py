"""A concept takes the place of a photo's subject, in its pose: invert, then swap."""

from pathlib import Path

from understudy import Concept, InvertSettings, SwapSettings, applied, load_model, toybox
from understudy import write_picture as write
from understudy.invert import invert
from understudy.pictures.tensors import to_tensor
from understudy.swap import swap


def main(
    concept: Path = Path("out/rex"),  # as examples/learn.py leaves it
    out: Path = Path("out"),
    model: str = "toybox",
    steps: int = 25,
) -> None:
    artist = load_model(model)
    rex = Concept.load(concept)
    actor = toybox.sample_identity(11, rex.class_noun)
    scene = toybox.sample_scene(11, identity=actor, subjects=1)
    photo = to_tensor(toybox.render(scene, artist.picture_size).picture)
    prompt = toybox.plain_caption(scene, colour=False)
    target = prompt.replace(rex.class_noun, rex.phrase, 1)
    run = {"steps": steps, "guidance": 3.0}
    with applied(artist, rex):
        inversion = invert(artist, photo, prompt, InvertSettings.filled(run))
        picture = swap(artist, inversion, target, SwapSettings.filled(run))
    print(write(out / "source.png", photo), write(out / "swapped.png", picture))


if __name__ == "__main__":
    main()
