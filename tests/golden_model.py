"""The golden U-Net as a DiffusionModel, and the recorded cases of every golden folder.

Whatever a case can say is read from its record; what it does not say is not compared.
Folders come from UNDERSTUDY_GOLDEN (several joined by os.pathsep). Without it they are `golden`
beside this file, which `golden_maker` wrote, and ../shared/golden beside the repository, if it is
there: numbers recorded from the published programs. A folder without diffusion/model uses the
latter's. UNDERSTUDY_GOLDEN_COMPILED names a backend of torch.compile for the network (eager,
inductor); run-time type checks cannot be compiled, so it is for pytest --noconftest.

    @golden_cases("a_ddim")
    def test_golden_inversion(case):        # case: GoldenCase
        model = case.model()
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from understudy.diffusion.ddpm import DDPMSchedule
from understudy.diffusion.text import Text, Tokens
from understudy.errors import PromptError
from understudy.models.compiled import Compiled
from understudy.models.unet.denoiser import Denoiser

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "golden"
OWN = Path(__file__).resolve().parent / "golden"
SCHEDULE = ("steps_offset", "set_alpha_to_one")
BOS, EOS, LENGTH = 49406, 49407, 77


def all_folders() -> list[Path]:
    """Every golden folder that is named, whether it is there or not."""
    given = os.environ.get("UNDERSTUDY_GOLDEN", "")
    return [Path(part) for part in given.split(os.pathsep) if part] or [DEFAULT, OWN]


def golden_folders() -> list[Path]:
    """Every golden folder with a diffusion/ inside."""
    return [folder for folder in all_folders() if (folder / "diffusion").is_dir()]


@dataclass(frozen=True)
class GoldenCase:
    """One recorded case: its settings (JSON), and lazily its arrays, model and embeddings."""

    folder: Path  # the diffusion folder
    group: str
    name: str
    settings: Mapping[str, Any]

    def array(self, key: str) -> Tensor:
        """`<case>/<key>` as float64 (integers stay), from whichever file of the folder has it.

        A key that starts with "/" is taken as it is, without the case's name. Raises KeyError.
        """
        full = self._full(key)
        with safe_open(self._file(full), "pt") as arrays:
            found: Tensor = arrays.get_tensor(full)
        return found.double() if found.is_floating_point() else found

    def has(self, key: str) -> bool:
        """Whether the array was recorded."""
        return self._full(key) in _index(self.folder)

    def matching(self, pattern: str) -> list[tuple[str, re.Match[str]]]:
        """Recorded arrays "/..." of this case whose name behind `<case>/` matches wholly.

        A pattern that starts with "/" is matched with the whole name.
        """
        full = pattern[1:] if pattern.startswith("/") else f"{re.escape(self.name)}/(?:{pattern})"
        found = ((key, re.fullmatch(full, key)) for key in _index(self.folder))
        return [(f"/{key}", match) for key, match in found if match]

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of these settings that was recorded."""
        found = (self.settings[name] for name in names if self.settings.get(name) is not None)
        return next(found, default)

    def prompt(self, *, text: str, emb: str, default: str | None = None) -> str:
        """A prompt that is recorded as text, or by the name of its embedding."""
        if self.get(text) is not None:
            return self.settings[text]
        if self.get(emb) is not None:
            return _prompts(self.folder)[self.settings[emb]]
        if default is None:
            raise KeyError(f"{self.name} records neither {text} nor {emb}")
        return default

    def _full(self, key: str) -> str:
        return key[1:] if key.startswith("/") else f"{self.name}/{key}"

    def _file(self, full: str) -> Path:
        """Of several files with such an array the one named most like the group."""
        files = _index(self.folder)[full]
        return max(files, key=lambda file: len(os.path.commonprefix([file.stem, self.group])))

    def text(self, name: str) -> Text:
        """Embedding `p00`.. of this folder, (1, 77, 32) float64."""
        return Text(_tables(self.folder)[name].double()[None])

    @property
    def empty(self) -> Text:
        """Embedding of the empty prompt, or of what the record says stands for it."""
        named = self.get("uncond", "uncond_original", "uncond_start", "empty_emb")
        if named is None:
            named = next(name for name, said in _prompts(self.folder).items() if not said)
        return self.text(named)

    def model(self, **schedule: Any) -> GoldenModel:
        """A fresh model (own row count) with this folder's text table.

        The schedule is the recorded one: of the case, or as given (steps_offset and so on).
        """
        told = {name: self.settings[name] for name in SCHEDULE if name in self.settings}
        return GoldenModel(self.folder, **(told | schedule))


