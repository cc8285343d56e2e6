"""What each way of learning gives: held-out subjects, eight new scenes each, judged alike.

    python -m benchmarks.learn [--subjects 16] [--only WAY ...] [--set knob=value ...]

One line of JSON a subject and way; killed, it goes on where it stopped. Leaves a table in
benchmarks/results/learn.md and a sheet of pictures a subject in build/measured/learn.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import cases
from benchmarks.rows import RESULTS, Row, Rows, Spread, spreads
from understudy import toybox
from understudy.concept import Concept, worn
from understudy.evaluate import metrics, recogniser
from understudy.evaluate.judge import prompt_score
from understudy.generate import generate
from understudy.image import to_pixels
from understudy.learn import Subject, learn_steps
from understudy.learn.identifier import rare_words
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.photo import write_pixels
from understudy.settings import GenerateSettings, LearnSettings
from understudy.sheet import Row as Strip
from understudy.sheet import Tile, contact_sheet

PLACES = ("meadow", "beach", "snow", "wooden floor", "night", "sunset", "studio", "street")
STORE = Path(__file__).parent.parent / "build" / "measured"
COLUMNS = ("identity", "prompt", "PRES", "diversity", "copy", "seconds")
# The ways, and what each is given besides the model's own settings; photos: how many it sees.
WAYS: dict[str, dict[str, Any]] = {
    "nothing learnt": {"steps": 0},
    "DreamBooth": {"method": "dreambooth"},
    "DreamBooth, no prior": {"method": "dreambooth", "prior_weight": 0.0},
    "DreamBooth, wrong noun": {"method": "dreambooth", "noun": "wrong"},
    "DreamBooth, no noun": {"method": "dreambooth", "noun": "none", "prior_weight": 0.0},
    "LoRA": {"method": "lora"},
    "Textual Inversion": {"method": "textual-inversion"},
    **{f"HiPer, N = {n}": {"method": "hiper", "tail": n, "photos": 1} for n in (1, 3, 5, 10, 20)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--only", action="append", choices=tuple(WAYS), help="may be repeated")
    parser.add_argument("--drawing", type=int, help="denoising steps of a picture")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", type=Path, default=STORE)
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    model, ruler = load(wish.model), recogniser.load()
    drawing = GenerateSettings.filled({"steps": wish.drawing} if wish.drawing else {}, wish.model)
    given = dict(word.split("=", 1) for word in wish.set)
    found: dict[str, list[Row]] = {}
    for number in range(wish.subjects):
        for way in wish.only or WAYS:
            settings = settings_of(way, given, wish.model)
            mark = hashlib.sha256(
                json.dumps([model.fingerprint, way, settings.to_dict(), drawing.to_dict()]).encode()
            ).hexdigest()[:12]
            rows = Rows(wish.store / "learn.jsonl", mark)
            one = partial(measured, model, ruler, number, way, settings, drawing, wish.store)
            found.setdefault(way, []).extend(rows.measure([(f"{number} {way}", one)]))
        write_sheet(number, list(wish.only or WAYS), wish.store)
    print(table(found, f"{model.name} {model.fingerprint[:12]}"))


def settings_of(way: str, given: dict[str, str], model: str) -> LearnSettings:
    """The way's settings, with what --set says in the types of the knobs."""
    types = {field.name: type(field.default) for field in dataclasses.fields(LearnSettings)}
    ours = {key: value for key, value in WAYS[way].items() if key in types and value}
    ours |= {key: value for key, value in WAYS[way].items() if key == "prior_weight"}
    said = {k: v == "true" if types[k] is bool else types[k](v) for k, v in given.items()}
    return LearnSettings.filled({**said, **ours}, model)


