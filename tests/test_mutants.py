"""Mutated files of every kind: each loads to a value that can be used, or is refused in one line.

500 mutants of each kind of file run in CI (150 of networks that look at pictures), 5,000 with
`-m slow` (1,000 of these networks). `mutants.py` makes them.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mutants
import read_once
from lookers import clip_folder, dino_folder, sam_folder
from test_project import TINY as TINY2
from test_stylegan3 import TINY as TINY3
from tiny import tiny_folder, tiny_model
from understudy import toybox
from understudy.concept import Concept, applied, named_parameters
from understudy.concept.exchange import embedding
from understudy.concept.exchange.exchange import shapes_of
from understudy.concept.exchange.lora_file import is_lora, read_lora
from understudy.concept.folder import digest_of
from understudy.diffusion.text import Text
from understudy.drag.files import Snapshot
from understudy.drag.session import DragSession
from understudy.drag.state import State
from understudy.errors import (
    ConceptError,
    InputError,
    ModelError,
    OutputError,
    PictureError,
    UnderstudyError,
)
from understudy.evaluate import photo_bench, results
from understudy.evaluate.dreambench import read_data_set, write_toy_set
from understudy.evaluate.study import questions
from understudy.generators.folder import load_generator, save_generator
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.generators.stylegan3.generator import StyleGAN3
from understudy.invert.inversion import Inversion
from understudy.learn import checkpoint, log
from understudy.models.schedule_config import load_schedule
from understudy.pictures.photo import write_pixels
from understudy.pictures.recipe import Ingredient, Recipe
from understudy.project.latent import Latent
from understudy.settings.drag import DragSettings
from understudy.untrusted.checkpoint_file import read_file
from understudy.vision.encoders import Clip, Dino, load_clip, load_dino
from understudy.vision.sam import Sam, load_sam

MODEL = "sd15"
STEM = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@dataclass(frozen=True)
class Loader:
    """make: writes a good file into a folder and returns it. load: reads the file, and uses what
    came. kinds: the mutations. errors: what it may raise."""

    make: Callable[[Path], Path]
    load: Callable[[Path], object]
    kinds: tuple[Callable[[bytes, random.Random], bytes], ...]
    errors: tuple[type[UnderstudyError], ...]


TENSORS = (mutants.mutated_tensors, mutants.mutated_tensors, mutants.mutated_bytes)
JSON = (mutants.json_file, mutants.json_file, mutants.mutated_bytes)


@cache
def model() -> Any:
    return tiny_model(MODEL)


@cache
def shapes() -> dict[str, tuple[int, ...]]:
    return shapes_of(model())


# Values that are saved as one safetensors file


def inversion(folder: Path) -> Path:
    made = Inversion(
        method="null-text", prompt="a photo of a cat", model="tiny", fingerprint="f" * 64,
        guidance=7.5, times=(801, 601, 401, 201, 1, -199), picture="p" * 64,
        trajectory=torch.randn(6, 4, 2, 2), replay=torch.randn(6, 4, 2, 2),
        null_embeddings=Text(torch.randn(5, 3, 4)), first_output=torch.randn(1, 4, 2, 2),
    )  # fmt: skip
    return made.save(folder / "a.safetensors")


def load_inversion(file: Path) -> object:
    found = Inversion.load(file)
    return found.noise, found.path, found.clean, [found.uncond(n) for n in range(found.steps)]


def latent(folder: Path) -> Path:
    record = {"photo": [64, 48], "square": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "steps": 10}
    changes = {"synthesis.b4.conv1.weight": torch.randn(2, 2, 3, 3).half()}
    made = Latent(torch.randn(1, 6, 8), "toybox-gan", "f" * 64, "p" * 64, changes, record)
    return made.save(folder / "a.safetensors")


def load_latent(file: Path) -> object:
    found = Latent.load(file)
    return found.tuned_fingerprint, found.place()


def session(folder: Path) -> Path:
    def state(rows: int = 2) -> State:
        moving_ws, points = torch.randn(1, rows, 8), torch.rand(3, 2) * 30
        return State(moving_ws, moving_ws.abs(), moving_ws.abs(), points, points + 1, 4, 4)

    kept = (Snapshot(5, torch.randn(1, 2, 8), ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0))),)
    made = DragSession(
        model="toybox-gan", fingerprint="f" * 64, picture=(32, 32),
        settings=DragSettings.filled({"layers": 2}), start=torch.randn(1, 6, 8), state=state(),
        mask=torch.ones(1, 1, 32, 32), kept=kept, past=(state(), state()), future=(state(),),
    )  # fmt: skip
    return made.save(folder / "a.safetensors")


def load_session(file: Path) -> object:
    found = DragSession.load(file)
    return found.pairs, found.latent, [found.latent_of(kept.moving_ws) for kept in found.kept]


# Concepts


def concept(folder: Path) -> Path:
    parameters = named_parameters(model())
    weight = f"unet.{STEM}.weight"
    outputs, inputs = parameters[weight].shape
    table = next(name for name in parameters if name.endswith("token_embedding.weight"))
    width = parameters[table].shape[1]
    tensors = {
        "unet.conv_in.bias": torch.randn(parameters["unet.conv_in.bias"].shape).half(),
        f"{weight}.lora_A": torch.randn(2, inputs),
        f"{weight}.lora_B": torch.randn(outputs, 2),
        f"{weight}.alpha": torch.tensor(2.0),
        f"{table}.rows": torch.randn(1, width),
        f"{table}.ids": torch.tensor([5]),
        "tail": torch.randn(3, 16),
    }
    made = Concept(
        name="rex", identifier="sks", class_noun="dog", kind="dreambooth", base_model=MODEL,
        base_fingerprint=model().base_fingerprint, tensors=tensors,
        record={"tail_scale": 0.8, "left_out": ["x"], "settings": {"steps": 3}}, also={"max": "b"},
    )  # fmt: skip
    made.save(folder)
    return folder / "concept.json"


def concept_weights(folder: Path) -> Path:
    return next(concept(folder).parent.glob("weights-*.safetensors"))


def load_concept(file: Path) -> object:
    found = Concept.load(file.parent)
    with applied(model(), found):
        return found.phrases, found.tail, found.tail_scale


def load_concept_weights(file: Path) -> object:
    """With a digest that fits, so that what is behind this check is reached too."""
    manifest = json.loads((file.parent / "concept.json").read_text())
    try:
        manifest["sha256"] = digest_of(load_file(file))
    except Exception:
        pass  # the loader is to say so
    (file.parent / "concept.json").write_text(json.dumps(manifest))
    return load_concept(file)


# Generators


def generator(folder: Path, three: bool = False) -> Path:
    kind, config = (StyleGAN3, TINY3) if three else (StyleGAN2, TINY2)
    tensors = {n: t for n, t in kind(config).state_dict().items()}  # type: ignore[arg-type]
    save_generator(folder, config, tensors)
    return folder / "generator.json"


def generator_weights(folder: Path) -> Path:
    return generator(folder).parent / "generator.safetensors"


def load_the_generator(file: Path) -> object:
    found = load_generator(file.parent, device="cpu")
    return found.latents(found.draw_z(0))


def load_generator_weights(file: Path) -> object:
    import hashlib

    manifest = json.loads((file.parent / "generator.json").read_text())
    manifest["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (file.parent / "generator.json").write_text(json.dumps(manifest))
    return load_the_generator(file)


# Files of other programs


def lora(folder: Path) -> Path:
    outputs, inputs = named_parameters(model())[f"unet.{STEM}.weight"].shape
    tensors = {
        f"unet.{STEM}.lora_A.weight": torch.randn(4, inputs),
        f"unet.{STEM}.lora_B.weight": torch.randn(outputs, 4),
    }
    told = {"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 2}}
    save_file(tensors, folder / "a.safetensors", {"lora_adapter_metadata": json.dumps(told)})
    return folder / "a.safetensors"


def kohya(folder: Path) -> Path:
    outputs, inputs = named_parameters(model())[f"unet.{STEM}.weight"].shape
    stem = "lora_unet_" + STEM.replace(".", "_")
    tensors = {
        f"{stem}.lora_down.weight": torch.randn(4, inputs),
        f"{stem}.lora_up.weight": torch.randn(outputs, 4),
        f"{stem}.alpha": torch.tensor(2.0),
    }
    notes = {"ss_network_alpha": "2", "ss_network_dim": "4", "understudy": '{"name": "rex"}'}
    save_file(tensors, folder / "a.safetensors", notes)
    return folder / "a.safetensors"


def embedded(folder: Path) -> Path:
    save_file({"emb_params": torch.randn(2, 16)}, folder / "a.safetensors")
    return folder / "a.safetensors"


def pickled(folder: Path) -> Path:
    inner = {"*": torch.randn(2, 16)}
    torch.save({"string_to_param": inner, "name": "x", "step": 3}, folder / "a.pt")
    return folder / "a.pt"


def load_foreign(file: Path) -> object:
    content, notes = read_file(file)
    if not is_lora(content) and embedding.is_embedding(content):
        rows = embedding.rows_of(content, str(file))
        count = len(next(iter(rows.values())))
        ids = dict.fromkeys(embedding.tables(shapes()), list(range(count)))
        return embedding.as_tensors(rows, ids, shapes(), str(file))
    return read_lora(content, notes, named_parameters(model()), str(file)).pairs


def scheduler(folder: Path) -> Path:
    shutil.copytree(tiny_folder(MODEL) / "scheduler", folder / "scheduler")
    return folder / "scheduler" / "scheduler_config.json"


def load_scheduler(file: Path) -> object:
    return load_schedule(file.parent.parent)


# Networks that look at pictures


def looker(of: Callable[[], Path], file: str) -> Callable[[Path], Path]:
    """Copies a folder of lookers.py; the mutants are of one file in it."""

    def make(folder: Path) -> Path:
        shutil.copytree(of(), folder / "network")
        return folder / "network" / file

    return make


PICTURE = np.zeros((40, 30, 3), np.uint8)


@pytest.fixture(scope="module", autouse=True)
def networks_loaded_once() -> Iterator[None]:
    """What does not differ from the good folder is not loaded and used again: see the function."""
    with pytest.MonkeyPatch.context() as patch:
        read_once.install_networks(patch)
        yield


@lru_cache(maxsize=1)
def used(found: Sam | Clip | Dino) -> object:
    """What the network makes of a picture (and of a text)."""
    if isinstance(found, Sam):
        return found.mask(PICTURE, [(5, 5)], (1, 1, 9, 9))
    seen = found.look(torch.zeros(1, 3, found.side, found.side))
    return (seen, found.read(["a cat"])) if isinstance(found, Clip) else seen


def load_the_sam(file: Path) -> object:
    return used(load_sam(file.parent))


def load_the_clip(file: Path) -> object:
    return used(load_clip(str(file.parent)))


def load_the_dino(file: Path) -> object:
    return used(load_dino(str(file.parent)))


# Runs, evaluations, studies


def manifest(folder: Path) -> Path:
    facts = {"settings": {"steps": 10, "learning_rate": 1e-5}, "method": "lora", "photos": ["a"]}
    (folder / checkpoint.STATE).write_text(json.dumps({"format": 1, "step": 5, "facts": facts}))
    return folder / checkpoint.STATE


def owner(folder: Path) -> Path:
    facts = {"pid": 12, "host": "here", "since": "Sat Nov 28 22:05:03 2026"}
    (folder / ".run.json").write_text(json.dumps(facts))
    return folder / ".run.json"


def load_owner(file: Path) -> object:
    return checkpoint._owner(file)  # pyright: ignore[reportPrivateUsage]


def run_log(folder: Path) -> Path:
    lines: list[dict[str, Any]] = [{"step": n, "loss": 0.5, "seconds": 0.1} for n in range(1, 5)]
    lines.append({"step": 4, "validation": 0.3, "identity": 0.7, "alarms": ["drift"]})
    (folder / "learn.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "learn.jsonl"


def load_journal(file: Path) -> object:
    return log.Log(file.parent, 10**9).previews()


def rows(folder: Path) -> Path:
    said = {"bench": {"name": "toys", "version": "1"}, "methods": {"a": {}, "b": {}}, "side": 64}
    (folder / "run.json").write_text(json.dumps(said))
    for method in ("a", "b"):
        for case in ("one", "two"):
            row: dict[str, Any] = {"method": method, "case": case, "subject": case, "score": 0.5}
            row |= {"picture": f"pictures/{case}.png", "seed": 3, "pictures": ["x.png"]}
            results.add_row(folder / "rows.jsonl", row)
    return folder / "rows.jsonl"


def run_record(folder: Path) -> Path:
    return rows(folder).parent / "run.json"


def load_rows(file: Path) -> object:
    run = results.ResultsFolder(file.parent)
    said, found = run.read(), list(results.latest(results.read_rows(run.rows)).values())
    results.require(found, ("subject", "picture"), run.rows)
    assert isinstance(said["methods"], dict)
    return [results.number(row, "score") for row in found]


def study(folder: Path) -> Path:
    question = questions.Question(
        id="0" * 12, kind="ask", task="subject", case="one", references=("0" * 20 + ".png",),
        source="1" * 20 + ".png", text="", left="2" * 20 + ".png", right="3" * 20 + ".png",
        methods={"left": "a", "right": "b"},
    )  # fmt: skip
    repeat = {**asdict(question), "id": "1" * 12, "kind": "repeat", "of": "0" * 12}
    said = {"format": 1, "raters": 3, "settings": {}, "sheets": [[asdict(question), repeat]]}
    (folder / questions.MANIFEST).write_text(json.dumps(said))
    return folder / questions.MANIFEST


def load_study(file: Path) -> object:
    found = questions.read(file.parent)
    return [question.shown() for sheet in found.sheets for question in sheet]


def case(folder: Path) -> Path:
    for name in ("source", "photo-0"):
        write_pixels(
            folder / "one" / f"{name}.png", toybox.portrait(toybox.sample_face(1), 32).picture
        )
    said = {"prompt": "a photo of a cat", "swap": "cat", "class": "dog", "subject": "rex"}
    (folder / "one" / "case.json").write_text(json.dumps(said))
    return folder / "one" / "case.json"


def load_case(file: Path) -> object:
    return photo_bench.read_cases(file.parent.parent)


def prompts(folder: Path) -> Path:
    write_toy_set(folder, 1, 32)
    return folder / "prompts_and_classes.txt"


def load_prompts(file: Path) -> object:
    found = read_data_set(file.parent)
    return [s.prompt(n, "sks dog") for s in found.subjects for n in range(len(s.prompts))]


# Values as JSON text


def recipe(folder: Path) -> Path:
    made = Recipe(
        command="swap", settings={"steps": 50}, arguments={"prompt": "a"},
        ingredients=(Ingredient("photo", "a.png", "0" * 64),), model="toybox", seed=3,
    )  # fmt: skip
    (folder / "recipe.json").write_text(made.to_json())
    return folder / "recipe.json"


def load_recipe(file: Path) -> object:
    return Recipe.from_json(file.read_bytes().decode("utf-8", "replace")).ingredients


def scene(folder: Path) -> Path:
    (folder / "scene.json").write_text(toybox.sample_scene(3).to_json())
    return folder / "scene.json"


def load_scene(file: Path) -> object:
    return toybox.Scene.from_json(file.read_bytes().decode("utf-8", "replace")).to_json()


def face(folder: Path) -> Path:
    (folder / "face.json").write_text(toybox.sample_face(3).to_json())
    return folder / "face.json"


def load_face(file: Path) -> object:
    return toybox.Face.from_json(file.read_bytes().decode("utf-8", "replace")).numbers()


LOADERS = {
    "inversion": Loader(inversion, load_inversion, TENSORS, (InputError,)),
    "latent": Loader(latent, load_latent, TENSORS, (InputError,)),
    "drag session": Loader(session, load_session, TENSORS, (InputError,)),
    "concept": Loader(concept, load_concept, JSON, (ConceptError,)),
    "concept weights": Loader(concept_weights, load_concept_weights, TENSORS, (ConceptError,)),
    "generator": Loader(generator, load_the_generator, JSON, (ModelError,)),
    "generator, StyleGAN3": Loader(
        lambda folder: generator(folder, True), load_the_generator, JSON, (ModelError,)
    ),
    "generator weights": Loader(generator_weights, load_generator_weights, TENSORS, (ModelError,)),
    "LoRA of diffusers": Loader(lora, load_foreign, TENSORS, (ConceptError, ModelError)),
    "LoRA of kohya": Loader(kohya, load_foreign, TENSORS, (ConceptError, ModelError)),
    "embedding": Loader(embedded, load_foreign, TENSORS, (ConceptError, ModelError)),
    "embedding, pickled": Loader(
        pickled, load_foreign, (mutants.mutated_bytes,), (ConceptError, ModelError)
    ),
    "scheduler": Loader(scheduler, load_scheduler, JSON, (ModelError,)),
    "SAM 2": Loader(looker(sam_folder, "config.json"), load_the_sam, JSON, (ModelError,)),
    "SAM 2 weights": Loader(
        looker(sam_folder, "model.safetensors"), load_the_sam, TENSORS, (ModelError,)
    ),
    "CLIP": Loader(looker(clip_folder, "config.json"), load_the_clip, JSON, (ModelError,)),
    "DINO": Loader(looker(dino_folder, "config.json"), load_the_dino, JSON, (ModelError,)),
    "DINO weights": Loader(
        looker(dino_folder, "model.safetensors"), load_the_dino, TENSORS, (ModelError,)
    ),
    "checkpoint": Loader(
        manifest, lambda file: checkpoint.read_checkpoint(file.parent), JSON, (ConceptError,)
    ),
    "owner": Loader(owner, load_owner, JSON, ()),
    "log": Loader(
        run_log, load_journal, (mutants.json_lines, mutants.mutated_bytes), (OutputError,)
    ),
    "rows": Loader(rows, load_rows, (mutants.json_lines, mutants.mutated_bytes), (InputError,)),
    "record of a run": Loader(run_record, load_rows, JSON, (InputError,)),
    "study": Loader(study, load_study, JSON, (InputError,)),
    "case": Loader(case, load_case, JSON, (InputError,)),
    "prompts and classes": Loader(prompts, load_prompts, (mutants.mutated_bytes,), (InputError,)),
    "recipe": Loader(recipe, load_recipe, JSON, (PictureError,)),
    "toy scene": Loader(scene, load_scene, JSON, (InputError,)),
    "toy face": Loader(face, load_face, JSON, (InputError,)),
}


def check(name: str, folder: Path, count: int, seed: int) -> mutants.Tally:
    """Load a good file, then `count` mutants of it."""
    loader, tally = LOADERS[name], mutants.Tally()
    file = loader.make(folder)
    loader.load(file)
    for label, data in mutants.mutants(file, count, seed, loader.kinds):
        file.write_bytes(data)
        mutants.survive(lambda: loader.load(file), loader.errors, label, tally)
    return tally


# Loading a network takes longer: there are fewer mutants of these.
NETWORKS = ("SAM 2", "SAM 2 weights", "CLIP", "DINO", "DINO weights")


@pytest.mark.parametrize("name", LOADERS)
def test_mutants(name: str, tmp_path: Path) -> None:
    count = mutants.FEW if name in NETWORKS else mutants.COUNT
    tally = check(name, tmp_path, count, 1)
    assert tally.loaded + tally.refused == count
    if name not in ("owner", "rows"):  # which count as missing, or pass over a line
        assert tally.refused > count // 20, "hardly any mutant was refused"


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_many_mutants(name: str, tmp_path: Path) -> None:
    count = 1_000 if name in NETWORKS else mutants.MANY
    tally = check(name, tmp_path, count, 2)
    assert tally.loaded + tally.refused == count
