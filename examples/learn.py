"""Four photos of a toy to a concept, and the toy on a beach where it never was."""

from pathlib import Path

import torch

from understudy import GenerateSettings, LearnSettings, applied, load_model, toybox, write_picture
from understudy.generate import generate
from understudy.learn import learn
from understudy.pictures.tensors import to_tensor


def main(
    out: Path = Path("out"), model: str = "toybox", steps: int = 150, sampling: int = 25
) -> None:
    artist = load_model(model)
    scenes = toybox.subject_photos(seed=3, count=4)
    noun = scenes[0].subjects[0].identity.class_name
    size = artist.picture_size
    photos = torch.cat([to_tensor(toybox.render(scene, size).picture) for scene in scenes])
    how = LearnSettings(steps=steps, learning_rate=5e-5, prior_samples=16, prior_steps=sampling)
    rex = learn(artist, photos, name="rex", class_noun=noun, settings=how)
    rex.save(out / "rex")
    with applied(artist, rex):
        settings = GenerateSettings(steps=sampling, guidance=3.0)
        picture = generate(artist, [f"a photo of a {rex.phrase} on the beach"], [0], settings)
    print(write_picture(out / "rex-on-the-beach.png", picture))


if __name__ == "__main__":
    main()
