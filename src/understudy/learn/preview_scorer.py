"""Scorers of previews (see `learn.preview`)."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.learn.preview import PreviewPictures, PreviewScores
from understudy.pictures import metrics
from understudy.vision.features import Features, Reader

CLIP_SCALE = 2.5  # of CLIPScore (Hessel et al. 2021, eq. 1): brings its cosines to about [0, 1]


@dataclass(frozen=True)
class FeaturePreviewScorer:
    """Identity and drift as mean cosines with the photos, prompts by how well they are followed.

    scale: what the reader's agreement is multiplied by, so that 1 is about as good as it gets.
    """

    subject: Features
    prompt: Reader
    scale: float = 1.0

    def __call__(self, seen: PreviewPictures) -> PreviewScores:
        # Features of the photos are the same in every preview, but cheap beside drawing the
        # pictures.
        photos = self.subject.of(seen.photos)
        agreement = self.prompt.agreement(seen.subject, seen.prompts).nanmean().item()
        return PreviewScores(
            identity=metrics.subject_fidelity(self.subject.of(seen.subject), photos).item(),
            prompt=self.scale * (0.0 if agreement < 0 else agreement),  # NaN stays NaN
            copy=metrics.copy_score(seen.subject, seen.photos.to(seen.subject)).max().item(),
            drift=metrics.class_drift(self.subject.of(seen.plain), photos).item(),
        )
