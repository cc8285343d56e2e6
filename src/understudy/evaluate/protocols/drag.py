"""Drags compared: the tables of DragGAN (Pan et al. 2023, arXiv:2305.10973) on toy faces.

Every study (`drag_studies.py`) is a set of methods and the cases they all get. Here cases become
rows, one by one, and are kept; a killed run goes on. What the paper leaves open is chosen in
`DragTableSettings` and written into every report.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from understudy.drag.points import Pair
from understudy.drag.raft import raft_tracker
from understudy.drag.session import drag_steps
from understudy.drag.tracking import Sight, Tracker, Tracks
from understudy.errors import InputError
from understudy.evaluate.results import ResultsFolder, Row, RowJob, RowStep, row_steps, sharded
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.models.registry import device_of
from understudy.pictures.recipe import Recipe, ingredient, versions
from understudy.pictures.tensors import write_picture
from understudy.settings.drag import DragSettings
from understudy.settings.evaluate import DragTableSettings
from understudy.settings.resolve import Value
from understudy.vision.landmarks import LandmarkFinder, Landmarks

VERSION = 1
ALL = "all"  # as a number of points: every landmark that is seen in both faces


@dataclass(frozen=True)
class NoTracker:
    """The ablation "w/o tracking": handles are believed to stay where they were."""

    def track(self, sight: Sight, points: Float[Tensor, "n 2"], radius: int) -> Tracks:
        still = torch.zeros(len(points), device=points.device)
        return Tracks(points, still, still.bool())


@dataclass(frozen=True)
class DragMethod:
    """A line of a table.

    settings: of `DragSettings`; None leaves the picture as it is. our_rate: at the learning rate
    that `best` has with this generator, not the preset's own. masked: with the case's mask.
    """

    says: str
    settings: Mapping[str, Value] | None
    tracker: Tracker | None = None
    our_rate: bool = False
    masked: bool = False


@dataclass(frozen=True, eq=False)
class DragCase:
    """What all methods of a study get, and how the picture they make is scored.

    before: what `latent` draws. mask: 1 where a masked method may change it. score: the edited
    picture, as its file keeps it, to numbers of the row.
    """

    number: int
    latent: Float[Tensor, "1 num_ws w_dim"]
    before: Float[Tensor, "1 3 h w"]
    pairs: list[Pair]
    score: Callable[[Tensor], Row]
    goal: Float[Tensor, "1 3 h w"] | None = None
    mask: Float[Tensor, "1 1 h w"] | None = None


@dataclass(frozen=True)
class Column:
    """A number of the rows in the report. head: with an arrow to the better side."""

    key: str
    head: str


@dataclass(frozen=True)
class DragStudy:
    """A table to be made. points: how many landmarks are dragged where the user does not say.

    case: number and points (a number, or `ALL`) -> what is dragged. fid: of edited pictures to
    those before, too.
    """

    title: str
    says: str
    methods: Mapping[str, DragMethod]
    case: Callable[[World, int, str], DragCase]
    columns: Sequence[Column]
    points: str = ALL
    fid: bool = False


@dataclass(frozen=True, eq=False)
class World:
    """A generator, a finder of landmarks in what it draws, and how faces are drawn by lot."""

    generator: StyleGAN2
    finder: LandmarkFinder
    truncation: float

    def latent(self, seed: int) -> Float[Tensor, "1 num_ws w_dim"]:
        """The face of a seed."""
        return self.generator.latents(self.generator.draw_z(seed), truncation=self.truncation)

    @torch.no_grad()
    def pictures(self, latents: Float[Tensor, "b num_ws w_dim"]) -> Float[Tensor, "b 3 h w"]:
        """As a PNG keeps them."""
        return eight_bit(self.generator.pictures(latents))

    def seen(self, found: Landmarks) -> tuple[int, ...]:
        """Landmarks that are seen, a pixel inside the picture, in all of the pictures."""
        height, width = self.generator.picture_size
        sides = found.points.new_tensor([width, height])
        inside = ((found.points >= 1) & (found.points <= sides - 1)).all(dim=2)
        rows = (inside & (found.visible > 0.5)).all(dim=0)
        return tuple(torch.nonzero(rows)[:, 0].tolist())

    def distance(self, picture: Tensor, rows: list[int], wanted: Float[Tensor, "n 2"]) -> float:
        """Mean distance of these landmarks, as they are found, from where they should be."""
        return float((self.finder.find(picture).points[0, rows] - wanted).norm(dim=1).mean())


def with_raft(study: DragStudy, weights: Path, device: str) -> DragStudy:
    """The study, and the official program whose handles RAFT follows, by weights of the user's.

    Raises ExtraMissing without torchvision, ModelError for weights that are none of RAFT's.
    """
    tracker = raft_tracker(weights, device_of(device))
    mark = ingredient("weights", weights).sha256[:12]
    said = f"official, at our learning rate, handles followed by optical flow (weights {mark})"
    raft = DragMethod(said, {"preset": "official"}, tracker, our_rate=True)
    return replace(study, methods={**study.methods, "raft": raft})


def drawn_by_lot(usable: Sequence[int], count: str, number: int) -> list[int]:
    """Which landmarks are dragged, alike for all methods. InputError where there are too few."""
    wanted = len(usable) if count == ALL else int(count)
    if not usable or len(usable) < wanted:
        raise InputError(f"{len(usable)} landmarks are seen in both faces, not {count}.")
    lot = np.random.default_rng([number, wanted])
    return sorted(lot.permutation(usable)[:wanted].tolist())


def handle_pairs(found: Landmarks, rows: list[int]) -> list[Pair]:
    """From where to where, of the first of two pictures to the second."""
    a, b = (found.points[k, rows] - 0.5 for k in (0, 1))
    return [
        ((float(p[0]), float(p[1])), (float(q[0]), float(q[1]))) for p, q in zip(a, b, strict=True)
    ]


def eight_bit(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """As a PNG keeps them, so that a picture and its file are scored alike."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


