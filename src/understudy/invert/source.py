"""Attention features of a source, kept so that later edits of the photo need not evaluate it.

A source's rows never depend on a target's, so what attention gave in them once is good for every
later edit: self-attention outputs (phi), self- and cross-attention queries and keys (M, A, and the
maps that show where words are). It is kept where it is computed anyway: in the last pass of
null-text inversion, or in the first edit.

Knows attention and steps; knows no schedules of edits, and no models but by fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.attention.plan import FeatureRequest, StoredRow
from understudy.attention.site import AttentionSite
from understudy.errors import InputError
from understudy.files import spec
from understudy.files.reading import parse_json
from understudy.files.tensors import headers, load_tensors, save_tensors
from understudy.invert.inversion import Inversion

# phi of the conditional row, and of the unconditional one; M; A; the maps of the blend's words.
Part = Literal["output", "uncond", "map", "cross", "words"]
Parts = frozenset[Part]
Grid = tuple[int, int]
NOTHING: Parts = frozenset()
UNCOND: Parts = frozenset({"uncond"})
WORDS: Parts = frozenset({"words"})
FORMAT = "understudy source 2"
_PARTS = spec.Items(spec.Text(choices=get_args(Part)), most=10)
GIGABYTE = 10**9
MAP_TOKENS = 1024  # M as published: only in layers of up to 32 x 32
GOOD_CELLS = 256  # 16 x 16: where Stable Diffusion's maps of a 512 picture show objects best


@dataclass
class SourceFeatures:
    """The features of one source, step by step; it fills while the source is run.

    room: bytes it may take; a step that does not fit is not kept but run again. path: latents
    before each step and after the last, where an edit had to compute them. first_output: the
    network's unconditional output in the first step. owner: which source it is of; see `claim`.
    """

    room: int = 4 * GIGABYTE
    owner: str = ""
    path: Float[Tensor, "n c h w"] | None = None
    first_output: Float[Tensor, "1 c h w"] | None = None
    _steps: dict[int, dict[str, Tensor]] = field(default_factory=dict[int, dict[str, Tensor]])
    _parts: dict[int, Parts] = field(default_factory=dict[int, Parts])
    _files: dict[int, Path] = field(default_factory=dict[int, Path])
    _grids: set[Grid] = field(default_factory=set[Grid])
    _opened: tuple[int, dict[str, Tensor]] = (-1, {})
    _refused: list[Parts] = field(default_factory=list[Parts])

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(t.nbytes for step in self._steps.values() for t in step.values())

    @property
    def stored(self) -> bool:
        """Whether an earlier edit left something of it on disk."""
        return bool(self._files)

    def claim(self, inversion: Inversion, guidance: float) -> None:
        """Belong to the source of `inversion` from now on; what was another's is forgotten."""
        owner = source_key(inversion, guidance)
        # Features of another photo, prompt or model would give a wrong picture without any error.
        if self.owner != owner:
            self.forget()
            self.owner = owner

    def forget(self) -> None:
        """Be as new."""
        self._steps, self._parts, self._files, self._grids = {}, {}, {}, set()
        self.path = self.first_output = None
        self.owner, self._refused, self._opened = "", [], (-1, {})

    def adopt(self, inversion: Inversion) -> None:
        """What was kept while `inversion` was being made is of its source."""
        self.owner = source_key(inversion, inversion.guidance)

    def has(self, index: int, parts: Parts) -> bool:
        """Whether all of `parts` of a step are here. A step's "cross" shows its words too."""
        there = self._parts.get(index, NOTHING)
        # Cross-attention queries and keys give the words' maps again.
        return parts <= (there | WORDS if "cross" in there else there)

    def rows(self, index: int, site: AttentionSite) -> tuple[StoredRow, StoredRow]:
        """The source's conditional and unconditional row at one layer of one step."""
        step = self._recalled(index)
        cond, uncond = (
            StoredRow(*(step.get(f"{site.index}.{row}.{part}") for part in PARTS)) for row in ROWS
        )
        # Negative-prompt inversion runs one row for both halves of guidance.
        one_row = "uncond" in self._parts[index] and uncond.output is None
        return cond, (cond if one_row else uncond)

    def request(
        self,
        index: int,
        site: AttentionSite,
        parts: Parts,
        *,
        cond: int | None,
        uncond: int | None,
        map_tokens: int,
    ) -> FeatureRequest | None:
        """What to keep of one layer's call; cond, uncond: the source's rows, where it has them."""
        if self._too_much(parts):
            return None
        names = {row: name for row, name in ((uncond, "uncond"), (cond, "cond")) if row is not None}
        # Maps act on the conditional row alone, so only its queries and keys are kept.
        only = () if cond is None else (cond,)
        if site.crosses:
            wanted = "cross" in parts or ("words" in parts and self._shows_words(index, site))
            output, maps = (), only if wanted else ()
        else:
            # phi replaces outputs, so outputs are kept; M and A replace maps, for which queries and
            # keys are smaller.
            halves = {"cond": "output" in parts, "uncond": "uncond" in parts}
            output = tuple(row for row, name in names.items() if halves[name])
            # Edits differ in their limit: what is kept serves all of up to the usual one.
            maps = only if "map" in parts and site.cells <= max(map_tokens, MAP_TOKENS) else ()
        if not output and not maps:
            return None

        def receive(site: AttentionSite, kept: Mapping[int, StoredRow]) -> None:
            for row, stored in kept.items():
                self._add(index, f"{site.index}.{names[row]}", stored)

        return FeatureRequest(output, maps, receive)

    def close_step(self, index: int, parts: Parts) -> None:
        """All of a step's layers have been kept; or, where room ran out, none of them."""
        if self._too_much(parts):
            return
        # A step is kept whole or not at all: an edit that found half of it would have to run the
        # source anyway.
        if self.nbytes > self.room:
            self._refused.append(parts)
            self._steps.pop(index, None)
            self._parts.pop(index, None)
        else:
            self._parts[index] = self._parts.get(index, NOTHING) | parts

    def save(self, folder: Path) -> Path:
        """Write one file per step into `folder`. Raises OutputError."""
        facts = {"format": FORMAT, "owner": self.owner}
        for index, tensors in self._steps.items():
            note = {"parts": json.dumps(sorted(self._parts.get(index, NOTHING)))}
            save_tensors(folder / f"step-{index:04d}.safetensors", tensors, {**facts, **note})
        known = {"path": self.path, "first_output": self.first_output}
        whole = {name: tensor for name, tensor in known.items() if tensor is not None}
        save_tensors(folder / "source.safetensors", whole, facts)
        return folder

    @classmethod
    def load(
        cls, folder: Path, inversion: Inversion, guidance: float, room: int = 4 * GIGABYTE
    ) -> SourceFeatures:
        """What `save` left of this inversion's source; steps are read when they are asked for.

        What is missing, damaged or another source's counts as not kept.
        """
        found = cls(room=room)
        found.claim(inversion, guidance)
        for file in sorted(folder.glob("step-*.safetensors")):
            note, number = _note(file, found.owner), file.stem.removeprefix("step-")
            if note is None or not (number.isascii() and number.isdigit()):
                continue
            try:
                parts = parse_json(note.get("parts", ""), str(file))
                _PARTS.check(parts, "parts")
            except (InputError, spec.Unfit):
                continue
            # Only headers are read here; a step's tensors are loaded when it is replayed.
            found._parts[int(number)], found._files[int(number)] = frozenset(parts), file
        whole = folder / "source.safetensors"
        if _note(whole, found.owner) is not None:
            tensors = _read(whole)
            found.path, found.first_output = tensors.get("path"), tensors.get("first_output")
        return found

    def _too_much(self, parts: Parts) -> bool:
        """Whether a step that read no more than these did not fit."""
        return any(refused <= parts for refused in self._refused)

    def _shows_words(self, index: int, site: AttentionSite) -> bool:
        """All layers in the first step; then those of the size that shows objects best."""
        if site.block == "mid":
            return False
        if index == 0:
            self._grids.add(site.grid)
        return index == 0 or not self._grids or site.grid == best_grid(self._grids)

    def _add(self, index: int, name: str, stored: StoredRow) -> None:
        step = self._steps.setdefault(index, dict(self._recalled(index)))
        for part in PARTS:
            values: Tensor | None = getattr(stored, part)
            if values is not None:
                step[f"{name}.{part}"] = values.detach()

    def _recalled(self, index: int) -> dict[str, Tensor]:
        if index in self._steps or index not in self._files:
            return self._steps.get(index, {})
        # One step is held at a time: steps are replayed in order.
        if self._opened[0] != index:
            self._opened = index, _read(self._files[index])
        return self._opened[1]


