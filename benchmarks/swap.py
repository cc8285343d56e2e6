"""Swaps against the right answer, by several methods, beside controls that any swap must beat.

No swap: the source replayed, as DDIM inverts it. Plain generation: the target prompt drawn by the
model that wears the concept, knowing nothing of the source. The others are presets of Photoswap,
and the editing methods that its paper compares with, wearing the same concept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks import cases
from benchmarks.dreambooth import learnt
from benchmarks.inversion import ddim_replay
from benchmarks.rows import Row
from understudy.concept import Concept, worn
from understudy.edit.edit import WordEdits, edit
from understudy.evaluate import metrics, truth
from understudy.evaluate.recogniser import Recogniser
from understudy.evaluate.swap_judge import ToyJudge
from understudy.generate import generate
from understudy.image import to_pixels
from understudy.invert.inversion import Inversion
from understudy.invert.invert import invert
from understudy.invert.source import SourceFeatures
from understudy.models.interface import DiffusionModel
from understudy.settings import (
    EditSettings,
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    SwapSettings,
)
from understudy.sheet import Row as SheetRow
from understudy.sheet import Tile, contact_sheet
from understudy.swap.audition import Audition
from understudy.swap.photoswap import swap_steps
from understudy.swap.roles import Role, cast

MEASURES = (
    "identity to right answer",
    "identity to photos",
    "background, dB",
    "pose error",
    "SSIM to right answer",
    "distance to right answer",
    "class right",
    "rows",
)
CEILING = "background, dB: autoencoder alone"
# Whose pairwise wins are counted: the measure, the sign that is better, what counts as a tie.
CONTESTS = {
    "subject": ("identity to right answer", 1, 0.02),
    "background": ("background, dB", 1, 0.5),
    "overall": ("distance to right answer", -1, 0.005),
}


@dataclass(frozen=True)
class Settings:
    """What every case is made with; swap is overridden by each preset's own numbers."""

    learn: LearnSettings
    invert: InvertSettings
    swap: SwapSettings


@dataclass(frozen=True)
class Scene:
    """One case, ready to be swapped: what every method is given."""

    model: DiffusionModel
    ruler: Recogniser
    case: cases.Swap
    concept: Concept
    source: Float[Tensor, "1 3 h w"]
    photos: Float[Tensor, "n 3 h w"]
    target: str
    roles: tuple[Role, ...]
    settings: Settings
    store: Path

    def inverted(self, **other: Any) -> Inversion:
        """The source inverted, the concept worn; made once for all methods."""
        asked = replace(self.settings.invert, **other)
        cache = self.store / "inverted"
        return invert(self.model, self.source, self.case.prompt, asked, cache=cache)


def preset(name: str) -> Callable[[Scene], Float[Tensor, "1 3 h w"]]:
    """Photoswap by one of its presets."""

    def swapped(scene: Scene) -> Tensor:
        asked = scene.settings.swap
        own = {"preset": name, "steps": asked.steps, "guidance": asked.guidance}
        settings = SwapSettings.filled(own, scene.model.name)
        judge = ToyJudge(scene.ruler)
        audition = Audition(judge, judge.identity(scene.photos), scene.source)
        *_, last = swap_steps(
            scene.model, scene.inverted(), scene.case.prompt, scene.target, settings,
            words=scene.roles, features=SourceFeatures(), audition=audition,
        )  # fmt: skip
        return scene.model.decode(last.target)

    return swapped


def edited(method: str) -> Callable[[Scene], Float[Tensor, "1 3 h w"]]:
    """Prompt-to-prompt or plug-and-play with the concept worn, as their authors set them."""

    def made(scene: Scene) -> Tensor:
        asked = scene.settings.swap
        own = {"method": method, "steps": asked.steps, "guidance": asked.guidance}
        settings = EditSettings.filled(own, scene.model.name)
        role = scene.roles[0]
        words = WordEdits(blend=(role.word, str(role.actor))) if method == "p2p" else None
        inversion = scene.inverted(**({} if method == "p2p" else {"method": "ddim"}))
        return edit(scene.model, inversion, scene.case.prompt, scene.target, settings, words=words)

    return made


def plain_generation(scene: Scene) -> Float[Tensor, "1 3 h w"]:
    """The target prompt drawn from seed 0."""
    how = scene.settings.invert
    drawing = GenerateSettings.filled({"steps": how.steps}, scene.model.name)
    return generate(scene.model, [scene.target], [0], drawing)


def no_swap(scene: Scene) -> Float[Tensor, "1 3 h w"]:
    """The source as plain DDIM inversion brings it back."""
    how = scene.settings.invert
    latents = scene.model.encode(scene.source)
    replayed = ddim_replay(scene.model, latents, scene.case.prompt, how.steps, how.guidance)
    return scene.model.decode(replayed)


METHODS: dict[str, Callable[[Scene], Float[Tensor, "1 3 h w"]]] = {
    "paper": preset("paper"),
    "official": preset("official"),
    "best": preset("best"),
    "p2p": edited("p2p"),
    "pnp": edited("pnp"),
    "plain generation": plain_generation,
    "no swap": no_swap,
}


