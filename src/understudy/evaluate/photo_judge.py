"""Who scores the previews of learning from photographs: DINO and CLIP (see `learn.preview`)."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.evaluate import metrics
from understudy.evaluate.features import Features, Reader
from understudy.learn.preview import Seen, Verdict

WEIGHT = 2.5  # of CLIPScore (Hessel et al. 2021, eq. 1): brings its cosines to about [0, 1]


@dataclass(frozen=True)
class PhotoJudge:
    """Identity and drift as mean cosines with the photos, prompts by CLIPScore."""

    subject: Features
    prompt: Reader

    def __call__(self, seen: Seen) -> Verdict:
        photos = self.subject.of(seen.photos)
        agreement = self.prompt.agreement(seen.subject, seen.prompts).mean().item()
        return Verdict(
            identity=metrics.subject_fidelity(self.subject.of(seen.subject), photos).item(),
            prompt=WEIGHT * max(agreement, 0.0),
            copy=metrics.copy_score(seen.subject, seen.photos.to(seen.subject)).max().item(),
            drift=metrics.class_drift(self.subject.of(seen.plain), photos).item(),
        )
