"""The DreamBooth protocol (Ruiz et al. 2023, section 4): subject and prompt fidelity, PRES, DIV.

Each subject is learnt by each method, each prompt drawn four times, every picture compared with
every photo of its subject. The real photos against each other are the upper bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.concept import Concept, applied, spelled
from understudy.evaluate.dreambench import BenchSubject, DataSet
from understudy.evaluate.learners import LEARNERS
from understudy.evaluate.results import ResultsFolder, Row, RowJob, RowStep, row_steps, sharded
from understudy.evaluate.setup import Setup, seed_of
from understudy.generate import generate
from understudy.pictures import metrics
from understudy.pictures.metrics import pair_diversity
from understudy.pictures.recipe import Recipe, versions
from understudy.pictures.tensors import read_picture, write_picture
from understudy.settings import GenerateSettings
from understudy.settings.evaluate import DreamBoothSettings
from understudy.vision.features import FeatureScorers

REAL = "real-images"
PLAIN = "plain"  # the case of a subject that draws its bare class
SECONDS, CLASS_SECONDS = "seconds to learn", "seconds for the class"


def evaluation_steps(
    run: ResultsFolder,
    wish: DreamBoothSettings,
    data: DataSet,
    scorers: FeatureScorers,
    setup: Setup,
    methods: Sequence[str],
    *,
    resume: bool = False,
) -> Iterator[RowStep]:
    """Draw and score every prompt of every subject by every method, a row at a time.

    Raises what `ResultsFolder.begin` raises; a case that fails is a row with its error.
    """
    drawing = setup.settings(GenerateSettings)
    facts: dict[str, Any] = {REAL: {}}
    for name in methods:
        learning = LEARNERS[name].settings(setup)
        own = setup.facts(drawing, *([learning] if learning else []))
        facts[name] = {**own, **LEARNERS[name].facts()}
    choices = {
        **scorers.choices,
        "identifier in the text": wish.keep_identifier,
        "self pairs": False,
    }
    choices |= {"seconds to learn": "of the processor on a CPU, class pictures not counted"}
    choices |= {"pictures a prompt": wish.pictures, "pictures for PRES": wish.plain_pictures}
    said = {"protocol": "DreamBooth", "subjects": [s.name for s in data.subjects]}
    begun = {**said, "choices": choices, "methods": facts, "versions": versions()}
    run.begin(begun, resume=resume)
    made = _Made(run, wish, data, scorers, setup)
    jobs: list[RowJob] = []
    for subject in data.subjects:
        jobs.append(RowJob(REAL, f"{subject.name}/photos", made.real(subject)))
        count = min(len(subject.prompts), wish.limit or len(subject.prompts))
        for name in methods:
            jobs += [
                RowJob(name, f"{subject.name}/{number:02d}", made.drawn(name, subject, number))
                for number in range(count)
            ]
            jobs.append(RowJob(name, f"{subject.name}/{PLAIN}", made.plain(name, subject)))
    return row_steps(run.rows, sharded(jobs, wish.shard, lambda job: job.case.split("/")[0]))


class _Made:
    """Makes rows; keeps the subject and the concept of the last ones, which the next share."""

    def __init__(
        self,
        run: ResultsFolder,
        wish: DreamBoothSettings,
        data: DataSet,
        scorers: FeatureScorers,
        setup: Setup,
    ) -> None:
        self.run, self.wish, self.scorers, self.setup = run, wish, scorers, setup
        self.nouns = [subject.noun for subject in data.subjects]
        self._photos: tuple[str, dict[str, Tensor], Tensor] | None = None
        self._concept: tuple[tuple[str, str], Concept | None] | None = None

    def real(self, subject: BenchSubject) -> Callable[[], Row]:
        def make() -> Row:
            seen, _ = self.photos(subject)
            found = {name: metrics.self_fidelity(f).item() for name, f in seen.items()}
            return {"subject": subject.name, "photos": len(subject.photos), **found}

        return make

    def drawn(self, method: str, subject: BenchSubject, number: int) -> Callable[[], Row]:
        def make() -> Row:
            concept = self.concept(method, subject)
            identifier = "" if concept is None else concept.identifier
            named = subject.noun if concept is None else f"{{{concept.name}}}"
            prompt = subject.prompt(number, named)
            seeds = [seed_of(subject.name, number, k) for k in range(self.wish.pictures)]
            pictures = self.pictures(concept, prompt, seeds)
            kept = f"{identifier} " if self.wish.keep_identifier else ""
            text = subject.prompt(number, f"{kept}{subject.noun}")
            found = self.scores(subject, pictures, text)
            files = self.write(method, f"{subject.name}/{number:02d}", pictures, seeds, prompt)
            spoken = prompt if concept is None else spelled(prompt, concept)
            facts = {"subject": subject.name, "prompt": spoken, "text": text, "seeds": seeds}
            return {**facts, **found, "pictures": files}

        return make

    def plain(self, method: str, subject: BenchSubject) -> Callable[[], Row]:
        def make() -> Row:
            concept, prompt = self.concept(method, subject), f"a photo of a {subject.noun}"
            seeds = [seed_of(subject.name, PLAIN, k) for k in range(self.wish.plain_pictures)]
            pictures = self.pictures(concept, prompt, seeds)
            seen, _ = self.photos(subject)
            found: dict[str, float] = {}
            for name, scorers in self.scorers.subject.items():
                features = scorers.of(pictures)
                found[f"PRES ({name})"] = metrics.class_drift(features, seen[name]).item()
                found[f"class DIV ({name})"] = metrics.diversity(features).item()
            if self.scorers.distance:
                found["class DIV"] = pair_diversity(pictures, self.scorers.distance).item()
            files = self.write(method, f"{subject.name}/{PLAIN}", pictures, seeds, prompt)
            record = {} if concept is None else concept.record
            for column, key in ((SECONDS, "learning_seconds"), (CLASS_SECONDS, "class_seconds")):
                found |= {column: record[key]} if key in record else {}
            facts = {"subject": subject.name, "prompt": prompt, "seeds": seeds}
            return {**facts, **found, "pictures": files}

        return make

    def scores(
        self, subject: BenchSubject, pictures: Float[Tensor, "n 3 h w"], text: str
    ) -> dict[str, float]:
        """Subject fidelity, prompt fidelity, diversity, and whether a photo was copied."""
        seen, fitted = self.photos(subject)
        found: dict[str, float] = {}
        for name, scorers in self.scorers.subject.items():
            features = scorers.of(pictures)
            found[name] = metrics.subject_fidelity(features, seen[name]).item()
            if len(pictures) > 1:
                found[f"DIV ({name})"] = metrics.diversity(features).item()
        agreement = self.scorers.prompt.agreement(pictures, [text] * len(pictures))
        found[self.scorers.prompt_name] = agreement.mean().item()
        if self.scorers.distance and len(pictures) > 1:
            found["DIV"] = pair_diversity(pictures, self.scorers.distance).item()
        found["copy score"] = metrics.copy_score(pictures, fitted).mean().item()
        return found

    def photos(self, subject: BenchSubject) -> tuple[dict[str, Tensor], Tensor]:
        """Features of the photos as they are, and the photos fitted to the model's pictures."""
        if self._photos is None or self._photos[0] != subject.name:
            whole = [read_picture(file) for file in subject.photos]
            seen = {
                name: torch.cat([scorers.of(one) for one in whole])
                for name, scorers in self.scorers.subject.items()
            }
            size = self.setup.model.picture_size
            fitted = torch.cat([read_picture(file, size) for file in subject.photos])
            self._photos = (subject.name, seen, fitted)
        return self._photos[1], self._photos[2]

    def concept(self, method: str, subject: BenchSubject) -> Concept | None:
        if self._concept is None or self._concept[0] != (method, subject.name):
            _, fitted = self.photos(subject)
            found = LEARNERS[method].concept(self.setup, subject, self.nouns, fitted)
            self._concept = ((method, subject.name), found)
        return self._concept[1]

    def pictures(
        self, concept: Concept | None, prompt: str, seeds: list[int]
    ) -> Float[Tensor, "n 3 h w"]:
        """One prompt drawn with each seed."""
        model, how = self.setup.model, self.setup.settings(GenerateSettings)
        concepts = () if concept is None else (concept,)
        with applied(model, *concepts):
            return generate(model, [prompt] * len(seeds), seeds, how, concepts=concepts).cpu()

    def write(
        self, method: str, case: str, pictures: Tensor, seeds: list[int], prompt: str
    ) -> list[str]:
        """Write the pictures, with how they were made."""
        files: list[str] = []
        for k, picture in enumerate(pictures.split(1)):
            file = Path("pictures") / method / f"{case}-{k}.png"
            said = {"method": method, "prompt": prompt}
            recipe = Recipe(command="evaluate dreambooth", arguments=said, seed=seeds[k])
            write_picture(self.run.folder / file, picture, recipe.to_text())
            files.append(str(file))
        return files
