"""Class images for prior preservation: latents that the model samples before it is trained.

Class-specific prior preservation (Ruiz et al. 2023, section 3.3) trains on the frozen model's own
samples of "a photo of a cat", so that learning rex does not turn every cat into rex. They are
drawn by ancestral sampling and kept as latents: never decoded, written as JPEG, encoded again.

One file a sample, each with a seed of its own: samples are shared by all subjects of a class, a
killed run goes on where it stopped, and whoever wants more samples draws the missing ones only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.diffusion.sampler import advance, drawn, guided_output, noise_streams, times_of
from understudy.diffusion.schedule import Schedule
from understudy.errors import OutputError
from understudy.files.tensors import load_tensors, save_tensors
from understudy.learn.distributed import Distributed
from understudy.learn.training import autocasting
from understudy.models.interface import DiffusionModel, scales_for

SAMPLER = "ancestral"


@dataclass(frozen=True)
class PriorSource:
    """What determines a class sample, but for its own number.

    latent_size is (c, h, w). rescale, pag, pag_layers: as of `generate`.
    """

    prompt: str
    latent_size: tuple[int, int, int]
    steps: int = 25
    guidance: float = 7.5
    temperature: float = 1.0
    rescale: float = 0.0
    pag: float = 0.0
    pag_layers: str = "mid"
    seed: int = 0
    autocast: torch.dtype | None = None

    def key(self, model: DiffusionModel) -> str:
        """A folder name for these samples of this model: the same source, the same latents."""
        parts = {
            "model": model.fingerprint,
            "prompt": self.prompt,
            "sampler": SAMPLER,
            "steps": self.steps,
            "guidance": self.guidance,
            "temperature": self.temperature,
            "latent_size": self.latent_size,
            "seed": self.seed,
            "precision": str(self.autocast or model.dtype),
        }
        # Left out where they change nothing: samples of former versions are found again.
        if self.rescale or self.pag:
            parts |= {"rescale": self.rescale, "pag": self.pag, "pag_layers": self.pag_layers}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class PriorStore:
    """Class latents by number: in memory, and in `folder` if there is one.

    A file that is torn, of another shape or not finite counts as missing.
    """

    latent_size: tuple[int, int, int]
    folder: Path | None = None
    memory: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    filed: set[int] = field(default_factory=set[int])  # samples that lie in the folder

    def missing(self, count: int) -> list[int]:
        """Which of the samples 0 .. count - 1 have still to be drawn."""
        return [number for number in range(count) if self._find(number) is None]

    def add(self, number: int, latent: Float[Tensor, "c h w"]) -> None:
        """Store one sample; where the folder cannot be written, in memory only."""
        self.memory[number] = latent.float().cpu().contiguous()
        if self.folder is not None:
            with suppress(OutputError):
                save_tensors(self._file(self.folder, number), {"latent": self.memory[number]})
                self.filed.add(number)

    def latents(self, count: int) -> Float[Tensor, "count c h w"]:
        """Samples 0 .. count - 1, float32 on the CPU; none of them may be missing."""
        return torch.stack([self.memory[number] for number in range(count)])

    def kept(self, count: int) -> int:
        """How many of the samples 0 .. count - 1 were read from the folder or written to it."""
        return sum(number < count for number in self.filed)

    def _find(self, number: int) -> Tensor | None:
        if number in self.memory or self.folder is None:
            return self.memory.get(number)
        try:
            latent = load_tensors(self._file(self.folder, number))[0]["latent"]
        except (OSError, KeyError):
            return None
        if latent.shape != self.latent_size or not bool(latent.isfinite().all()):
            return None
        self.memory[number] = latent
        self.filed.add(number)
        return latent

    @staticmethod
    def _file(folder: Path, number: int) -> Path:
        return folder / f"{number:05d}.safetensors"


@dataclass(frozen=True)
class PriorStep:
    """One denoising step of one batch; index counts from 0 to total - 1. kept: see `PriorStore`."""

    index: int
    total: int
    kept: int = 0


def prior_steps(
    model: DiffusionModel,
    source: PriorSource,
    store: PriorStore,
    count: int,
    *,
    batch: int = 16,
    distributed: Distributed = Distributed(),  # noqa: B008
) -> Iterator[PriorStep]:
    """Draw what `store` lacks of `count` samples, yielding after every step; nothing if it has all.

    The model must be the frozen one, with no concept on. Of several processes each draws its share
    of the samples; at the end all have all of them.
    """
    missing = distributed.agree(store.missing(count))
    # Each sample has its own seed, so it does not matter which process draws it.
    mine = missing[distributed.rank :: distributed.size]
    batches = [mine[start : start + batch] for start in range(0, len(mine), batch)]
    total, kept = len(batches) * source.steps, store.kept(count)
    for turn, numbers in enumerate(batches):
        for step, latents in enumerate(ancestral_samples(model, source, numbers), start=1):
            if step == source.steps:
                for number, latent in zip(numbers, latents, strict=True):
                    store.add(number, latent)
                kept = store.kept(count)
            yield PriorStep(turn * source.steps + step - 1, total, kept)
    store.memory.update(distributed.gather({number: store.memory[number] for number in mine}))
    store.missing(count)  # reads what lies in the folder


@torch.no_grad()
def ancestral_samples(
    model: DiffusionModel, source: PriorSource, numbers: Sequence[int]
) -> Iterator[Float[Tensor, "n c h w"]]:
    """The samples of these numbers after each step of the source, from noisy to clean."""
    streams = noise_streams([_seed(source.seed, number) for number in numbers])
    latents = drawn(streams, source.latent_size, like=model)
    with autocasting(model.device, source.autocast):
        texts = model.embed(["", source.prompt])
    scales = scales_for(
        model, source.guidance, pag=source.pag, layers=source.pag_layers, rescale=source.rescale
    )
    uncond, text = (texts[row].expand(len(numbers)) for row in (0, 1))
    for index, (start, end) in enumerate(pairwise(times_of(model, source.steps, latents))):
        with autocasting(model.device, source.autocast):
            output = guided_output(model, latents, start, text, uncond, scales)
        fresh = None
        if index < source.steps - 1:
            # Below 1 the samples of a small model are cleaner; the training then learns less of its
            # artefacts.
            fresh = source.temperature * drawn(streams, source.latent_size, like=model)
        latents = ancestral_step(model.schedule, latents, output, start, end, fresh)
        yield latents


def ancestral_step(
    schedule: Schedule,
    latents: Float[Tensor, "n c h w"],
    output: Float[Tensor, "n c h w"],
    start: float,
    end: float,
    fresh: Float[Tensor, "n c h w"] | None,
) -> Float[Tensor, "n c h w"]:
    """One step of ancestral sampling, adding fresh noise; without any: to the clean latents.

    Song et al. 2020 (DDIM), eq. 12 with the sigma of eq. 16 at eta = 1: for adjacent timesteps the
    ancestral sampling of Ho et al. 2020, in steps of any length Karras et al.'s "Euler ancestral".
    """
    if fresh is None:
        return schedule.denoised(latents, output, start)[0]
    return advance(schedule, latents, output, start, end, eta=1.0, fresh=fresh)


def _seed(seed: int, number: int) -> int:
    """The seed of one sample, shared with no other seed and number."""
    # A hash, because seed + number would repeat noise between neighbouring seeds.
    digest = hashlib.sha256(f"class sample {seed} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
