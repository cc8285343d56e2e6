"""Measure the built-in model on held-out toys; results go to benchmarks/results.

    scripts/bench quick | autoencoder | text | inversion | dreambooth | gallery [--limit N]

One line of JSON a case: killed, it goes on where it stopped. `--model` takes what any command
takes; `--first N` starts at a later case, so that two processes can share the work.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.rows import RESULTS, Row, Rows, keep_sheet, report, spreads
from understudy.diffusion.flow import FlowSchedule
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.settings import (
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    Settings,
)
from understudy.vision import examiner

ROOT = Path(__file__).parent.parent
S = TypeVar("S", bound=Settings)
COUNTS = {"quick": 1, "autoencoder": 500, "text": 50, "inversion": 64, "dreambooth": 8,
          "gallery": 4}  # fmt: skip


def main() -> None:
    wish = options()
    torch.set_num_threads(wish.threads)
    if wish.what == "quick":
        print(quick(wish))
        return
    model = load(wish.model)
    wanted = {"autoencoder": autoencoder, "text": text, "inversion": inversion,
              "dreambooth": dreambooth, "gallery": gallery}  # fmt: skip
    print(wanted[wish.what](wish, model))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=tuple(COUNTS))
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--limit", type=int, help="cases; for text, batches of ten captions")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "measured")
    parser.add_argument(
        "--set", action="append", default=[], metavar="VERB.KNOB=VALUE",
        help="for instance learn.steps=200, generate.guidance=5; may be repeated",
    )  # fmt: skip
    return parser.parse_args()


def chosen(wish: argparse.Namespace, verb: str, kind: type[S]) -> S:
    """The verb's settings for this model, with what --set says about them."""
    types = {field.name: type(field.default) for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for word in wish.set:
        name, value = word.split("=", 1)
        if name.startswith(f"{verb}."):
            knob = name.removeprefix(f"{verb}.")
            values[knob] = value == "true" if types[knob] is bool else types[knob](value)
    return kind.filled(values, wish.model)


def rows_of(
    wish: argparse.Namespace,
    model: DiffusionModel,
    settings: dict[str, Settings],
    measure: Callable[[int], Row],
) -> tuple[list[Row], dict[str, Any]]:
    """Measure the wished cases; the rows of all so far, and the conditions they hold under."""
    said = {verb: one.to_dict() for verb, one in settings.items()}
    mark = hashlib.sha256(json.dumps([model.fingerprint, said]).encode()).hexdigest()[:12]
    count = wish.limit or COUNTS[wish.what] - wish.first
    rows = Rows(wish.store / f"{wish.what}.jsonl", mark)
    rows.measure((str(n), partial(measure, n)) for n in range(wish.first, wish.first + count))
    conditions = {"model": f"{model.name} {model.fingerprint[:12]}"}
    for verb, values in said.items():
        conditions[verb] = ", ".join(f"{k}={v}" for k, v in values.items() if v != "")
    return sorted(rows.read(), key=lambda row: int(row["case"])), conditions


def quick(wish: argparse.Namespace) -> str:
    from benchmarks import quickness as part

    rows = [part.quickness(n) for n in range(wish.limit or 1)]
    return report("quick", "Quickness, one core", {}, spreads(rows, part.COLUMNS))


def autoencoder(wish: argparse.Namespace, model: DiffusionModel) -> str:
    from benchmarks import autoencoder as part

    rows, conditions = rows_of(wish, model, {}, partial(part.rebuilding, model))
    title = "The autoencoder on held-out pictures"
    return report("autoencoder", title, conditions, spreads(rows, part.COLUMNS))


def text(wish: argparse.Namespace, model: DiffusionModel) -> str:
    from benchmarks import text_to_image as part

    drawing, recogniser = chosen(wish, "generate", GenerateSettings), examiner.load_scorer()
    one = partial(part.agreement, model, recogniser, settings=drawing)
    rows, conditions = rows_of(wish, model, {"generate": drawing}, one)
    title = "What generated pictures show, shares right over batches of ten held-out captions"
    return report("text_to_image", title, conditions, spreads(rows, part.COLUMNS))


def inversion(wish: argparse.Namespace, model: DiffusionModel) -> str:
    from benchmarks import flow_inversion, inversion

    flows = isinstance(model.schedule, FlowSchedule)
    part = flow_inversion if flows else inversion
    how = chosen(wish, "invert", InvertSettings)
    one = partial(part.reconstruction, model, settings=how)
    rows, conditions = rows_of(wish, model, {"invert": how}, one)
    title = "Inversion: held-out pictures replayed"
    name = "flow_inversion" if flows else "inversion"
    return report(name, title, conditions, spreads(rows, part.COLUMNS))


def dreambooth(wish: argparse.Namespace, model: DiffusionModel) -> str:
    from benchmarks import dreambooth as part
    from understudy.pictures.tensors import write_picture

    how, drawing = chosen(wish, "learn", LearnSettings), chosen(wish, "generate", GenerateSettings)
    recogniser, store = examiner.load_scorer(), wish.store / "concepts"
    one = partial(part.fidelity, model, recogniser, settings=how, drawing=drawing, store=store)
    rows, conditions = rows_of(wish, model, {"learn": how, "generate": drawing}, one)
    for row in rows:
        photos, drawn = part.sheet_pictures(model, int(row["case"]), how, drawing, store)
        strip = torch.cat([*photos, *drawn], dim=2)[None]
        (wish.store / "dreambooth").mkdir(exist_ok=True)
        write_picture(wish.store / "dreambooth" / f"{row['case']}.png", strip)
    title = "DreamBooth: held-out subjects, four photos each"
    return report("dreambooth", title, conditions, spreads(rows, part.COLUMNS))


def gallery(wish: argparse.Namespace, model: DiffusionModel) -> str:
    from benchmarks import gallery as part

    how, drawing = chosen(wish, "learn", LearnSettings), chosen(wish, "generate", GenerateSettings)
    recogniser, store = examiner.load_scorer(), wish.store / "concepts"
    RESULTS.mkdir(parents=True, exist_ok=True)

    def one(number: int) -> Row:
        row, strips = part.applications(model, recogniser, number, how, drawing, store)
        title = f"What a learnt toy can do: {row['phrase']}"
        keep_sheet(RESULTS / f"gallery_{number}.jpg", part.sheet(strips, title).numpy())
        return row

    rows, conditions = rows_of(wish, model, {"learn": how, "generate": drawing}, one)
    title = "Applications of a learnt subject: held-out toys, four photos each"
    return report("gallery", title, conditions, spreads(rows, part.COLUMNS))


if __name__ == "__main__":
    main()
