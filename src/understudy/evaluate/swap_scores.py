"""Scores of a SwapBench result against the right answer: one number a measure.

The right answer itself scores perfect in each. What the network sees in a picture is compared
with what it sees in the right answer, not with the truth, so that its own errors cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.evaluate.bench import Measure
from understudy.evaluate.copying import paste_score
from understudy.evaluate.swapbench import ToyCase
from understudy.evaluate.truth import Shown, changed, shown
from understudy.pictures import metrics
from understudy.vision.recogniser import Recogniser, Recognition

CEILING = 100.0  # dB: what equal pictures score, because infinity cannot be averaged


MEASURES = (
    Measure("identity", "cosine of identities, result and right answer", True, 0.05, 1.0),
    Measure("identity to photos", "mean cosine with the learnt photos", True, 0.05, math.nan),
    Measure("class", "share of results read as the right answer's class", True, 0.0, 1.0),
    Measure("background, dB", "PSNR outside what may change", True, 1.0, CEILING),
    Measure("region error", "RMS error inside what may change, white is 1", False, 0.01, 0.0),
    Measure("overall", "SSIM to the right answer inside what may change", True, 0.02, 1.0),
    Measure("pose error", "key points' distance as a share of the toy's size", False, 0.02, 0.0),
    Measure("outline", "overlap (IoU) of the subjects' outlines", True, 0.02, 1.0),
    Measure("copying", "how much nearer to a photo than the right answer", False, 0.05, 0.0),
)
COPIED = 0.15  # a mean `copying` over this is called out in the report
CHOICES = {
    "background ceiling, dB": CEILING,
    "copying": "best normalised correlation with a photo's subject, less the right answer's own",
    "copied from": COPIED,
}


@dataclass(frozen=True)
class Answers:
    """What a result of one case is compared with; rendered and read once a case."""

    case: ToyCase
    source: Shown
    right: Shown
    changed: Float[Tensor, "1 1 h w"]
    photos: Float[Tensor, "n 3 h w"]
    photo_masks: Float[Tensor, "n 1 h w"]
    photo_identity: Float[Tensor, "n d"]
    seen: Recognition  # in the right answer
    honest: float  # the right answer's own likeness to a photo

    @classmethod
    def of(cls, case: ToyCase, recogniser: Recogniser, side: int) -> Answers:
        right, shots = shown(case.right, side), [shown(p, side) for p in case.subject.photos]
        photos = torch.cat([shot.picture for shot in shots])
        masks = torch.cat([shot.mask for shot in shots])
        return cls(
            case=case,
            source=shown(case.source, side),
            right=right,
            changed=changed(case.source, case.right, side),
            photos=photos,
            photo_masks=masks,
            photo_identity=recogniser.identity(photos, masks),
            seen=recogniser.recognise(right.picture, right.mask),
            honest=paste_score(right.picture, photos, masks),
        )


def score(
    picture: Float[Tensor, "1 3 h w"], answers: Answers, recogniser: Recogniser
) -> dict[str, float]:
    """Every measure of MEASURES for one result; NaN where there is nothing to compare."""
    right, changed = answers.right, answers.changed
    seen, truth = recogniser.recognise(picture, right.mask), answers.seen
    shared = right.visible & seen.confident() & truth.confident()
    background = metrics.psnr(picture, right.picture, 1 - changed)
    points = (seen.points, truth.points, shared, metrics.subject_size(right.mask))
    copied = paste_score(picture, answers.photos, answers.photo_masks)
    found = {
        "identity": metrics.identity_score(seen.identity, truth.identity),
        "identity to photos": metrics.subject_fidelity(seen.identity, answers.photo_identity),
        "class": torch.tensor(float(seen.best("class") == truth.best("class"))),
        "background, dB": background.clamp(max=CEILING),
        "region error": metrics.region_error(picture, right.picture, changed),
        "overall": metrics.ssim(picture, right.picture, changed),
        "pose error": metrics.pose_error(*points),
        "outline": metrics.overlap(seen.mask, truth.mask),
        "copying": max(copied - answers.honest, 0.0),
    }
    return {name: float(value) for name, value in found.items()}
