"""How quick a drag is beside the straightforward loop: same weights, same steps, same results.

    scripts/bench drag [--case "1 point"] [--size 512] [--steps 20] [--device cpu]

Each side runs in a process of its own, so that its peak memory is its own. Seconds are of the
processor on a CPU (other work does not count), of the clock on a GPU. Weights are random. A case
that was measured is kept: killed, it goes on with the next.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.plain_drag import PlainStep, plain_steps
from benchmarks.rows import RESULTS, Row, Rows, page
from understudy.drag.engine import Engine
from understudy.drag.region import look
from understudy.drag.state import State
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.settings.drag import DragSettings

ROOT = Path(__file__).parent.parent
COLUMNS = (
    "times quicker",
    "times less memory",
    "ours, s a step",
    "plain, s a step",
    "ours, MB",
    "plain, MB",
    "largest difference of w, millionths",
    "tracks alike",
    "region, times quicker than the map",
)
# name: handles > targets in fractions of the side, and whether a mask is given
PLACES = (
    (0.42, 0.45, 0.42, 0.55), (0.6, 0.35, 0.52, 0.35), (0.7, 0.66, 0.7, 0.74),
    (0.25, 0.5, 0.3, 0.5), (0.5, 0.8, 0.5, 0.74),
    *(
        (0.2 + 0.15 * (i // 5), 0.15 + 0.17 * (i % 5), 0.2 + 0.15 * (i // 5), 0.19 + 0.17 * (i % 5))
        for i in range(15)
    ),
)  # fmt: skip
CASES = {"1 point": (1, False), "3 points": (3, False), "5 points": (5, False),
         "20 points": (20, False),
         "2 points, mask": (2, True), "5 points, mask": (5, True)}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What both sides do. recorded: on a GPU ours replays its steps, as it does for users."""

    case: str
    size: int
    steps: int
    device: str
    precision: str = "float32"
    resolution: int = 128
    recorded: bool = True

    def model(self) -> StyleGAN2:
        """Config-f with random weights at 512 and 1024; a thinner one below, to try it out."""
        base = 32768 if self.size >= 512 else 4096
        config = StyleGAN2Config(img_resolution=self.size, channel_base=base)
        torch.manual_seed(0)
        model = StyleGAN2(config, "random").eval().requires_grad_(False)
        for name, tensor in model.named_parameters():
            if name.endswith("noise_strength"):
                tensor.fill_(0.1)
        return model.to(self.device).compute_in(getattr(torch, self.precision))

    def points(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        places = [[round(part * self.size) for part in p] for p in PLACES[: CASES[self.case][0]]]
        return [(y, x) for y, x, _, _ in places], [(y, x) for _, _, y, x in places]

    def movable(self) -> Tensor | None:
        if not CASES[self.case][1]:
            return None
        dtype = getattr(torch, self.precision)
        mask = torch.zeros(self.size, self.size, device=self.device, dtype=dtype)
        mask[self.size // 4 : 3 * self.size // 4, self.size // 4 : 3 * self.size // 4] = 1
        return mask


def drag_speed(case: str, size: int, steps: int, device: str, threads: int = 1) -> Row:
    """One case, both sides, each in its own process."""
    words = ("--case", case, "--size", size, "--steps", steps, "--device", device)
    both = (_apart("--side", side, "--threads", threads, *words) for side in ("ours", "plain"))
    ours, plain = both
    apart = torch.tensor(ours["fronts"]) - torch.tensor(plain["fronts"])
    return {
        "times quicker": plain["seconds"] / ours["seconds"],
        "times less memory": plain["megabytes"] / ours["megabytes"],
        "ours, s a step": ours["seconds"],
        "plain, s a step": plain["seconds"],
        "ours, MB": ours["megabytes"],
        "plain, MB": plain["megabytes"],
        "largest difference of w, millionths": float(apart.abs().max()) * 1e6,
        "tracks alike": float(ours["points"] == plain["points"]),
        "region, times quicker than the map": ours["map"] / ours["region"],
    }


def table(rows: list[Row], size: int, steps: int, device: str) -> str:
    """Write results/drag.json and .md; returns the Markdown."""
    conditions = {"picture": size, "steps": steps, "device": device, "torch": torch.__version__}
    intro = ["# A drag beside the straightforward loop, random weights", ""]
    intro += [", ".join(f"{name} {value}" for name, value in conditions.items())]
    record = {"conditions": conditions, "rows": rows}
    cells = ([row["case"], *(f"{row[c]:.3g}" for c in COLUMNS)] for row in rows)
    return page(RESULTS / "drag.json", record, intro, ("case", *COLUMNS), cells)


def _apart(*words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.drag_speed", *map(str, words)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def ours(task: Task) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Our engine under the official settings, one step at a time."""
    engine, state = begun(task)
    for _ in range(task.steps):
        found, state = engine.step(state)
        yield [(int(y), int(x)) for y, x in found.points.tolist()], state.moving_ws


def begun(task: Task, model: StyleGAN2 | None = None) -> tuple[Engine, State]:
    """Our engine before its first step. model: None = the task's."""
    model = model or task.model()
    ws = model.latents(model.draw_z(1), truncation=0.7)
    settings = DragSettings.filled({"preset": "official", "feature_resolution": task.resolution})
    movable = task.movable()
    mask = None if movable is None else movable[None, None]
    engine = Engine.made(model, ws, settings, mask)
    engine = engine if task.recorded else replace(engine, capturer=None)
    points, targets = (torch.tensor(one).float() for one in task.points())
    return engine, engine.begin(points, targets)


def region(task: Task, times: int = 3) -> dict[str, float]:
    """Median seconds of features and their gradients: what a step looks at, and the whole map."""
    engine, state = begun(task)
    cuda, box = task.device != "cpu", None if engine.fixed is None else engine.fixed.box
    radius = engine.search + math.ceil(engine.disc) + 3
    moving_ws = state.moving_ws.clone().requires_grad_()

    def looked() -> Tensor:
        seen = look(engine.held, moving_ws, 128, engine.grid, state.points.cpu(), radius, box)
        return seen.windows.abs().mean() + (0 if seen.box is None else seen.box.abs().mean())

    def whole() -> Tensor:
        return engine.held.features(moving_ws, 128).abs().mean()

    found = dict[str, float]()
    for name, compute in (("region", looked), ("map", whole)):
        seconds = list[float]()
        for _ in range(times + 1):
            started = _clock(cuda)
            torch.autograd.grad(compute(), moving_ws)
            seconds.append(_clock(cuda) - started)
        found[name] = sorted(seconds[1:])[times // 2]
    return found


def plain(task: Task) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """The straightforward loop."""
    for step in plain_run(task):
        yield step.points, step.moving_ws


def plain_run(task: Task) -> Iterator[PlainStep]:
    """The same, with all that its steps tell."""
    model = task.model()
    ws = model.latents(model.draw_z(1), truncation=0.7)
    scale = task.size / 512
    radii = {"r1": round(3 * scale), "r2": round(12 * scale)}
    points, targets = task.points()
    yield from plain_steps(
        model, ws, points, targets, steps=task.steps, movable=task.movable(),
        resolution=task.resolution, **radii,
    )  # fmt: skip


def measured(side: Callable[[Task], Iterator[Any]], task: Task) -> dict[str, Any]:
    """Median seconds of a step after the first, peak memory above what a loaded model takes."""
    cuda = task.device != "cpu"
    task.model()
    before = torch.cuda.memory_allocated() if cuda else _resident()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds, points, fronts = list[float](), list[Any](), list[Any]()
    started = _clock(cuda)
    for where, moving_ws in side(task):
        seconds.append(_clock(cuda) - started)
        points.append(where)
        fronts.append(moving_ws.cpu().flatten().tolist())
        started = _clock(cuda)
    peak = torch.cuda.max_memory_allocated() if cuda else _resident()
    later = sorted(seconds[1:])
    return {
        "seconds": later[len(later) // 2],
        "megabytes": (peak - before) / 2**20,
        "points": points,
        "fronts": fronts,
    }


def _clock(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _resident() -> int:
    """The highest memory so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels of the picture")
    parser.add_argument("--steps", type=int, default=20, help="steps of each side")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--case", action="append", choices=tuple(CASES), help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "measured")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    wish = parser.parse_args()
    cases = wish.case or list(CASES)
    if wish.side:
        torch.set_num_threads(wish.threads)
        task = Task(cases[0], wish.size, wish.steps, wish.device)
        found = measured(ours if wish.side == "ours" else plain, task)
        print(json.dumps(found | (region(task) if wish.side == "ours" else {})))
        return
    how = (wish.size, wish.steps, wish.device)
    rows = Rows(wish.store / "drag_speed.jsonl", f"{how} {torch.__version__}").measure(
        (case, partial(drag_speed, case, *how, wish.threads)) for case in cases
    )
    print(table(rows, wish.size, wish.steps, wish.device))


if __name__ == "__main__":
    main()
