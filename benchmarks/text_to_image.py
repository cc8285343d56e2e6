"""Does a generated picture show what its caption says? The scoring network answers, for ten at a
time, and for true renders of the same scenes beside them."""

from __future__ import annotations

import torch

from benchmarks import cases
from benchmarks.rows import Row
from understudy.evaluate.truth import pictures
from understudy.generate import generate
from understudy.models.interface import DiffusionModel
from understudy.settings import GenerateSettings
from understudy.vision.recogniser import Recogniser

HEADS = {"class": "class", "primary": "main colour", "background": "background"}
COLUMNS = (
    *HEADS.values(),
    "all three",
    *(f"{name}, true renders" for name in (*HEADS.values(), "all three")),
)
BATCH = 10


def agreement(
    model: DiffusionModel, recogniser: Recogniser, batch: int, settings: GenerateSettings
) -> Row:
    """Shares right over the captions 10 * batch to 10 * batch + 9."""
    numbers = range(BATCH * batch, BATCH * batch + BATCH)
    scenes = [cases.scene(n) for n in numbers]
    captions = [cases.telling_caption(scene, n) for scene, n in zip(scenes, numbers, strict=True)]
    drawn = generate(model, captions, [cases.FIRST_SEED + n for n in numbers], settings)
    row: Row = {"captions": "; ".join(captions)}
    for ending, looked_at in (("", drawn), (", true renders", pictures(scenes))):
        seen = recogniser.recognise(looked_at)
        all_right = torch.ones(BATCH, dtype=torch.bool)
        for head, column in HEADS.items():
            truth = [said(scene, head) for scene in scenes]
            right = [a == b for a, b in zip(seen.best(head), truth, strict=True)]
            all_right &= torch.tensor(right)
            row[column + ending] = sum(right) / BATCH
            row[f"{head} seen{ending}"] = "; ".join(seen.best(head))
        row[f"all three{ending}"] = all_right.float().mean().item()
    return row


def said(scene: cases.Scene, head: str) -> str:
    toy = scene.subjects[0].identity
    return {"class": toy.class_name, "primary": toy.primary, "background": scene.background.kind}[
        head
    ]
