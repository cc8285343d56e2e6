"""Photos of toys the generator never saw: projected, tuned, and dragged four times in a row.

    scripts/bench faces [--count 6] [--chain 0]

"Photos" are renders of held-out faces, so nothing says that the generator can draw them. One line
of JSON a photo; latents are kept beside: killed, it goes on where it stopped. Then one face goes
through four drags (turn, mouth, ears, eyes), each from where the last ended: docs/drag-chain.png.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import Tensor

from benchmarks.rows import RESULTS, Row, Rows, page, report, spreads
from understudy.drag.film import marked
from understudy.drag.points import Pair
from understudy.drag.session import drag_steps
from understudy.generators.folder import load_generator
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.pictures.metrics import psnr, ssim
from understudy.pictures.photo import write_pixels
from understudy.pictures.sheet import Row as SheetRow
from understudy.pictures.sheet import Tile, contact_sheet
from understudy.pictures.tensors import to_pixels, to_tensor
from understudy.project import Latent, ProjectProgress, project_steps
from understudy.settings.drag import DragSettings
from understudy.settings.project import ProjectSettings
from understudy.vision.landmarks import LandmarkFinder
from understudy.vision.landmarks import load as load_finder
from understudy.vision.perceptual import measure

ROOT = Path(__file__).parent.parent
COLUMNS = ("projected, dB", "tuned, dB", "tuned, SSIM", "tuned, perceptual", "seconds")
# name: landmarks, and how far each goes in pixels of 128 (x to the right, y down)
Move = Callable[[dict[str, tuple[float, float]]], dict[str, tuple[float, float]]]


def turn(at: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The nose goes 8 pixels away from where it looks now, the chin half as far."""
    way = -8.0 if at["nose"][0] > at["crown"][0] else 8.0
    return {"nose": (way, 0.0), "upper lip": (0.9 * way, 0.0), "chin": (0.5 * way, 0.0)}