def columns(methods: Sequence[str]) -> tuple[str, ...]:
    """The columns of a table of these methods."""
    shown = (*methods, "right answer")
    return (*(f"{measure}: {kind}" for measure in MEASURES for kind in shown), CEILING)


@torch.no_grad()
def case(
    model: DiffusionModel, ruler: Recogniser, number: int, settings: Settings, store: Path,
    sheets: Path, methods: Sequence[str],
) -> Row:  # fmt: skip
    """Measure swap case `number` by each method and save its pictures for the contact sheet."""
    wanted = cases.swap(number)
    source, right = truth.shown(wanted.source), truth.shown(wanted.right)
    concept = learnt(model, wanted.subject, settings.learn, store)
    roles = (
        Role(wanted.source.subjects[0].identity.class_name, concept.phrase, wanted.occurrence),
    )
    photos = truth.pictures(wanted.subject.photos)
    target = cast(wanted.prompt, roles)
    scene = Scene(
        model, ruler, wanted, concept, source.picture, photos, target, roles, settings, store
    )
    made, row = {}, {"swap": wanted.name, "kind": wanted.kind, "prompt": wanted.prompt}
    with worn(model, concept):
        for name in methods:
            before, started = model.rows, time.monotonic()
            made[name] = METHODS[name](scene)
            row |= {f"rows: {name}": float(model.rows - before)}
            row |= {f"seconds: {name}": round(time.monotonic() - started, 2)}
    made["right answer"] = right.picture
    for kind, picture in made.items():
        row |= {f"{m}: {kind}": v for m, v in looked_at(picture, scene, source, right).items()}
    rebuilt = model.decode(model.encode(source.picture))
    row[CEILING] = metrics.background_psnr(rebuilt, source.picture, wanted.changed).item()
    keep(sheets / f"{number:02d}.pt", {"source": source.picture, "photo": photos[:1], **made})
    return row


def looked_at(
    picture: Float[Tensor, "1 3 h w"], scene: Scene, source: truth.Shown, right: truth.Shown
) -> dict[str, float]:
    """One picture's measures; the recogniser is told which toy is meant."""
    ruler, wanted = scene.ruler, scene.case
    seen = ruler.recognise(picture, right.mask)
    real = ruler.identity(right.picture, right.mask)
    shared, size = right.visible & seen.confident(), metrics.subject_size(right.mask)
    within = metrics.psnr(picture, right.picture)
    return {
        "identity to right answer": metrics.identity_score(seen.identity, real).item(),
        "identity to photos": metrics.subject_fidelity(
            seen.identity, ruler.identity(scene.photos)
        ).item(),
        "background, dB": metrics.background_psnr(picture, source.picture, wanted.changed).item(),
        "pose error": metrics.pose_error(seen.points, right.points, shared, size).item(),
        "SSIM to right answer": metrics.ssim(picture, right.picture).item(),
        # Root mean square difference of colours in [0, 1].
        "distance to right answer": 10 ** (-within.item() / 20),
        "class right": float(seen.best("class")[0] == wanted.subject.identity.class_name),
    }


def contests(rows: Sequence[Row], ours: str, theirs: str) -> dict[str, dict[str, float]]:
    """How often ours wins, ties and loses against theirs, as shares of the cases."""
    found: dict[str, dict[str, float]] = {}
    for name, (measure, sign, margin) in CONTESTS.items():
        gains = [sign * (row[f"{measure}: {ours}"] - row[f"{measure}: {theirs}"]) for row in rows]
        found[name] = {
            "win": sum(gain > margin for gain in gains) / len(gains),
            "tie": sum(abs(gain) <= margin for gain in gains) / len(gains),
            "lose": sum(gain < -margin for gain in gains) / len(gains),
        }
    return found


def keep(path: Path, made: dict[str, Float[Tensor, "1 3 h w"]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({kind: torch.from_numpy(to_pixels(p).copy()) for kind, p in made.items()}, path)


def sheet(sheets: Path, rows: list[Row], methods: Sequence[str]) -> torch.Tensor:
    """All kept cases, one row each, with each picture's scores under it."""
    order = ("photo", "source", *methods, "right answer")
    lines: list[SheetRow] = []
    for row in rows:
        kept = torch.load(sheets / f"{int(row['case']):02d}.pt", weights_only=True)
        tiles = [Tile(kept[kind].numpy(), f"{kind}{scores(row, kind)}") for kind in order]
        lines.append(SheetRow(str(row["swap"]), tiles))
    return torch.from_numpy(contact_sheet(lines, side=160).copy())


def scores(row: Row, kind: str) -> str:
    if f"pose error: {kind}" not in row:
        return ""
    identity, pose = (row[f"{m}: {kind}"] for m in ("identity to right answer", "pose error"))
    return f"  id {identity:.2f} pose {pose:.2f} bg {row[f'background, dB: {kind}']:.1f}"
