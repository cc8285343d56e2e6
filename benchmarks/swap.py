"""Photoswap against the right answer, beside two controls that any swap must beat.

No swap: the source replayed, as DDIM inverts it. Plain generation: the target prompt drawn by the
model that wears the concept, knowing nothing of the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks import cases
from benchmarks.dreambooth import learnt
from benchmarks.inversion import ddim_replay
from benchmarks.rows import Row
from understudy.concept import worn
from understudy.evaluate import metrics
from understudy.evaluate.recogniser import Recogniser
from understudy.generate import generate
from understudy.image import to_pixels
from understudy.invert.invert import invert
from understudy.models.interface import DiffusionModel
from understudy.settings import GenerateSettings, InvertSettings, LearnSettings, SwapSettings
from understudy.sheet import Row as SheetRow
from understudy.sheet import Tile, contact_sheet
from understudy.swap.photoswap import swap

KINDS = ("swap", "no swap", "plain generation", "right answer")
MEASURES = ("identity to right answer", "identity to photos", "background, dB", "pose error")
COLUMNS = tuple(f"{measure}: {kind}" for measure in MEASURES for kind in KINDS) + (
    "background, dB: ceiling",
    "class right: swap",
    "SSIM to right answer: swap",
)


@dataclass(frozen=True)
class Settings:
    """What every case is made with."""

    learn: LearnSettings
    invert: InvertSettings
    swap: SwapSettings


def case(
    model: DiffusionModel, ruler: Recogniser, number: int, settings: Settings, store: Path,
    sheets: Path,
) -> Row:  # fmt: skip
    """Measure swap case `number` and save its pictures for the contact sheet."""
    wanted = cases.swap(number)
    source, right = cases.shown(wanted.source), cases.shown(wanted.right)
    photos = cases.pictures(wanted.subject.photos)
    made = performed(model, wanted, source.picture, settings, store)
    made["right answer"] = right.picture
    row: Row = {"swap": wanted.name, "prompt": wanted.prompt}
    real = ruler.identity(photos)
    truth = ruler.identity(right.picture, right.mask)
    size = metrics.subject_size(right.mask)
    for kind, picture in made.items():
        seen = ruler.recognise(picture)
        shared = right.visible & seen.confident()
        row |= {
            f"identity to right answer: {kind}": metrics.identity_score(
                seen.identity, truth
            ).item(),
            f"identity to photos: {kind}": metrics.subject_fidelity(seen.identity, real).item(),
            f"background, dB: {kind}": metrics.background_psnr(
                picture, source.picture, wanted.changed
            ).item(),
            f"pose error: {kind}": metrics.pose_error(
                seen.points, right.points, shared, size
            ).item(),
            f"class seen: {kind}": seen.best("class")[0],
        }
    rebuilt = model.decode(model.encode(source.picture))
    ceiling = metrics.background_psnr(rebuilt, source.picture, wanted.changed)
    row["background, dB: ceiling"] = ceiling.item()
    noun = wanted.subject.identity.class_name
    row["class right: swap"] = float(row["class seen: swap"] == noun)
    row["SSIM to right answer: swap"] = metrics.ssim(made["swap"], right.picture).item()
    keep(sheets / f"{number:02d}.pt", {"source": source.picture, "photo": photos[:1], **made})
    return row


@torch.no_grad()
def performed(
    model: DiffusionModel, wanted: cases.Swap, source: Float[Tensor, "1 3 h w"],
    settings: Settings, store: Path,
) -> dict[str, Float[Tensor, "1 3 h w"]]:  # fmt: skip
    """The swap and the two controls."""
    concept = learnt(model, wanted.subject, settings.learn, store)
    old = wanted.source.subjects[0].identity.class_name
    target = wanted.prompt.replace(f" {old}", f" {concept.phrase}", 1)
    steps, guidance = settings.invert.steps, settings.invert.guidance
    drawing = GenerateSettings(steps=steps, guidance=guidance)
    with worn(model, concept):
        inversion = invert(model, source, wanted.prompt, settings.invert, cache=store / "inverted")
        swapped = swap(model, inversion, wanted.prompt, target, settings.swap)
        plain = generate(model, [target], [0], drawing)
    latents = model.encode(source)
    replayed = ddim_replay(model, latents, wanted.prompt, steps, guidance)
    return {"swap": swapped, "no swap": model.decode(replayed), "plain generation": plain}


def keep(path: Path, made: dict[str, Float[Tensor, "1 3 h w"]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({kind: torch.from_numpy(to_pixels(p).copy()) for kind, p in made.items()}, path)


def sheet(sheets: Path, rows: list[Row]) -> torch.Tensor:
    """All kept cases, one row each, with the swap's scores under its picture."""
    order = ("photo", "source", "swap", "right answer", "no swap", "plain generation")
    lines: list[SheetRow] = []
    for row in rows:
        kept = torch.load(sheets / f"{int(row['case']):02d}.pt", weights_only=True)
        tiles = [Tile(kept[kind].numpy(), f"{kind}{scores(row, kind)}") for kind in order]
        lines.append(SheetRow(str(row["swap"]), tiles))
    return torch.from_numpy(contact_sheet(lines, side=160).copy())


def scores(row: Row, kind: str) -> str:
    if kind not in KINDS:
        return ""
    identity, pose = (row[f"{m}: {kind}"] for m in ("identity to right answer", "pose error"))
    return f"  id {identity:.2f} pose {pose:.2f} bg {row[f'background, dB: {kind}']:.1f}"
