"""The settings of `evaluate`. Free of torch."""

from __future__ import annotations

import dataclasses

from understudy.settings.knobs import Settings, knob

# DragGAN's Tables 1, 3 and 4, its paired pictures, masks, and W versus W+.
STUDIES = ("table", "features", "radius", "paired", "masks", "spaces")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CasesSettings(Settings):
    """Which cases of SwapBench, and how large."""

    size: str = knob("small", "64 or 512 cases", choices=("small", "full"))
    limit: int = knob(0, "cases at most, from the first; 0 takes all", at_least=0)
    side: int = knob(
        0, "pixels a side of every picture; 0: 128, on photos the model's", at_least=0, at_most=2048
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EyesSettings(Settings):
    """Who looks at pictures for the papers' measures."""

    eyes: str = knob("papers", "CLIP and DINO, or the toys' ruler", choices=("papers", "toys"))
    clip: str = knob("openai/clip-vit-base-patch32", "folder or hub id of CLIP")
    dino: str = knob("facebook/dino-vits16", "folder or hub id of DINO")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwapBenchSettings(CasesSettings, EyesSettings):
    """Swaps compared: SwapBench, whose right answers are known, or a folder of real cases."""

    shard: str = knob("1/1", "which part of the work, like 2/4; rows are the same in any part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamBoothSettings(EyesSettings):
    """The DreamBooth protocol."""

    limit: int = knob(0, "prompts a subject, from the first; 0 takes all", at_least=0)
    shard: str = knob("1/1", "which part of the subjects, like 2/4; rows are the same in any part")

    subjects: int = knob(0, "subjects at most, from the first; 0 takes all", at_least=0)
    pictures: int = knob(4, "pictures a prompt", at_least=1, at_most=64)
    plain_pictures: int = knob(8, "pictures of the bare class for PRES", at_least=2, at_most=1024)
    keep_identifier: bool = knob(False, "the rare word stays in the text that CLIP reads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DragTableSettings(Settings):
    """DragGAN's tables on toy faces."""

    study: str = knob("table", "what is compared", choices=STUDIES)
    pairs: int = knob(20, "pairs of faces, from the first", at_least=1, at_most=100_000)
    points: str = knob("", "how many landmarks are dragged at once, like 1,5,all; else the study's")
    steps: int = knob(300, "most optimiser steps of one drag", at_least=1, at_most=100_000)
    truncation: float = knob(0.7, "how far faces are from the mean", at_least=-2, at_most=2)
    shard: str = knob("1/1", "which part of the pairs, like 2/4; rows are the same in any part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """A study with people, as DreamBooth's: 25 comparisons a rater, three raters each."""

    cases: int = knob(0, "cases at most, drawn by lot; 0 takes all", at_least=0)
    per_sheet: int = knob(25, "comparisons a rater answers", at_least=1, at_most=200)
    raters: int = knob(3, "raters a comparison", at_least=1, at_most=99)
    repeats: int = knob(2, "comparisons a rater is asked again", at_least=0, at_most=50)
    catches: int = knob(2, "questions of known answer a rater", at_least=0, at_most=50)
    seed: int = knob(0, "seed of cases, sides and order", at_least=0)