# Rows


def evaluation_steps(
    run: ResultsFolder,
    study: DragStudy,
    wish: DragTableSettings,
    generator: StyleGAN2,
    finder: LandmarkFinder,
    methods: Sequence[str],
    *,
    resume: bool = False,
) -> Iterator[RowStep]:
    """Drag each case by each method, a row at a time, into the folder of `run`.

    Raises what `ResultsFolder.begin` raises, InputError for points that are no numbers; a case that
    cannot be made (too few landmarks are seen) is a row with its error.
    """
    counts = [word.strip() for word in (wish.points or study.points).split(",")]
    for word in counts:
        if word != ALL and not (word.isdigit() and int(word) > 0):
            raise InputError(f"--points must be numbers and 'all', like 1,5,all. Got {word!r}.")
    said = conditions(study, wish, generator, methods)
    run.begin({**said, "versions": versions()}, resume=resume)
    rows = _Rows(run, study, wish, World(generator, finder, wish.truncation))
    jobs = [
        rows.job(name, number, count)
        for number in range(wish.pairs)
        for count in counts
        for name in methods
    ]
    return row_steps(run.rows, sharded(jobs, wish.shard, lambda job: job.case.split("-")[0]))


def conditions(
    study: DragStudy, wish: DragTableSettings, generator: StyleGAN2, methods: Sequence[str]
) -> dict[str, Any]:
    """What makes two runs the same measurement."""
    return {
        "bench": {"name": study.title, "version": VERSION},
        "generator": [generator.name, generator.fingerprint],
        "truncation": wish.truncation,
        "methods": {m: _settings(study.methods[m], wish, generator.name) for m in methods},
        **({"raft": study.methods["raft"].says} if "raft" in methods else {}),
    }


def _settings(method: DragMethod, wish: DragTableSettings, model: str) -> dict[str, Any]:
    if method.settings is None:
        return {}
    given = {**method.settings, "steps": wish.steps, "truncation": wish.truncation}
    if method.our_rate:
        given["learning_rate"] = DragSettings.filled({}, model).learning_rate
    return DragSettings.filled(given, model).to_dict()


class _Rows:
    """Makes jobs; keeps the last case, which all methods share."""

    def __init__(
        self, run: ResultsFolder, study: DragStudy, wish: DragTableSettings, world: World
    ) -> None:
        self.run, self.study, self.wish, self.world = run, study, wish, world
        self._last: tuple[tuple[int, str], DragCase] | None = None

    def case(self, number: int, count: str) -> DragCase:
        if self._last is None or self._last[0] != (number, count):
            self._last = (number, count), self.study.case(self.world, number, count)
        return self._last[1]

    def job(self, name: str, number: int, count: str) -> RowJob:
        def make() -> Row:
            case = self.case(number, count)
            edited, facts = self._edited(name, case)
            said = {"method": name, "pair": number, "points": case.pairs, "bench": VERSION}
            files = {"picture": f"{name}/{number:04d}-{count}", "before": f"before/{number:04d}"}
            shown = {"picture": edited, "before": case.before}
            if case.goal is not None:
                files["goal"], shown["goal"] = f"goal/{number:04d}", case.goal
            row: Row = {"pair": number, "count": count, "points": len(case.pairs)}
            row |= case.score(eight_bit(edited)) | facts
            for key, file in files.items():
                row[key] = f"pictures/{file.replace(' ', '_')}.png"
                told = Recipe(command="evaluate drag", arguments=said if key == "picture" else {})
                write_picture(self.run.folder / row[key], shown[key], told.to_text())
            return row

        return RowJob(name, f"{number:04d}-{count}", make)

    def _edited(self, name: str, case: DragCase) -> tuple[Float[Tensor, "1 3 h w"], Row]:
        """What the method makes of the face, and how it went."""
        method, generator = self.study.methods[name], self.world.generator
        settings = _settings(method, self.wish, generator.name)
        if not settings:
            return case.before, {"drag_seconds": 0.0}
        begun = _clock(generator)
        steps = drag_steps(
            generator, case.latent, case.pairs, mask=case.mask if method.masked else None,
            settings=DragSettings.from_dict(settings), tracker=method.tracker,
        )  # fmt: skip
        (last,) = deque(steps, maxlen=1)
        seconds = _clock(generator) - begun
        with torch.no_grad():
            picture = generator.pictures(last.latent)
        left = sum(last.left) / len(last.left)
        facts: Row = {"steps": last.index, "stop": last.stop, "left": left}
        return picture, {**facts, "drag_seconds": round(seconds, 3)}


def _clock(generator: StyleGAN2) -> float:
    """Seconds of the processor, which other work does not lengthen; of the clock on a GPU."""
    return time.process_time() if generator.device.type == "cpu" else time.monotonic()
