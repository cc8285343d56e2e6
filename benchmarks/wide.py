"""SwapBench wide: subjects that are small in large photos, swapped where they stand.

    scripts/bench wide [--limit N] [--first N] [--sheet FILE]

48 scenes of 640 x 480 to 1600 x 1200 pixels; the subject takes 5 to 40 % of the height. The cases
are those of SwapBench under another camera; six share a learnt toy. Each photo goes through the job
`swap` with its defaults. Measured: identity by the examiner against the right answer, whether every
pixel outside the region is the photo's, and the mean gradient across the border of what changed,
as a multiple of the right answer's at the same places. A pixel that changed differs from the photo
by one level or more, so in a flat background even a border that nobody sees has a multiple above 1;
the difference of the two gradients, in levels of 255, is given, too.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from understudy import toybox
from understudy.concept import Concept
from understudy.evaluate import swapbench, truth
from understudy.jobs.events import Note
from understudy.jobs.pool import Pool
from understudy.jobs.request import Job
from understudy.jobs.runner import run
from understudy.learn import learn
from understudy.models.registry import load
from understudy.pictures import metrics
from understudy.pictures import region as regions
from understudy.pictures.photo import Pixels, read_photo, write_pixels
from understudy.pictures.tensors import to_mask, to_tensor
from understudy.settings import LearnSettings
from understudy.toybox import Scene
from understudy.toybox.render import Rendering
from understudy.vision import examiner
from understudy.vision.recogniser import Recogniser

COUNT, EACH = 48, 6  # cases; cases that share a toy
SIZES = ((480, 640), (600, 800), (640, 640), (720, 1280), (1200, 900), (960, 1280), (1200, 1600))
SHARES = (0.05, 0.40)  # of the photo's height that the subject takes
SIDE = 128  # at which the examiner looks
USUAL = 0.48  # share of the height that a toy takes before the cameras of SwapBench


@dataclass(frozen=True)
class WideCase:
    """A case of SwapBench, its scenes under a camera farther away, the size of the photo."""

    number: int
    case: swapbench.ToyCase
    source: Scene
    right: Scene
    size: tuple[int, int]
    share: float

    @classmethod
    def of(cls, number: int) -> WideCase:
        """Case `number`, 0 to 47."""
        case = swapbench.case(len(swapbench.ORDER) * (number // EACH) + number % EACH)
        random = np.random.default_rng(7_000 + number)
        share = float(np.geomspace(*SHARES, COUNT)[(number * 19) % COUNT])
        size = SIZES[number % len(SIZES)]
        across, down = (float(value) for value in random.uniform(-0.6, 0.6, 2))
        source, right = (
            _farther(scene, share, size, across, down) for scene in (case.source, case.right)
        )
        return cls(number, case, source, right, size, share)


def _farther(
    scene: Scene, share: float, size: tuple[int, int], across: float, down: float
) -> Scene:
    """The scene from so far that the subject takes `share` of the height, and out of the middle.

    Half of the change (in logarithm) is distance, the rest is a wider field of view.
    """
    camera, pose = scene.camera, scene.subjects[0].pose
    distance = camera.distance * (USUAL / share) ** 0.5
    seen = pose.size / share  # units of height that the picture shows at the subject
    field = 2 * np.degrees(np.arctan(seen / 2 / distance))
    free = max(0.0, seen - 1.6 * pose.size) / 2
    return replace(
        scene,
        camera=replace(
            camera,
            distance=distance,
            field=float(field),
            height=camera.height + 0.08 * (distance - camera.distance),
            aim=pose.size / 2 + 0.5 * free * abs(down),
            pan=pose.x + across * free * size[1] / size[0],
        ),
    )


def measured(
    case: WideCase, store: Path, pool: Pool, scorer: Recogniser
) -> tuple[dict[str, object], Pixels]:
    """The scores of a case, and photo, result and right answer side by side, whole and near."""
    drawn, right = toybox.render(case.source, case.size), toybox.render(case.right, case.size)
    concept = learnt(case.case.subject, store)
    with tempfile.TemporaryDirectory() as scratch:
        photo, out = Path(scratch) / "photo.png", Path(scratch) / "out.png"
        write_pixels(photo, drawn.picture)
        job = Job.of(
            "swap",
            prompt=case.case.prompt,
            swap=[f"{case.case.noun}={concept}"],
            photo=photo,
            out=out,
        )
        job = replace(job, settings={"swap": {}, "run": {"model": "toybox"}})
        notes = [event.text for event in run(job, pool) if isinstance(event, Note)]
        result = read_photo(out).pixels
    return scored(case, drawn, right, result, notes, scorer)


def scored(
    case: WideCase,
    drawn: Rendering,
    right: Rendering,
    result: Pixels,
    notes: list[str],
    scorer: Recogniser,
) -> tuple[dict[str, object], Pixels]:
    """Scores of a result, and the pictures of `measured`. notes: of the job; one has the region."""
    box = next((m for n in notes if (m := re.search(r"region (\d+),(\d+),(\d+),(\d+)", n))), None)
    left, top, width, height = map(int, box.groups()) if box else (0, 0, *case.size[::-1])
    inside = np.zeros(case.size, bool)
    inside[top : top + height, left : left + width] = True
    changed = (result != drawn.picture).any(2)
    near = regions.around(
        regions.mask_box(np.maximum(right.masks[0], drawn.masks[0])), case.size, (SIDE, SIDE)
    )
    views = [regions.cut(one, near, (SIDE, SIDE)) for one in (drawn.picture, result, right.picture)]
    grey = (255 * right.masks[0]).astype(np.uint8)[..., None]
    mask = to_mask(regions.cut(grey, near, (SIDE, SIDE))[..., 0])
    seen = [scorer.recognise(to_tensor(view), mask / 255).identity for view in views]
    found, wanted = gradients(result, right.picture, changed)
    scores: dict[str, object] = {
        "size": f"{case.size[1]}x{case.size[0]}",
        "share": round(case.share, 3),
        "identity": round(metrics.identity_score(seen[1], seen[2]).item(), 4),
        "identity, before": round(metrics.identity_score(seen[0], seen[2]).item(), 4),
        "equal outside": bool(
            result.shape == drawn.picture.shape and not (changed & ~inside).any()
        ),
        "changed": round(float(changed.mean()), 4),
        "seam": round(found / max(wanted, 1e-9), 3),
        "seam, levels": round(found - wanted, 3),
        "region": [left, top, width, height],
        "subject": list(regions.mask_box(drawn.masks[0])),
    }
    whole = [_small(one) for one in (drawn.picture, result, right.picture)]
    shown = np.concatenate([_small(view) for view in views] + whole, axis=1)
    return scores, shown


def gradients(result: Pixels, right: Pixels, changed: np.ndarray) -> tuple[float, float]:
    """The mean gradient between neighbours of which one changed, of the result and of the right
    answer; 0 where nothing changed."""
    sums = [0.0, 0.0]
    pairs = 0
    for axis in (0, 1):
        border = np.diff(changed.astype(np.int8), axis=axis) != 0
        pairs += int(border.sum())
        for which, picture in enumerate((result, right)):
            step = np.abs(np.diff(picture.astype(np.int16), axis=axis)).mean(2)
            sums[which] += float(step[border].sum())
    return sums[0] / max(pairs, 1), sums[1] / max(pairs, 1)


def learnt(subject: swapbench.ToySubject, store: Path) -> Path:
    """The folder of a toy's concept, learnt if it is not there."""
    folder = store / subject.name
    if not (folder / "concept.json").exists():
        concept: Concept = learn(
            load("toybox"),
            truth.pictures(subject.photos),
            name=subject.name,
            class_noun=subject.identity.class_name,
            settings=LearnSettings.filled({}, "toybox"),
            cache=store / "classes",
        )
        concept.save(folder)
    return folder


