"""Ways in which a network runs on a GPU, how long it takes, and the table of it: for `gpu`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.shapes import Shaped
from tests.recorder import Recorder
from understudy.models.compiled import Compiled
from understudy.models.graphs import Graphs


@dataclass(frozen=True)
class Way:
    """How the network runs."""

    name: str
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    compiled: bool = False
    graphs: bool = False  # replayed as CUDA graphs


WAYS = (
    Way("float32"),
    Way("TF32", tf32=True),
    Way("TF32, CUDA graphs", tf32=True, graphs=True),
    Way("bfloat16", torch.bfloat16),
    Way("bfloat16, CUDA graphs", torch.bfloat16, graphs=True),
    Way("TF32, compiled", tf32=True, compiled=True),
    Way("bfloat16, compiled", torch.bfloat16, compiled=True),
    Way("TF32, compiled, CUDA graphs", tf32=True, compiled=True, graphs=True),
    Way("bfloat16, compiled, CUDA graphs", torch.bfloat16, compiled=True, graphs=True),
)

PROFILED = {"evaluation": WAYS[3], "inner step": WAYS[1]}
LEARNING = (
    Way("plain"),
    Way("float32"),
    Way("TF32", tf32=True),
    Way("TF32, CUDA graphs", tf32=True, graphs=True),
    Way("bfloat16", torch.bfloat16, tf32=True),
    Way("bfloat16, CUDA graphs", torch.bfloat16, tf32=True, graphs=True),
    Way("TF32, compiled", tf32=True, compiled=True),
    Way("bfloat16, compiled", torch.bfloat16, tf32=True, compiled=True),
)


def ways(compiled: bool, of: tuple[Way, ...]) -> list[Way]:
    """Those that are compiled, or those that are not."""
    return [way for way in of if way.compiled == compiled]


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    device: str
    shape: str = "sd15"
    side: int = 64
    steps: int = 10
    inner: int = 3
    pictures: tuple[int, ...] = (512, 1024)
    drag_steps: int = 12  # that are timed
    width: float = 1.0
    photo: int = 512
    backend: str | None = None  # of torch.compile


@dataclass
class Table:
    """The rows so far, and the time that is left.

    out: a file to which rows are appended as they come. earlier: rows of an earlier process, of the
    same machine and size: see `read_from`. answers: right answers, for the ways that come later.
    """

    size: Size
    ends: float
    rows: list[dict[str, Any]]
    skipped: list[str]
    out: Path | None = None
    earlier: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    answers: dict[str, Any] = field(default_factory=dict[str, Any])

    def read_from(self, out: Path) -> None:
        """Append rows to this file, and know those in it that were measured under the same
        conditions."""
        self.out = out
        lines = out.read_text().splitlines() if out.exists() else []
        rows = [json.loads(line) for line in lines]
        self.earlier = [row for row in rows if row["on"] == conditions(self.size)]

    def add(self, what: str, how: str, seconds: float, gigabytes: float, **more: Any) -> None:
        """Keep and print a row. more: ratios, differences, whatever there is to say."""
        row = {"what": what, "how": how, "ms": seconds * 1e3, "GB": gigabytes, **more}
        self.rows.append(row)
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}),
              flush=True)  # fmt: skip
        if self.out is not None:
            with self.out.open("a") as file:
                file.write(json.dumps({"on": conditions(self.size), **row}) + "\n")

    def known(self, what: str, how: str) -> dict[str, Any] | None:
        """The last row of this name, of this process or an earlier one."""
        alike = (row for row in self.all_rows() if (row["what"], row["how"]) == (what, how))
        return next(alike, None)

    def all_rows(self) -> list[dict[str, Any]]:
        """The rows of this process and of earlier ones; of two of one name the last."""
        rows = {(row["what"], row["how"]): row for row in (*self.earlier, *self.rows)}
        return list(rows.values())

    def answer(self, name: str, make: Callable[[], Any]) -> Any:
        """A right answer: made once, and kept beside `out` for later processes."""
        file = self.out and self.out.with_suffix(f".{name}.pt")
        if name not in self.answers and file and file.exists():
            on, found = torch.load(file, weights_only=False, map_location=self.size.device)
            if on == conditions(self.size):
                self.answers[name] = found
        if name not in self.answers:
            self.answers[name] = make()
            if file:
                torch.save((conditions(self.size), self.answers[name]), file)
        return self.answers[name]

    def has_time(self, what: str) -> bool:
        """Whether a part may begin; noted where it may not."""
        if time.monotonic() < self.ends:
            return True
        self.skipped.append(what)
        print(f"skipped for want of time: {what}", flush=True)
        return False


def conditions(size: Size) -> str:
    """What rows must have in common to be compared."""
    where = torch.cuda.get_device_name() if size.device.startswith("cuda") else "CPU"
    return f"{where}, torch {torch.__version__}, {size}"


@dataclass
class Measure:
    """Seconds and gigabytes of what ran inside `measured`."""

    seconds: float = 0.0
    gigabytes: float = 0.0


@contextmanager
def measured(device: str, *, memory: bool = True) -> Generator[Measure]:
    """Clock and peak memory (of a GPU) inside the block. memory: False leaves the peak to a block
    around this one."""
    found, cuda = Measure(), device.startswith("cuda")
    held = 0
    if cuda:
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
    if cuda and memory:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    yield found
    if cuda:
        torch.cuda.synchronize()
        found.gigabytes = (torch.cuda.max_memory_allocated() - held) / 1e9 if memory else 0.0
    found.seconds = time.perf_counter() - started


def median(device: str, run: Callable[[], Any], times: int = 5) -> float:
    """Median seconds of a run after one that is not counted."""
    run()
    seconds = list[float]()
    for _ in range(times):
        with measured(device) as found:
            run()
        seconds.append(found.seconds)
    return sorted(seconds)[times // 2]


def prepared(size: Size, way: Way) -> Shaped:
    """A model that runs this way."""
    model: Any = Shaped(size.shape, size.device, way.dtype, offset=0)  # as `Bench`
    if way.compiled:
        model.denoiser.compiled = Compiled(model.unet, size.backend)
    if way.graphs:
        model.denoiser.graphs = Graphs(model.unet, recorder(size.device))
    return model


def recorder(device: str) -> Recorder | None:
    """What records on a device; None = CUDA. On a CPU a stand-in, to try the script."""
    return Recorder() if device == "cpu" else None


def told(model: Any) -> dict[str, Any]:
    """What there is to say of its graphs."""
    graphs = model.denoiser.graphs
    if graphs is None:
        return {}
    failed = {"failure": graphs.failure} if graphs.failure else {}
    return {"graphs": len(graphs), "replays": graphs.replays, **failed}


def noise(size: Size, rows: int) -> Tensor:
    drawn = torch.randn(rows, 4, size.side, size.side, generator=torch.Generator().manual_seed(1))
    return drawn.to(size.device)


def apart(made: Tensor, right: Any) -> float:
    """The largest difference, as a share of the right answer's largest value."""
    expected = right if isinstance(right, Tensor) else right[-1]
    expected = expected[-1:].to(made)
    return float((made - expected).abs().max() / expected.abs().max())