def mouth(at: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The lower lip opens by 6 pixels, or shuts if it stands open."""
    gap = at["lower lip"][1] - at["upper lip"][1]
    return {"lower lip": (0.0, 6.0 if gap < 6 else 1.0 - gap), "upper lip": (0.0, 0.0)}


def ears(at: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Both ears' tips go 8 pixels down."""
    return {f"{side} ear tip": (0.0, 8.0) for side in ("left", "right")}


def eyes(at: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Both upper lids go most of the way down."""
    found = {}
    for side in ("left", "right"):
        top, bottom = (at[f"{side} eye {part}"] for part in ("top", "bottom"))
        found |= {f"{side} eye top": (0.0, 0.8 * (bottom[1] - top[1]))}
        found |= {f"{side} eye bottom": (0.0, 0.0)}
    return found


EDITS: dict[str, Move] = {"turn": turn, "mouth": mouth, "ears": ears, "eyes": eyes}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=6, help="photos")
    parser.add_argument("--chain", type=int, default=0, help="which of them is dragged")
    parser.add_argument("--steps", type=int, default=450, help="of projection")
    parser.add_argument("--tune-steps", type=int, default=350)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "measured")
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    model = load_generator("toybox-gan", device="cpu")
    given = {"steps": wish.steps, "tune_steps": wish.tune_steps}
    settings = ProjectSettings.filled(given, model.name)
    said = json.dumps([model.fingerprint, settings.to_dict()]).encode()
    mark = hashlib.sha256(said).hexdigest()[:16]
    folder = wish.store / f"real_faces_{mark[:8]}"  # latents of other settings stay apart
    folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(folder / "rows.jsonl", mark)
    photos = held_out(wish.count)
    table = rows.measure(photo_cases(model, settings, photos, folder))
    told = {"photos": wish.count, "renders": "held out", **settings.to_dict()}
    print(report("real_faces", "Held-out toy faces projected and tuned", told,
                 spreads(table, COLUMNS)))  # fmt: skip
    sheet(model, photos, folder)
    latent = Latent.load(folder / f"{wish.chain}.safetensors")
    print(chain(latent.tuned(model), latent.ws, photos[wish.chain : wish.chain + 1]))


def held_out(count: int) -> Tensor:
    """Renders of faces that neither generator nor finder was trained on, (n, 3, 128, 128)."""
    script = building()
    drawn = script.drawn_faces(range(script.HELD_OUT + 5_000, script.HELD_OUT + 5_000 + count))
    return cast(Tensor, script.Faces.of([drawn]).shown())


def building() -> ModuleType:
    """The script that built the generator: it knows which faces it was shown."""
    return importlib.import_module("training.build_toybox_gan")


def photo_cases(
    model: StyleGAN2, settings: ProjectSettings, photos: Tensor, folder: Path
) -> Iterator[tuple[str, partial[Row]]]:
    for number in range(len(photos)):
        photo = photos[number : number + 1]
        yield str(number), partial(reconstruction, model, settings, photo, folder / str(number))


def reconstruction(model: StyleGAN2, settings: ProjectSettings, photo: Tensor, place: Path) -> Row:
    """One photo there and back; its latent is kept."""
    note, judge, latent = place.with_suffix(".progress"), measure("recogniser"), None
    seen = float("nan")
    for step in project_steps(model, photo, judge, settings, progress=ProjectProgress.load(note)):
        if step.progress is not None:
            step.progress.save(note)
        latent, seen = step.latent, step.perceptual
    assert latent is not None
    latent.save(place.with_suffix(".safetensors"))
    with torch.no_grad():
        before = model.pictures(latent.ws).clamp(-1, 1)
        after = latent.tuned(model).pictures(latent.ws).clamp(-1, 1)
    return {
        "projected, dB": psnr(before, photo).item(),
        "tuned, dB": psnr(after, photo).item(),
        "tuned, SSIM": ssim(after, photo).item(),
        "tuned, perceptual": seen,
    }


@torch.no_grad()
def sheet(model: StyleGAN2, photos: Tensor, folder: Path) -> None:
    """Photos, projected, tuned: results/real_faces.png."""
    rows = list[SheetRow]()
    for number in range(len(photos)):
        latent = Latent.load(folder / f"{number}.safetensors")
        shown = {
            "photo": photos[number : number + 1],
            "projected": model.pictures(latent.ws),
            "tuned": latent.tuned(model).pictures(latent.ws),
        }
        rows.append(SheetRow(str(number), [Tile(to_pixels(p), n) for n, p in shown.items()]))
    write_pixels(RESULTS / "real_faces.png", contact_sheet(rows, side=128))


def chain(model: StyleGAN2, ws: Tensor, photo: Tensor) -> str:
    """Four drags in a row: docs/drag-chain.png, results/drag_chain.md and .json; the Markdown."""
    finder, settings = load_finder(), DragSettings.filled({}, "toybox-gan")
    with torch.no_grad():
        picture = model.pictures(ws)
    tiles = [Tile(to_pixels(photo), "photo"), Tile(to_pixels(picture), "tuned")]
    rows = list[Row]()
    for name, move in EDITS.items():
        pairs, names = wanted(finder, picture, move)
        before = picture
        (last,) = deque(drag_steps(model, ws, pairs, settings=settings), maxlen=1)
        ws = last.latent
        with torch.no_grad():
            picture = model.pictures(ws)
        pixels = marked(to_pixels(before), [p for p, _ in pairs], [q for _, q in pairs])
        tiles += [Tile(pixels, f"{name}: asked"), Tile(to_pixels(picture), "done")]
        targets = torch.tensor([q for _, q in pairs]) + 0.5
        both = [landmarks(finder, p) for p in (before, picture)]
        far = [
            float((torch.tensor([at[n] for n in names]) - targets).norm(dim=1).mean())
            for at in both
        ]
        rows.append({"edit": name, "points": len(pairs), "before": far[0], "after": far[1],
                     "left": sum(last.left) / len(last.left), "steps": last.index,
                     "stop": last.stop})  # fmt: skip
    file = ROOT / "docs" / "drag-chain.png"
    write_pixels(file, contact_sheet([SheetRow("", tiles[:6]), SheetRow("", tiles[6:])], side=160))
    return chain_table(rows)


def landmarks(finder: LandmarkFinder, picture: Tensor) -> dict[str, tuple[float, float]]:
    """Landmarks by name as (x, y)."""
    found = finder.find(to_tensor(to_pixels(picture)))
    points = [(float(x), float(y)) for x, y in found.points[0]]
    return dict(zip(found.names, points, strict=True))


def wanted(finder: LandmarkFinder, picture: Tensor, move: Move) -> tuple[list[Pair], list[str]]:
    """Handles and targets of an edit, in the drag's pixels, and the landmarks' names."""
    at = landmarks(finder, picture)
    ways = move(at)
    side = picture.shape[-1] - 1.0
    pairs = list[Pair]()
    for name, (right, down) in ways.items():
        x, y = at[name][0] - 0.5, at[name][1] - 0.5
        goal = (min(max(x + right, 0.0), side), min(max(y + down, 0.0), side))
        pairs.append(((x, y), goal))
    return pairs, list(ways)


def chain_table(rows: list[Row]) -> str:
    heads = ("edit", "points", "before", "after", "left", "steps", "stop")
    intro = ["# Four drags in a row of one projected and tuned photo", ""]
    intro += ["Before, after: mean distance of the landmarks found to their targets, pixels of "
              "128. Left: as tracked."]  # fmt: skip
    cells = ([f"{row[k]:.2f}" if isinstance(row[k], float) else row[k] for k in heads]
             for row in rows)  # fmt: skip
    return page(RESULTS / "drag_chain.json", rows, intro, heads, cells)


if __name__ == "__main__":
    main()
