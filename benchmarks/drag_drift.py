"""Why two programs of the same drag differ in the last digits: rounding, and nothing else?

    scripts/bench drift [--size 256] [--steps 20]

Our engine and the straightforward loop make the same steps in float32 and in float64. If they
computed different things, float64 would not bring them together; and of two float32 runs, neither
should be nearer to its float64 run than the other by much. Weights are random.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.drag_speed import CASES, Task, begun, plain_run
from benchmarks.rows import RESULTS, Row, page

NAMES = {
    "slope": "first slope, float32",
    "slope 64": "first slope, float64",
    "w": "w, float32",
    "w 64": "w, float64",
    "ours": "ours, 32 to 64",
    "plain": "plain, 32 to 64",
    "beyond": "numbers of w beyond 1e-5",
    "small": "their slope, of the median",
    "alike": "tracks alike",
}
INTRO = """Differences between ours and plain: of the first slope, largest over its largest; of w
after all steps, largest. "32 to 64": of a float32 run from the same program's float64 run. "Their
slope": median of |slope| at the first step over the numbers of w that differ by more than 1e-5, as
a share of the median over all."""


@dataclass(frozen=True)
class Ran:
    """Tracks, the moving layers after the last step, and the slope of the first."""

    points: list[list[tuple[int, int]]]
    moving_ws: Tensor
    slope: Tensor


def ours(task: Task) -> Ran:
    engine, state = begun(task)
    points, slope = list[list[tuple[int, int]]](), torch.empty(0)
    for step in range(task.steps):
        found, state = engine.step(state)
        points.append([(int(y), int(x)) for y, x in found.points.tolist()])
        if step == 0:
            slope = state.first / 0.1  # Adam's first moment of a first step
    return Ran(points, state.moving_ws, slope)


def plain(task: Task) -> Ran:
    steps = list(plain_run(task))
    return Ran([step.points for step in steps], steps[-1].moving_ws, steps[0].slope)


def drift(task: Task) -> Row:
    """One case, both programs, both precisions."""
    wide = replace(task, precision="float64")
    ours32, plain32, ours64, plain64 = ours(task), plain(task), ours(wide), plain(wide)
    apart = (ours32.moving_ws - plain32.moving_ws).abs()
    beyond, size = apart > 1e-5, plain64.slope.abs()
    return {
        "slope": largest(ours32.slope, plain32.slope) / float(size.max()),
        "slope 64": largest(ours64.slope, plain64.slope) / float(size.max()),
        "w": float(apart.max()),
        "w 64": largest(ours64.moving_ws, plain64.moving_ws),
        "ours": largest(ours32.moving_ws, ours64.moving_ws),
        "plain": largest(plain32.moving_ws, plain64.moving_ws),
        "beyond": f"{int(beyond.sum())} of {beyond.numel()}",
        "small": float(size[beyond].median() / size.median()) if bool(beyond.any()) else None,
        "alike": ours32.points == plain32.points == ours64.points == plain64.points,
    }


def largest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


def table(rows: list[Row], size: int, steps: int) -> str:
    """Write results/drag_drift.json and .md; returns the Markdown."""
    conditions = {"picture": size, "steps": steps, "torch": torch.__version__}
    record = {"conditions": conditions, "rows": rows}
    intro = ["# How far two programs of the same drag drift apart, random weights", ""]
    intro += [INTRO, "", ", ".join(f"{name} {value}" for name, value in conditions.items())]
    cells = (
        [row["case"], *(f"{row[k]:.2g}" if isinstance(row[k], float) else row[k] for k in NAMES)]
        for row in rows
    )
    return page(RESULTS / "drag_drift.json", record, intro, ("case", *NAMES.values()), cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="pixels; thin network below 512")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    made = partial(Task, size=wish.size, steps=wish.steps, device="cpu")
    rows = [{"case": case, **drift(made(case))} for case in CASES]
    print(table(rows, wish.size, wish.steps))


if __name__ == "__main__":
    main()