def measured(
    model: DiffusionModel,
    ruler: recogniser.Recogniser,
    number: int,
    way: str,
    settings: LearnSettings,
    drawing: GenerateSettings,
    store: Path,
) -> Row:
    """Learn held-out subject `number` in this way, draw it and its class, score both."""
    subject = cases.subject(number)
    noun = subject.identity.class_name
    photos = cases.pictures(subject.photos)[: WAYS[way].get("photos", 4)]
    began = time.monotonic()
    concept = (
        learnt(model, way, noun, photos, settings, store) if WAYS[way] != {"steps": 0} else None
    )
    seconds = time.monotonic() - began
    after = drawn(model, concept, "{rex}" if concept else noun, drawing)
    plain = drawn(model, concept, noun, drawing)
    real = ruler.identity(cases.pictures(subject.unseen))
    seen, others = ruler.recognise(after), ruler.recognise(plain)
    asked = tuple(f"a photo of a {noun} {toybox.BACKGROUNDS[place]}" for place in PLACES)
    keep(store, number, way, after, cases.pictures(subject.photos))
    return {
        "subject": subject.name,
        "identity": metrics.subject_fidelity(seen.identity, real).item(),
        "prompt": prompt_score(seen, asked),
        "PRES": metrics.class_drift(others.identity, real).item(),
        "diversity": metrics.diversity(others.identity).item(),
        "copy": metrics.copy_score(after, photos).mean().item(),
        "seconds to learn": round(seconds, 1),
    }


def learnt(
    model: DiffusionModel, way: str, noun: str, photos: Tensor, settings: LearnSettings, store: Path
) -> Concept:
    """The concept, learnt under the right noun, a wrong one, or a rare word in place of a noun."""
    kind, words = WAYS[way].get("noun", "right"), rare_words(model)
    wrong = toybox.CLASSES[(toybox.CLASSES.index(noun) + 3) % len(toybox.CLASSES)]
    said = {"right": noun, "wrong": wrong, "none": words[-1]}[kind]
    subject = Subject("rex", said, photos, words[0])
    *_, last = learn_steps(model, subject, settings=settings, cache=store / "classes")
    assert last.concept is not None
    return last.concept


def drawn(
    model: DiffusionModel, concept: Concept | None, noun: str, drawing: GenerateSettings
) -> Tensor:
    """The noun, or "{rex}", on eight backgrounds, seeds 0 to 7."""
    prompts = [f"a photo of a {noun} {toybox.BACKGROUNDS[place]}" for place in PLACES]
    concepts = [concept] if concept else []
    with worn(model, *concepts):
        return generate(model, prompts, range(len(PLACES)), drawing, concepts=concepts)


def keep(store: Path, number: int, way: str, pictures: Tensor, photos: Tensor) -> None:
    """Keep what was drawn for the sheet."""
    folder = store / "learn" / f"{number:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"pictures": pictures.half(), "photos": photos.half()}, folder / f"{way}.pt")


def write_sheet(number: int, ways: list[str], store: Path) -> None:
    """One page a subject: its photos, then a row for each way."""
    folder = store / "learn" / f"{number:02d}"
    kept = {
        way: torch.load(folder / f"{way}.pt") for way in ways if (folder / f"{way}.pt").exists()
    }
    if not kept:
        return
    photos = next(iter(kept.values()))["photos"].float()
    strips = [Strip("its photos", [Tile(to_pixels(one)) for one in photos.split(1)])]
    strips += [
        Strip(way, [Tile(to_pixels(one)) for one in found["pictures"].float().split(1)])
        for way, found in kept.items()
    ]
    write_pixels(store / "learn" / f"{number:02d}.png", contact_sheet(strips, side=128))


def table(found: dict[str, list[Row]], model: str) -> str:
    """The ways as a Markdown table of means and standard errors, also written to results/."""
    columns = [name if name != "seconds" else "seconds to learn" for name in COLUMNS]
    lines = ["# Ways of learning, held-out subjects", "", f"model {model}", ""]
    lines += [f"| | {' | '.join(columns)} | subjects |", "| --- " * (len(columns) + 2) + "|"]
    numbers: dict[str, dict[str, Any]] = {}
    for way, rows in found.items():
        spread: dict[str, Spread] = spreads(rows, columns)
        cells = [f"{spread[c].mean:.3f} ± {spread[c].error:.3f}" for c in columns]
        lines.append(f"| {way} | {' | '.join(cells)} | {len(rows)} |")
        numbers[way] = {column: vars(one) for column, one in spread.items()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    (RESULTS / "learn.md").write_text(text)
    (RESULTS / "learn.json").write_text(json.dumps({"model": model, "ways": numbers}, indent=1))
    return text


if __name__ == "__main__":
    main()
