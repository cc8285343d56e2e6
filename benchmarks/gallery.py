"""DreamBooth's applications (Ruiz et al. 2023, section 4.4) on one held-out toy, as one sheet.

What is asked for in each picture is known, so the scoring network says whether it shows. The toy
world has lights where the paper has painters, and stances where it has views: a toy's text says
no view.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import cases
from benchmarks.dreambooth import learnt, mean, share
from benchmarks.rows import Row
from understudy import toybox
from understudy.concept import applied
from understudy.evaluate import truth
from understudy.generate import generate
from understudy.models.interface import DiffusionModel
from understudy.pictures.sheet import Row as Strip
from understudy.pictures.sheet import Tile, contact_sheet
from understudy.pictures.tensors import to_pixels
from understudy.settings import GenerateSettings, LearnSettings
from understudy.vision.recogniser import Recogniser

# Application: what the network must see (head, words), and the prompt around each word.
PLACES = ("beach", "snow", "forest", "night", "checkered floor", "rug")
APPLICATIONS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "recontextualisation": ("background", PLACES, "a photo of a {phrase} {place}"),
    "rendition": ("", ("in sunlight", "in soft light", "in evening light", "at sunset", "at night",
                       "in a studio"), "a photo of a {phrase} {word}"),
    "novel view": ("stance", (), "a photo of a {phrase} {word}"),
    "colour": ("primary", ("red", "yellow", "green", "blue", "purple", "white"),
               "a photo of a {word} {phrase}"),
    "pattern": ("pattern", ("plain", "striped", "spotted", "patched"),
                "a photo of a {word} {phrase}"),
    "accessory": ("accessory", ("hat", "scarf", "bow tie", "glasses", "crown"),
                  "a photo of a {phrase} with {item}"),
}  # fmt: skip
COLUMNS = tuple(f"{kind}: {what}" for kind in APPLICATIONS for what in ("identity", "shows it"))


def applications(
    model: DiffusionModel,
    recogniser: Recogniser,
    number: int,
    settings: LearnSettings,
    drawing: GenerateSettings,
    store: Path,
) -> tuple[Row, list[Strip]]:
    """Learn held-out subject `number`, draw every application; its scores and strips of a sheet.

    identity: mean likeness to unseen photos. shows it: share in which the network sees what was
    asked for; there is no such measure of a rendition.
    """
    subject = cases.subject(number)
    concept = learnt(model, subject, settings, store)
    real = recogniser.identity(truth.pictures(subject.unseen))
    row: Row = {"phrase": concept.phrase}
    photos = truth.pictures(subject.photos).split(1)
    strips = [Strip(f"learnt from: {concept.phrase}", [Tile(to_pixels(one)) for one in photos])]
    for kind, (head, words, template) in APPLICATIONS.items():
        words = words or toybox.STANCES[subject.identity.class_name]
        prompts = [
            template.format(
                phrase=concept.phrase, word=word, place=toybox.BACKGROUNDS.get(word, ""),
                item=word if word == "glasses" else f"a red {word}",
            )
            for word in words
        ]  # fmt: skip
        with torch.no_grad(), applied(model, concept):
            drawn = generate(model, prompts, range(len(prompts)), drawing)
        seen = recogniser.recognise(drawn)
        row[f"{kind}: identity"] = mean(seen.identity, real)
        if head:
            row[f"{kind}: shows it"] = share(seen.best(head), words)
        tiles = [
            Tile(to_pixels(one), word) for one, word in zip(drawn.split(1), words, strict=True)
        ]
        strips.append(Strip(kind, tiles))
    return row, strips


def sheet(strips: list[Strip], title: str) -> torch.Tensor:
    """The sheet's pixels "h w 3"."""
    return torch.from_numpy(contact_sheet(strips, 160, title).copy())
