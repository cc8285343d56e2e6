"""Who scores the previews of learning in the toy world: its recogniser (see `learn.preview`)."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.evaluate import metrics
from understudy.evaluate.recogniser import Recogniser, Recognition
from understudy.learn.preview import Seen, Verdict
from understudy.toybox import BACKGROUNDS


@dataclass(frozen=True)
class RecogniserJudge:
    """Scores by the recogniser: identity by its embedding, prompts by what it names."""

    ruler: Recogniser

    def __call__(self, seen: Seen) -> Verdict:
        ours = self.ruler.recognise(seen.subject)
        photos, plain = self.ruler.identity(seen.photos), self.ruler.identity(seen.plain)
        return Verdict(
            identity=metrics.subject_fidelity(ours.identity, photos).item(),
            prompt=prompt_score(ours, seen.prompts),
            copy=metrics.copy_score(seen.subject, seen.photos.to(seen.subject)).max().item(),
            drift=metrics.class_drift(plain, photos).item(),
        )


def prompt_score(seen: Recognition, prompts: tuple[str, ...]) -> float:
    """The mean probability of what the prompts ask for: the class and the background they name.

    NaN where they name nothing that the recogniser knows.
    """
    found: list[float] = []
    nouns = {noun: noun for noun in seen.vocabulary.words["class"]}
    for head, words in (("class", nouns), ("background", BACKGROUNDS)):
        known = seen.vocabulary.words[head]
        for row, prompt in enumerate(prompts):
            said = f" {prompt} "
            asked = [word for word, phrase in words.items() if f" {phrase} " in said]
            found += [float(seen.probabilities[head][row, known.index(word)]) for word in asked[:1]]
    return sum(found) / len(found) if found else float("nan")
