"""A prompt to pictures, one seed each; the same seed is the same picture in any batch."""

from pathlib import Path

from understudy import GenerateSettings, load_model, write_picture
from understudy.generate import generate


def main(out: Path = Path("out"), model: str = "toybox", steps: int = 25) -> None:
    artist = load_model(model)
    prompts = ["a photo of a red cat on the beach", "a photo of a dog on a wooden floor"]
    settings = GenerateSettings(steps=steps, guidance=3.0)
    pictures = generate(artist, prompts, seeds=[0, 1], settings=settings)
    for number, picture in enumerate(pictures.split(1)):
        print(write_picture(out / f"generated-{number}.png", picture))


if __name__ == "__main__":
    main()
