"""DragGAN's Table 1 on toy faces: the landmarks of one face dragged to those of another.

Pan et al. 2023, arXiv:2305.10973, section 4.2. The built-in landmark finder stands where dlib's
model stands; what the paper leaves open is chosen in `DragTableSettings` and written into every
report. Rows are made one by one and kept; a killed run goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from understudy.drag.points import Pair
from understudy.drag.session import drag_steps
from understudy.drag.tracking import Sight, Tracker, Tracks
from understudy.errors import InputError
from understudy.evaluate.gan_scores import trunk_features
from understudy.evaluate.landmarks import LandmarkFinder, Landmarks
from understudy.evaluate.metrics import frechet_distance
from understudy.evaluate.recogniser import Recogniser
from understudy.evaluate.report import Report, Sheet, Table, whiskers, written
from understudy.evaluate.rows import Job, Row, RowStep, Run, latest, read_rows, row_steps, sharded
from understudy.evaluate.statistics import Estimate, estimate
from understudy.image import to_tensor, write_picture
from understudy.models.stylegan2 import StyleGAN2
from understudy.photo import read_photo
from understudy.recipe import Recipe, versions
from understudy.settings_drag import DragSettings
from understudy.settings_evaluate import DragTableSettings
from understudy.sheet import Row as SheetRow
from understudy.sheet import Tile

NAME, VERSION = "face landmarks", 1
ALL = "all"  # as a number of points: every landmark that is seen in both faces


@dataclass(frozen=True)
class NoTracker:
    """The ablation "w/o tracking": handles are believed to stay where they were."""

    def track(self, sight: Sight, points: Float[Tensor, "n 2"], radius: int) -> Tracks:
        still = torch.zeros(len(points), device=points.device)
        return Tracks(points, still, still.bool())


@dataclass(frozen=True)
class Method:
    """A line of the table. preset: of `DragSettings`; None leaves the picture as it is."""

    says: str
    preset: str | None
    tracker: Tracker | None = None


METHODS: dict[str, Method] = {
    "no-edit": Method("the first face as it is", None),
    "no-tracking": Method("official, but handles are never followed", "official", NoTracker()),
    "paper": Method("the paper's text", "paper"),
    "official": Method("the authors' program", "official"),
    "best": Method("our defaults", "best"),
}


@dataclass(frozen=True, eq=False)
class Faces:
    """Two faces of a pair: the first's latent, both pictures' landmarks, and which may be used."""

    number: int
    latent: Float[Tensor, "1 num_ws w_dim"]
    picture: Float[Tensor, "1 3 h w"]
    landmarks: Landmarks
    usable: tuple[int, ...]

    def pairs(self, count: str) -> tuple[list[int], list[Pair]]:
        """Which landmarks are dragged, and from where to where; drawn by lot, alike for all
        methods. InputError where too few are seen in both faces."""
        wanted = len(self.usable) if count == ALL else int(count)
        if not self.usable or len(self.usable) < wanted:
            raise InputError(f"{len(self.usable)} landmarks are seen in both faces, not {count}.")
        lot = np.random.default_rng([self.number, wanted])
        rows = sorted(lot.permutation(self.usable)[:wanted].tolist())
        a, b = (self.landmarks.points[k, rows] - 0.5 for k in (0, 1))
        return rows, [
            ((float(p[0]), float(p[1])), (float(q[0]), float(q[1])))
            for p, q in zip(a, b, strict=True)
        ]


def evaluation_steps(
    run: Run,
    wish: DragTableSettings,
    generator: StyleGAN2,
    finder: LandmarkFinder,
    methods: Sequence[str],
    *,
    resume: bool = False,
) -> Iterator[RowStep]:
    """Drag each pair of faces by each method, a row at a time, into the folder of `run`.

    Raises what `Run.begin` raises; a pair without enough landmarks is a row with its error.
    """
    run.begin({**conditions(wish, generator, methods), "versions": versions()}, resume=resume)
    rows = _Rows(run, wish, generator, finder)
    counts = [word.strip() for word in wish.points.split(",")]
    for word in counts:
        if word != ALL and not (word.isdigit() and int(word) > 0):
            raise InputError(f"--points must be numbers and 'all', like 1,5,all. Got {word!r}.")
    jobs = [
        rows.job(name, number, count)
        for number in range(wish.pairs)
        for count in counts
        for name in methods
    ]
    return row_steps(run.rows, sharded(jobs, wish.shard, lambda job: job.case.split("-")[0]))


def conditions(
    wish: DragTableSettings, generator: StyleGAN2, methods: Sequence[str]
) -> dict[str, Any]:
    """What makes two runs the same measurement."""
    return {
        "bench": {"name": NAME, "version": VERSION},
        "generator": [generator.name, generator.fingerprint],
        "truncation": wish.truncation,
        "methods": {name: _settings(name, wish, generator.name) for name in methods},
    }


def _settings(name: str, wish: DragTableSettings, model: str) -> dict[str, Any]:
    preset = METHODS[name].preset
    if preset is None:
        return {}
    given = {"preset": preset, "steps": wish.steps, "truncation": wish.truncation}
    return DragSettings.filled(given, model).to_dict()


class _Rows:
    """Makes jobs; keeps the last pair of faces, which all methods share."""

    def __init__(
        self, run: Run, wish: DragTableSettings, generator: StyleGAN2, finder: LandmarkFinder
    ) -> None:
        self.run, self.wish, self.generator, self.finder = run, wish, generator, finder
        self._last: Faces | None = None

    def faces(self, number: int) -> Faces:
        """Pair `number`: the faces of seeds 2 n and 2 n + 1."""
        if self._last is None or self._last.number != number:
            z = torch.cat([self.generator.draw_z(2 * number + k) for k in (0, 1)])
            ws = self.generator.latents(z, truncation=self.wish.truncation)
            pictures = eight_bit(self.generator.pictures(ws))
            found, side = self.finder.find(pictures), pictures.shape[-1]
            inside = ((found.points >= 1) & (found.points <= side - 1)).all(dim=2)
            seen = (inside & (found.visible > 0.5)).all(dim=0)
            rows = tuple(torch.nonzero(seen)[:, 0].tolist())
            self._last = Faces(number, ws[:1], pictures[:1], found, rows)
        return self._last

    def job(self, name: str, number: int, count: str) -> Job:
        def make() -> Row:
            faces = self.faces(number)
            rows, pairs = faces.pairs(count)
            before = self.run.folder / "pictures" / "before" / f"{number:04d}.png"
            if not before.exists():
                write_picture(before, faces.picture, Recipe(command="evaluate drag").to_text())
            edited, facts = self._edited(name, faces, pairs)
            file = self.run.folder / "pictures" / name / f"{number:04d}-{count}.png"
            said = {"method": name, "pair": number, "points": pairs, "bench": VERSION}
            write_picture(file, edited, Recipe(command="evaluate drag", arguments=said).to_text())
            found = self.finder.find(eight_bit(edited)).points[0, rows]
            wanted = faces.landmarks.points[1, rows]
            return {
                "pair": number, "count": count, "points": len(rows),
                "distance": float((found - wanted).norm(dim=1).mean()), **facts,
                "picture": str(file.relative_to(self.run.folder)),
                "before": str(before.relative_to(self.run.folder)),
            }  # fmt: skip

        return Job(name, f"{number:04d}-{count}", make)

    def _edited(
        self, name: str, faces: Faces, pairs: list[Pair]
    ) -> tuple[Float[Tensor, "1 3 h w"], Row]:
        """What the method makes of the first face, and how it went."""
        settings = _settings(name, self.wish, self.generator.name)
        if not settings:
            return faces.picture, {"drag_seconds": 0.0}
        begun = time.monotonic()
        steps = drag_steps(
            self.generator, faces.latent, pairs, settings=DragSettings.from_dict(settings),
            tracker=METHODS[name].tracker,
        )  # fmt: skip
        (last,) = deque(steps, maxlen=1)
        seconds = time.monotonic() - begun
        with torch.no_grad():
            picture = self.generator.pictures(last.latent)
        left = sum(last.left) / len(last.left)
        facts: Row = {"steps": last.index, "stop": last.stop, "left": left}
        return picture, {**facts, "drag_seconds": round(seconds, 3)}


def eight_bit(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """As a PNG keeps them, so that a picture and its file are judged alike."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