def load_cases(group: str, file: str | None = None) -> list[GoldenCase]:
    """All cases of `<group>.json` (or of file.json) of every golden folder."""
    cases: list[GoldenCase] = []
    for folder in golden_folders():
        path = folder / "diffusion" / f"{file or group}.json"
        if path.is_file():
            entries: dict[str, Any] = json.loads(path.read_text())
            for name, settings in entries.items():
                cases.append(GoldenCase(folder / "diffusion", group, name, settings))
    return cases


def golden_cases(group: str, file: str | None = None, where: Any = lambda case: True) -> Any:
    """Parametrise a test over `case`; one skipped test when no golden data is there.

    group names the .safetensors, file the .json where that has another name; where(case) filters.
    """
    cases = [case for case in load_cases(group, file) if where(case)]
    ids = [f"{case.folder.parent.name}-{case.name}" for case in cases]
    if cases:
        return pytest.mark.parametrize("case", cases, ids=ids)
    reason = f"no golden data: set UNDERSTUDY_GOLDEN to a folder with diffusion/ ({group})"
    return pytest.mark.parametrize("case", [pytest.param(None, marks=pytest.mark.skip(reason))])


def rows_per_step(guidance: float) -> int:
    """Rows of the U-Net in a guided step; guidance 1 needs no unconditional row."""
    return 1 if guidance == 1 else 2


class GoldenModel:
    """DiffusionModel over the golden U-Net, float64, with recorded text; it has no autoencoder."""

    name = "golden"
    device = torch.device("cpu")
    dtype = torch.float64
    downscale = 8
    latent_channels = 4
    max_tokens = LENGTH
    vocabulary: Mapping[str, int] = {}

    def __init__(self, folder: Path, steps_offset: int = 0, set_alpha_to_one: bool = False):
        self.folder = folder
        home = _model_folder(folder)
        alphas = load_file(home / "tables.safetensors")["alphas_cumprod_float32"]
        self.schedule = DDPMSchedule(alphas, steps_offset, set_alpha_to_one)
        self.unet = _unet(home)
        self.denoiser = Denoiser(self.unet)
        size = int(self.unet.config.sample_size) * self.downscale
        self.picture_size = (size, size)
        self.fingerprint = self.base_fingerprint = _digest(home / "unet.safetensors")
        if backend := os.environ.get("UNDERSTUDY_GOLDEN_COMPILED"):
            self.denoiser.compiled = _compiled(home, backend)
        self.predict = self.denoiser.predict

    @property
    def nfe(self) -> int:
        return self.denoiser.nfe

    def tokenize(self, prompt: str) -> Tokens:
        ids = _ids(self.folder).get(prompt)
        if ids is None:
            raise PromptError(f"The golden folder has no tokens for {prompt!r}.")
        strings = _guessed([_pieces(self.folder).get(i, "") for i in ids[1:-1]], prompt)
        return Tokens((*ids, *[EOS] * (LENGTH - len(ids))), tuple(_with_ends(strings, prompt)))

    def embed(self, prompts: Sequence[str]) -> Text:
        entries = {prompt: name for name, prompt in _prompts(self.folder).items()}
        tables = [_tables(self.folder)[entries[prompt]].double() for prompt in prompts]
        return Text(torch.stack(tables))

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {"unet": self.unet}

    def encode(self, pictures: Tensor) -> Tensor:
        raise NotImplementedError("the golden model has no autoencoder; latents are given")

    posterior = decode = encode


