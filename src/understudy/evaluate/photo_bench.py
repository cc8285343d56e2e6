"""Swaps between real photos: no right answer is known; features and prompts score them.

A folder a case, of the form that `understudy evaluate cases` writes: source.* and photo-*.* (or a
folder of photos, beside the case or in it, that case.json names), case.json with the prompt of the
source, the word to be swapped, and the subject's class; mask.* where it is known what may change
(white). Fidelity is DreamBooth's (Ruiz et al. 2023, section 4), the background's that of PIE-Bench
(Ju et al. 2023).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.errors import InputError, PictureError
from understudy.evaluate.bench import BenchCase, Measure, side_of
from understudy.evaluate.setup import seed_of
from understudy.evaluate.swap_scores import CEILING
from understudy.files import spec
from understudy.files.reading import read_json
from understudy.pictures import metrics
from understudy.pictures.folders import list_folder
from understudy.pictures.photo import SUFFIXES, read_photo
from understudy.pictures.recipe import ingredient
from understudy.pictures.tensors import read_mask, read_picture
from understudy.settings.evaluate import CasesSettings
from understudy.swap.subjects import with_replacements
from understudy.transfer.source_target import Replacement
from understudy.vision.features import FeatureScorers

NAME = "photos"
FILE = "case.json"
DECLARED = spec.Record(
    {name: spec.Text(2_000, pattern=r"(?s).*\S.*") for name in ("prompt", "swap", "class")},
    {"photos": spec.Text(4096), "subject": spec.Text(400)},
    others=spec.Data(),
)


@dataclass(frozen=True)
class PhotoCase:
    """A case as it lies on the disk; see `BenchCase` for what the words mean."""

    name: str
    subject: str
    class_noun: str
    prompt: str
    noun: str
    source: Path
    photos: tuple[Path, ...]
    mask: Path | None

    def opened(self, size: tuple[int, int]) -> BenchCase:
        """The pictures scaled and centre-cropped to `size`. Raises PictureError."""
        photos = torch.cat([read_picture(file, size) for file in self.photos])
        source = read_picture(self.source, size)
        return BenchCase(
            self.name, seed_of(self.name), self.subject, self.class_noun, photos, source,
            self.prompt, self.noun,
        )  # fmt: skip

    def outside(self, size: tuple[int, int]) -> Float[Tensor, "1 1 h w"] | None:
        """1 where nothing may change; None without a mask."""
        if self.mask is None:
            return None
        return 1 - read_mask(self.mask, read_photo(self.source).size, size)

    def digest(self) -> str:
        """Of all that is in its files."""
        files = [self.source, *self.photos, *([self.mask] if self.mask else [])]
        marks = [ingredient("file", file).sha256 for file in files]
        words = [self.name, self.subject, self.class_noun, self.prompt, self.noun]
        return hashlib.sha256(json.dumps([words, marks]).encode()).hexdigest()


def read_cases(folder: Path) -> tuple[list[PhotoCase], list[str]]:
    """The cases of a folder, subject by subject, and a note on each that was left out, and why.

    Raises InputError where no case is left.
    """
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder} of cases. `understudy evaluate cases` writes one."
        )
    found, left_out, whole = list[PhotoCase](), dict[Path, str](), set[Path]()
    for here in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        try:
            found.append(_case(here, whole))
        except (InputError, PictureError) as error:
            left_out[here.resolve()] = f"{here.name} was left out: {error}"
    for case in found:  # a folder of photos that cases share is no case itself
        left_out.pop(case.photos[0].parent.resolve(), None)
    notes = list(left_out.values())
    if not found:
        why = f" {notes[0]}" if notes else ""
        raise InputError(f"{folder} holds no case: a folder with {FILE}, source.png, photos.{why}")
    return sorted(found, key=lambda case: (case.subject, case.name)), notes


def _case(here: Path, whole: set[Path]) -> PhotoCase:
    """The case of a folder. whole: photos known to decode; those of this case join them."""
    if not (here / FILE).exists():
        raise InputError(f"it has no {FILE}.")
    said: dict[str, Any] = read_json(here / FILE)
    try:
        DECLARED.check(said, "it")
    except spec.Unfit as problem:
        raise InputError(f"{here / FILE} is not a valid case: {problem}.") from None
    words = {name: said[name] for name in DECLARED.fields}
    with_replacements(
        words["prompt"], [Replacement(words["swap"], words["class"])]
    )  # the word is there
    elsewhere = said.get("photos")
    shown = here / elsewhere if elsewhere else here
    if not shown.resolve().is_relative_to(here.parent.resolve()):
        raise InputError(
            f"{here / FILE}: photos must name a folder within {here.parent}, like ../rex. "
            f"Got {elsewhere!r}."
        )
    files = list_folder(shown).files
    photos = tuple(f for f in files if elsewhere or f.stem.startswith("photo"))
    if not photos:
        raise InputError(f"{here} has no photo of the subject, such as photo-0.png.")
    for file in {file.resolve() for file in photos} - whole:
        read_photo(file)  # a damaged one is named now, not after an hour
        whole.add(file)
    source = _named(here, "source")
    if source is None:
        raise InputError(f"{here} has no source.png.")
    read_photo(source)
    subject = said.get("subject") or (Path(elsewhere).name if elsewhere else here.name)
    return PhotoCase(
        here.name, subject, words["class"], words["prompt"], words["swap"], source, photos,
        _named(here, "mask"),
    )  # fmt: skip


def _named(folder: Path, stem: str) -> Path | None:
    files = [folder / f"{stem}{suffix}" for suffix in SUFFIXES]
    return next((file for file in files if file.is_file()), None)


class PhotoBench:
    """The cases of a folder, looked at by `scorers`; see `Bench`. usual_side: if none is told."""

    knows_answers = False

    def __init__(
        self, folder: Path, wish: CasesSettings, scorers: FeatureScorers, usual_side: int
    ) -> None:
        found, self.notes = read_cases(folder)
        marks = json.dumps([case.digest() for case in found])
        self._version = hashlib.sha256(marks.encode()).hexdigest()[:12]
        cases = found[: wish.limit or None]
        self.folder, self.scorers = folder, scorers
        self.side = side_of(wish.side, usual_side)
        self.cases = {case.name: case for case in cases}
        self.names: Sequence[str] = list(self.cases)
        self._last: tuple[str, BenchCase] | None = None
        self._seen: tuple[str, dict[str, Tensor]] | None = None

    @property
    def title(self) -> str:
        return f"Swaps in {self.folder.name}, {self.side} pixels"

    @cached_property
    def masked(self) -> bool:
        return any(case.mask for case in self.cases.values())

    @property
    def measures(self) -> Sequence[Measure]:
        nan, scorers = math.nan, self.scorers
        found = [
            Measure(name, "mean cosine with the subject's photos", True, 0.02, nan)
            for name in scorers.subject
        ]
        found.append(
            Measure(scorers.prompt_name, "agreement with the target prompt", True, 0.01, nan)
        )
        if self.masked:
            found += [
                Measure("background, dB", "PSNR to the source outside the mask", True, 1.0, nan),
                Measure("background SSIM", "SSIM to the source outside the mask", True, 0.02, 1.0),
            ]
            if scorers.distance and scorers.distance_name == "LPIPS":
                says = "LPIPS to the source, both black inside the mask"
                found.append(Measure("background LPIPS", says, False, 0.01, 0.0))
        found.append(
            Measure("copy score", "highest SSIM with a photo: near 1, a copy", False, 0.05, nan)
        )
        return found

    @property
    def duels(self) -> Mapping[str, str]:
        over = {"subject": next(iter(self.scorers.subject)), "prompt": self.scorers.prompt_name}
        return over | ({"background": "background, dB"} if self.masked else {})

    @property
    def conditions(self) -> dict[str, Any]:
        bench = {"name": NAME, "version": self._version}
        where = {"folder": str(self.folder.resolve()), "side": self.side}
        choices = {**self.scorers.choices, "background ceiling, dB": CEILING}
        return {"bench": bench, **where, "choices": choices}

    def subject(self, name: str) -> str:
        return self.cases[name].subject

    def case(self, name: str) -> BenchCase:
        if self._last is None or self._last[0] != name:
            self._last = (name, self.cases[name].opened((self.side, self.side)))
        return self._last[1]

    def score(self, name: str, picture: Float[Tensor, "1 3 h w"]) -> dict[str, Any]:
        opened, case, scorers = self.case(name), self.cases[name], self.scorers
        text = opened.target_prompt(opened.class_noun)
        found: dict[str, Any] = {"subject": opened.subject, "seed": opened.seed, "text": text}
        for measure, features in scorers.subject.items():
            found[measure] = metrics.subject_fidelity(
                features.of(picture), self._photos(case)[measure]
            ).item()
        found[scorers.prompt_name] = scorers.prompt.agreement(picture, [text]).item()
        outside = case.outside((self.side, self.side))
        if outside is not None:
            kept = metrics.psnr(picture, opened.source, outside)
            found["background, dB"] = kept.clamp(max=CEILING).item()
            found["background SSIM"] = metrics.ssim(picture, opened.source, outside).item()
            if scorers.distance and scorers.distance_name == "LPIPS":
                black = [(shown + 1) * outside - 1 for shown in (picture, opened.source)]
                found["background LPIPS"] = scorers.distance(black[0], black[1]).item()
        found["copy score"] = metrics.copy_score(picture, opened.photos).item()
        return found

    def _photos(self, case: PhotoCase) -> dict[str, Tensor]:
        """Features of a subject's photos as they are, looked at once."""
        mark = "\n".join(map(str, case.photos))
        if self._seen is None or self._seen[0] != mark:
            whole = [read_picture(file) for file in case.photos]
            seen = {
                name: torch.cat([features.of(one) for one in whole])
                for name, features in self.scorers.subject.items()
            }
            self._seen = (mark, seen)
        return self._seen[1]

    def warnings(self, means: Mapping[str, Mapping[str, float]]) -> list[str]:
        return list(self.notes)