# Summed up


By = Mapping[str, Mapping[str, Row]]  # method -> case -> row


def summed(run: Run, ruler: Recogniser) -> Report:
    """The table, a line a method, of all rows so far: distance, FID, seconds."""
    said, rows = run.read(), list(latest(read_rows(run.rows)).values())
    if said.get("bench") != {"name": NAME, "version": VERSION}:
        raise InputError(f"{run.folder} holds results of {said.get('bench')}, not of {NAME!r}.")
    good = [row for row in rows if "error" not in row]
    by = {name: {r["case"]: r for r in good if r["method"] == name} for name in said["methods"]}
    by = {name: found for name, found in by.items() if found}
    counts = list(dict.fromkeys(row["count"] for row in good))
    undetected = sorted({r["case"] for r in rows if "error" in r})
    pairs = len({row["pair"] for row in good})
    return Report(
        title=f"Table 1 of DragGAN on toy faces, {pairs} pairs",
        intro="Mean distance of the landmarks found afterwards to their targets, in pixels, with "
        "bootstrap 95 % intervals over pairs; FID of edited pictures to those before, in "
        f"recogniser features, at equal numbers only; seconds a drag. Left out: {len(undetected)}.",
        tables=[_table(run, ruler, by, count) for count in counts],
        plots=[
            whiskers(f"distance, {count} points", "lower is better", _distances(by, count))
            for count in counts
        ],
        sheets=[_sheet(run, by, count) for count in counts],
        warnings=[f"{r['method']} {r['case']}: {r['error']}" for r in rows if "error" in r],
        conditions=said,
        rows=good,
    )