class _TableProjection(nn.Module):
    """The sinusoidal time features as they were recorded, so that no library rounds them anew."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self, timesteps: Tensor) -> Tensor:
        return self.table[timesteps]


def _model_folder(folder: Path) -> Path:
    own = folder / "model"
    home = own if own.is_dir() else DEFAULT / "diffusion" / "model"
    if not home.is_dir():
        pytest.skip(f"no golden U-Net in {own} nor in {home}")
    return home


@cache
def _unet(home: Path) -> Any:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(**json.loads(_read(home / "config.json")))
    unet.load_state_dict(load_file(home / "unet.safetensors"))
    unet.time_proj = _TableProjection(load_file(home / "tables.safetensors")["time_projection"])
    return unet.double().eval().requires_grad_(False)


class _Compiled(Compiled):
    """A network that must compile, instead of running as it is where it does not."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = super().__call__(*args, **kwargs)
        assert not self.failure, f"the network does not compile: {self.failure}"
        return found


@cache
def _compiled(home: Path, backend: str) -> Compiled:
    return _Compiled(_unet(home), backend)


@cache
def _index(folder: Path) -> dict[str, list[Path]]:
    """Every array of the folder, and the files that hold one of that name."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as arrays:
            for key in arrays.keys():
                found.setdefault(key, []).append(file)
    return found


@cache
def _prompts(folder: Path) -> dict[str, str]:
    """Name of an embedding -> its prompt."""
    return {entry["id"]: entry["prompt"] for entry in json.loads(_read(folder / "text.json"))}


@cache
def _tables(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "text.safetensors")


@cache
def _read(path: Path) -> str:
    return path.read_text()


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _ids(folder: Path) -> dict[str, list[int]]:
    """prompt -> ids with BOS and EOS, from the text table and the alignment pairs."""
    known = {entry["prompt"]: entry["ids"] for entry in json.loads(_read(folder / "text.json"))}
    for pair in _pairs(folder):
        for side in ("source", "target"):
            known[pair[side]] = pair[f"{side}_ids"]
    return known


@cache
def _pieces(folder: Path) -> dict[int, str]:
    """id -> text, as far as the alignment pairs of this and the default folder tell."""
    pairs = _pairs(DEFAULT / "diffusion") + _pairs(folder)
    sides = [(pair, side) for pair in pairs for side in ("source", "target")]
    return {
        token: string
        for pair, side in sides
        for token, string in zip(pair[f"{side}_ids"], pair[f"{side}_pieces"], strict=True)
    }


def _guessed(strings: list[str], prompt: str) -> list[str]:
    """Spell the pieces that are not known ("") from the words of the prompt between their
    neighbours: a word each, or one word cut in as many parts."""
    text, at, spelled = prompt.lower(), 0, list[str]()
    for known, run in groupby(strings, key=bool):
        run = list(run)
        if known:
            for string in run:
                at = text.index(string, at) + len(string) if string in text[at:] else at
            spelled += run
            continue
        later = strings[len(spelled) + len(run) :]
        found = re.search(rf"(?<!\w){re.escape(later[0])}", text[at:]) if later else None
        words = (text[at : at + found.start()] if found else text[at:]).split()
        if len(words) == 1 < len(run):
            ends = [*range(len(run)), len(words[0])]
            words = [words[0][start:end] for start, end in pairwise(ends)]
        spelled += words if len(words) == len(run) else ["?"] * len(run)
    return spelled


def _pairs(folder: Path) -> list[dict[str, Any]]:
    path = folder / "e_alignment.json"
    return json.loads(_read(path))["pairs"] if path.is_file() else []


def _with_ends(strings: list[str], prompt: str) -> list[str]:
    """Mark the pieces that end a word with "</w>", as CLIP does, by walking the prompt."""
    text, at, marked = prompt.lower(), 0, list[str]()
    for string in strings:
        at = text.index(string, at) + len(string) if string in text[at:] else at
        inside = text[at - 1 : at].isalpha() and text[at : at + 1].isalpha()
        marked.append(string if inside else f"{string}</w>")
    return marked
