"""A photo of a face becomes a latent of a generator, which is bent until it draws that photo."""

from pathlib import Path

import torch

from understudy import ProjectSettings, read_picture, write_picture
from understudy.generators.folder import load_generator, stylegan2
from understudy.project import project
from understudy.vision.perceptual import measure


def main(
    photo: Path = Path("face.png"),
    generator: Path = Path("generator"),  # as `understudy models convert` leaves it
    out: Path = Path("out"),
    steps: int = 450,
    tune_steps: int = 350,
) -> None:
    model = stylegan2(load_generator(generator))
    picture = read_picture(photo, model.picture_size)
    settings = ProjectSettings(steps=steps, tune_steps=tune_steps)
    latent = project(model, picture, measure("recogniser", model.device), settings)
    print(latent.save(out / "face.latent.safetensors"), f"{latent.record['psnr']:.1f} dB")
    with torch.no_grad():
        drawn = latent.tuned(model).pictures(latent.ws)
    write_picture(out / "drawn.png", drawn)


if __name__ == "__main__":
    main()