def _of(rows: Mapping[str, Row], count: str) -> list[Row]:
    return [row for row in rows.values() if row["count"] == count]


def _distances(by: By, count: str) -> dict[str, Estimate]:
    return {name: estimate([r["distance"] for r in _of(rows, count)]) for name, rows in by.items()}


def _table(run: Run, ruler: Recogniser, by: By, count: str) -> Table:
    distances = _distances(by, count)
    lines = [
        [
            name,
            written(distances[name]),
            f"{_fid(run, ruler, found):.3f}" if len(found) > 1 else "-",
            written(estimate([float(r["drag_seconds"]) for r in found])),
            written(estimate([float(r.get("steps", 0)) for r in found])),
            f"{sum(r.get('stop') == 'reached' for r in found)} of {len(found)}",
        ]
        for name, rows in by.items()
        if (found := _of(rows, count))
    ]
    heads = ["", "distance ↓", "FID ↓", "seconds ↓", "steps ↓", "reached ↑"]
    return Table(f"{count} point{'' if count == '1' else 's'}", heads, lines)


def _fid(run: Run, ruler: Recogniser, rows: Sequence[Row]) -> float:
    ours, theirs = (
        trunk_features(ruler, (to_tensor(read_photo(run.folder / r[k]).pixels) for r in rows))
        for k in ("picture", "before")
    )
    return frechet_distance(ours, theirs)


def _sheet(run: Run, by: By, count: str) -> Sheet:
    """The first pairs, every method beside the other."""
    cases = list(dict.fromkeys(r["case"] for rows in by.values() for r in _of(rows, count)))[:6]
    lines = list[SheetRow]()
    for case in cases:
        found = {name: rows[case] for name, rows in by.items() if case in rows}
        tiles = [
            Tile(read_photo(run.folder / next(iter(found.values()))["before"]).pixels, "before")
        ]
        tiles += [
            Tile(read_photo(run.folder / r["picture"]).pixels, f"{name} {r['distance']:.1f} px")
            for name, r in found.items()
            if name != "no-edit"
        ]
        lines.append(SheetRow(case, tiles))
    return Sheet(f"{count} points: the first pairs", lines)
