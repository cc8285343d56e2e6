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
    limit: int = knob(0, "number of cases, from the first; 0: all", at_least=0)
    side: int = knob(
        0,
        "side of the pictures in pixels; 0: 128 for toys, the model's size for photos",
        at_least=0,
        at_most=2048,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScorerSettings(Settings):
    """The networks that score pictures by the papers' measures."""

    scorer: str = knob(
        "papers",
        "what measures similarity: papers: CLIP and DINO; toys: the built-in network",
        choices=("papers", "toys"),
    )
    clip_model: str = knob("openai/clip-vit-base-patch32", "folder or hub id of CLIP")
    dino_model: str = knob("facebook/dino-vits16", "folder or hub id of DINO")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwapBenchSettings(CasesSettings, ScorerSettings):
    """Swaps compared: SwapBench, whose right answers are known, or a folder of real cases."""

    shard: str = knob("1/1", "part of the work, like 2/4; rows do not depend on the sharding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamBoothSettings(ScorerSettings):
    """The DreamBooth protocol."""

    limit: int = knob(0, "prompts per subject, from the first; 0: all", at_least=0)
    shard: str = knob("1/1", "part of the subjects, like 2/4; rows do not depend on the sharding")

    subjects: int = knob(0, "number of subjects, from the first; 0: all", at_least=0)
    pictures: int = knob(4, "pictures per prompt", at_least=1, at_most=64)
    plain_pictures: int = knob(8, "pictures of the class for PRES", at_least=2, at_most=1024)
    keep_identifier: bool = knob(False, "keep the identifier in the text for CLIP-T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DragTableSettings(Settings):
    """DragGAN's tables on toy faces."""

    study: str = knob("table", "what is compared", choices=STUDIES)
    pairs: int = knob(20, "number of pairs of faces, from the first", at_least=1, at_most=100_000)
    points: str = knob(
        "", "numbers of landmarks to drag at once, like 1,5,all; empty: the study's own"
    )
    steps: int = knob(300, "largest number of optimiser steps", at_least=1, at_most=100_000)
    truncation: float = knob(0.7, "truncation psi of the faces", at_least=-2, at_most=2)
    shard: str = knob("1/1", "part of the pairs, like 2/4; rows do not depend on the sharding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """A study with people, as DreamBooth's: 25 comparisons a rater, three raters each."""

    cases: int = knob(0, "number of cases, drawn at random; 0: all", at_least=0)
    per_sheet: int = knob(25, "comparisons per rater", at_least=1, at_most=200)
    raters: int = knob(3, "raters per comparison", at_least=1, at_most=99)
    repeats: int = knob(2, "repeated comparisons per rater", at_least=0, at_most=50)
    catches: int = knob(
        2, "control questions with a known answer, per rater", at_least=0, at_most=50
    )
    seed: int = knob(0, "seed of cases, sides and order", at_least=0)
