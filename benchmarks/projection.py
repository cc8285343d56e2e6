"""How well a generator draws photos after projection and pivotal tuning.

    scripts/bench project --generator FOLDER --photos FOLDER [--set KNOB=VALUE ...] [--limit N]

One line of JSON a photo: killed, it goes on where it stopped. Photos are fitted to the generator's
size; align faces first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.rows import Row, Rows, report, spreads
from understudy.generators.folder import load_generator
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.pictures.folders import list_folder
from understudy.pictures.metrics import psnr, ssim
from understudy.pictures.tensors import read_picture
from understudy.project import project_steps
from understudy.settings.project import ProjectSettings
from understudy.vision.distance import Perceptual
from understudy.vision.perceptual import measure

ROOT = Path(__file__).parent.parent
COLUMNS = ("projected, dB", "tuned, dB", "tuned, SSIM", "tuned, perceptual", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--generator", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--measure", default="recogniser")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "measured")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE")
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    model, settings = load_generator(wish.generator), settings_of(wish.set)
    judge = measure(wish.measure, model.device)
    mark = hashlib.sha256(
        json.dumps([model.fingerprint, settings.to_dict(), judge.name]).encode()
    ).hexdigest()[:16]
    rows = Rows(wish.store / "projection.jsonl", mark)
    table = rows.measure(cases(model, judge, settings, wish.photos, wish.limit))
    told = {"generator": wish.generator, "measure": judge.name, **settings.to_dict()}
    print(report("projection", "Photos projected and tuned", told, spreads(table, COLUMNS)))


def settings_of(given: list[str]) -> ProjectSettings:
    """KNOB=VALUE pairs as settings."""
    known = ProjectSettings().to_dict()
    pairs = (text.split("=", 1) for text in given)
    values = {name: type(known[name])(value) for name, value in pairs}
    return ProjectSettings.filled(values)


def cases(
    model: StyleGAN2,
    judge: Perceptual,
    settings: ProjectSettings,
    photos: Path,
    limit: int | None,
) -> Iterator[tuple[str, partial[Row]]]:
    for file in list_folder(photos).files[:limit]:
        picture = read_picture(file, model.picture_size).to(model.device)
        yield file.name, partial(reconstruction, model, judge, settings, picture)


def reconstruction(
    model: StyleGAN2, judge: Perceptual, settings: ProjectSettings, picture: Tensor
) -> Row:
    """One photo there and back."""
    *_, last = project_steps(model, picture, judge, settings)
    latent = last.latent
    assert latent is not None
    with torch.no_grad():
        ws = latent.ws.to(model.device)
        before = model.pictures(ws).clamp(-1, 1)
        after = latent.tuned(model).pictures(ws).clamp(-1, 1)
    return {
        "projected, dB": psnr(before, picture).item(),
        "tuned, dB": psnr(after, picture).item(),
        "tuned, SSIM": ssim(after, picture).item(),
        "tuned, perceptual": last.perceptual,
    }


if __name__ == "__main__":
    main()