PARTS: tuple[Literal["output", "query", "key"], ...] = ("output", "query", "key")
ROWS = ("cond", "uncond")


def best_grid(grids: Collection[Grid]) -> Grid:
    """The grid nearest to 16 x 16 in its number of cells, by ratio: such maps show objects best."""
    return min(grids, key=lambda grid: abs(log(grid[0] * grid[1] / GOOD_CELLS)))


def source_key(inversion: Inversion, guidance: float) -> str:
    """SHA-256 of all that decides a source's features: model, prompt, steps, noise, embeddings.

    The guidance counts where the source's path is not known but walked with it.
    """
    whole = hashlib.sha256()
    # Where the path is stored, the guidance of the replay does not change the source.
    walked = guidance if inversion.path is None else None
    facts = [inversion.method, inversion.fingerprint, inversion.prompt, inversion.times, walked]
    whole.update(json.dumps(facts).encode())
    null = inversion.null_embeddings
    embedded = [] if null is None else null.tensors("null").values()
    for tensor in (inversion.noise, inversion.path, *embedded):
        if tensor is not None and not tensor.is_meta:
            whole.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            whole.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _note(file: Path, owner: str) -> dict[str, str] | None:
    """The header of a file of this source; None for any other."""
    with suppress(OSError):
        _, note = headers(file)
        if note.get("format") == FORMAT and note.get("owner") == owner:
            return note
    return None


def _read(file: Path) -> dict[str, Tensor]:
    return load_tensors(file)[0]
