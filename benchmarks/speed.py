"""Every ratio of speed under one command: learn, null-text and swap, drag; the machine described.

    scripts/bench speed [--device cpu] [--only learn swap drag] [--collect]

Each measurement runs in a process of its own and keeps its own page in benchmarks/results; what
all pages say together is put into speed.json and speed.md. On a CPU the sizes are such that one
core has done in about a quarter of an hour; on a GPU they are Stable Diffusion 1.5's own. --collect
measures nothing and gathers what is there.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import RESULTS, page

# What is run: on a CPU, and on anything else. {device} is filled in.
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "learn": (
        ["benchmarks.learn_speed", "--side", "128", "--width", "0.5", "--device", "{device}"],
        ["benchmarks.learn_speed", "--side", "512", "--device", "{device}"],
    ),
    "swap": (
        ["benchmarks.swap_speed", "time", "--inner", "1", "--device", "{device}"],
        ["benchmarks.swap_speed", "time", "--side", "64", "--steps", "50", "--inner", "10",
         "--device", "{device}"],
    ),
    "drag": (
        ["benchmarks.drag_speed", "--steps", "5", "--device", "{device}"],
        ["benchmarks.drag_speed", "--device", "{device}"],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """The plain way over ours: above 1 ours is quicker, or takes less memory. 0: not measured."""

    what: str
    under: str
    time: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=tuple(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--collect", action="store_true", help="measure nothing")
    wish = parser.parse_args()
    for name in () if wish.collect else wish.only:
        module, *words = COMMANDS[name][wish.device != "cpu"]
        words = [word.format(device=wish.device) for word in words]
        subprocess.run([sys.executable, "-m", module, *words], check=True)
    print(summary(list(collected(RESULTS)), machine()))


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    found = {"processor": processor(), "torch": torch.__version__, "system": platform.system()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def processor() -> str:
    """Its name and what it can do with bfloat16, which decides much on a CPU."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    said = {line.split(":")[0].strip(): line.split(":", 1)[1] for line in lines if ":" in line}
    name = said.get("model name", platform.processor() or platform.machine()).strip()
    able = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in said.get("flags", "").split()]
    return f"{name} ({', '.join(able)})" if able else name


def collected(folder: Path) -> Iterator[Ratio]:
    """The ratios in all pages of a folder of results."""
    readers: dict[str, Callable[[Any], Iterator[Ratio]]] = {
        "learn_speed.json": _learn,
        "swap_time_*.json": _swap,
        "drag.json": _drag,
    }
    for pattern, read in readers.items():
        for file in sorted(folder.glob(pattern)):
            yield from read(json.loads(file.read_text()))


def _learn(found: list[dict[str, Any]]) -> Iterator[Ratio]:
    names = {"full": "a step of DreamBooth, all weights", "lora": "a step of LoRA"}
    for one in found:
        under = f"{one['side']} pixels, width {one['width']:g}, {one['device']}"
        less = one["plain"]["memory"] / one["ours"]["memory"]
        yield Ratio(names[one["what"]], under, one["quicker"], less)


def _swap(found: dict[str, Any]) -> Iterator[Ratio]:
    said = found["conditions"]
    under = f"latents of {said['side']}, {said['steps']} steps, {said['shape']}, {said['device']}"
    for preset in said["presets"]:
        times, peaks = (found["plain over ours"][f"{preset}, {of}"] for of in ("time", "peak"))
        yield Ratio(f"null-text and a swap, {preset}", under, times["sum"], peaks["highest"])
        yield Ratio(f"a later swap, {preset}", under, times["later swap"], peaks["later swap"])


def _drag(found: dict[str, Any]) -> Iterator[Ratio]:
    said = found["conditions"]
    under = f"{said['picture']} pixels, {said['steps']} steps, {said['device']}"
    for row in found["rows"]:
        case = f"drag, {row['case']}"
        yield Ratio(f"{case}: a step", under, row["times quicker"], row["times less memory"])
        region = row["region, times quicker than the map"]
        yield Ratio(f"{case}: features where they are read", under, region, 0)


def summary(ratios: list[Ratio], where: dict[str, str]) -> str:
    """Write speed.json and speed.md; return the Markdown."""
    intro = ["# How much quicker and lighter than the plain way", ""]
    intro += [", ".join(f"{name} {value}" for name, value in where.items()), ""]
    intro += [
        "The same random weights, in the shape of the real model, and the same steps on both;",
        "on a CPU one core's own seconds. Pages of their own say how many seconds and gigabytes.",
    ]
    cells = (
        [r.what, r.under, f"{r.time:.2f}x", f"{r.memory:.2f}x" if r.memory else ""] for r in ratios
    )
    record = {"machine": where, "ratios": [asdict(one) for one in ratios]}
    return page(RESULTS / "speed.json", record, intro, ("", "under", "time", "memory"), cells)


if __name__ == "__main__":
    main()