def report(store: Path) -> None:
    """Print the means of all cases that were measured."""
    rows = [json.loads(file.read_text()) for file in sorted(store.glob("*.json"))]
    for name in ("identity", "identity, before", "seam", "seam, levels"):
        values = np.array([row[name] for row in rows])
        print(
            f"{name:17} mean {values.mean():.3f}  least {values.min():.3f}  most {values.max():.3f}"
        )
    print(f"equal outside     {sum(row['equal outside'] for row in rows)} of {len(rows)}")
    print(f"seam <= 1.2       {sum(row['seam'] <= 1.2 for row in rows)} of {len(rows)}")
    level = sum(row["seam, levels"] <= 1 for row in rows)
    print(f"seam <= 1 level   {level} of {len(rows)}")


def _small(pixels: Pixels) -> np.ndarray:
    """At most 256 pixels high, on a tile of 256 x 352."""
    height, width = pixels.shape[:2]
    scale = min(256 / height, 352 / width)
    size = (round(height * scale), round(width * scale))
    shown = regions.cut(pixels, regions.Region(0, 0, width, height), size)
    return np.pad(shown, ((0, 256 - size[0]), (0, 352 - size[1]), (0, 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=COUNT)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("build/measured/wide"))
    parser.add_argument("--sheet", type=Path, help="write photo, result and right answer")
    wish = parser.parse_args()
    pool, scorer = Pool(), examiner.load_scorer()
    for number in range(wish.first, wish.first + wish.limit):
        file = wish.store / f"{number:02d}.json"
        if not file.exists():
            scores, shown = measured(WideCase.of(number), wish.store, pool, scorer)
            write_pixels(file.with_suffix(".png"), shown)
            file.write_text(json.dumps(scores))
        print(number, file.read_text(), flush=True)
    report(wish.store)
    if wish.sheet:
        shown = [read_photo(one).pixels for one in sorted(wish.store.glob("*.png"))]
        write_pixels(wish.sheet, np.concatenate(shown))


if __name__ == "__main__":
    main()
