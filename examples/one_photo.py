"""One photo of a toy, learnt embeddings behind its prompt (HiPer), and other words in front."""

from pathlib import Path

from understudy import GenerateSettings, LearnSettings, load_model, toybox, write_picture
from understudy.generate import generate
from understudy.learn import learn
from understudy.pictures.tensors import to_tensor


def main(
    out: Path = Path("out"), model: str = "toybox", steps: int = 300, sampling: int = 25
) -> None:
    artist = load_model(model)
    (scene,) = toybox.subject_photos(seed=3, count=1)
    noun = scene.subjects[0].identity.class_name
    photo = to_tensor(toybox.render(scene, artist.picture_size).picture)
    how = LearnSettings.filled({"method": "hiper", "steps": steps}, artist.name)
    rex = learn(artist, photo, name="rex", class_noun=noun, settings=how)
    rex.save(out / "rex")
    settings = GenerateSettings(steps=sampling, guidance=3.0)
    picture = generate(artist, ["a photo of a {rex} in the snow"], [0], settings, concepts=[rex])
    print(write_picture(out / "rex-in-the-snow.png", picture))


if __name__ == "__main__":
    main()
