"""Times, memory and equality of every engine on one GPU, in at most eight minutes.

    scripts/bench gpu [--minutes 8] [--part NAME ...] [--ways uncompiled] [--out FILE]

Stable Diffusion 1.5's U-Net and StyleGAN2's config-f with random weights. Each engine runs as
published ("plain", float32 without TF32) and as ours in several ways: float32, TF32, bfloat16; the
last two compiled, replayed from CUDA graphs, and both. "first_ms": the first time, with what is
compiled or recorded in it. Printed as it goes; what does not fit into the time is named. All that
runs without compiling comes first: each compiled way costs half a minute or more of compiling.

--out FILE: rows are appended to it as they come, so that a run that is killed keeps them. A later
run with the same FILE compares its ways with the plain ones in it; --page only writes the page of
them. --miniature: small networks and few steps, to try the script on a CPU.

"apart" is the largest difference from the right answer, as a share of its largest value: an
evaluation from one in float32, a swap from the plain swap of the same inversion, the w of a drag
from the plain one after as many steps, the first loss of learning from that in float32. Null-text
inversions cannot be compared like this (they part by rounding); dB says how well they replay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_engines import drags, learning, swaps
from benchmarks.gpu_table import (
    PROFILED,
    WAYS,
    Size,
    Table,
    apart,
    conditions,
    median,
    noise,
    prepared,
    told,
    ways,
)
from benchmarks.rows import RESULTS, page
from benchmarks.shapes import Shaped
from benchmarks.swap_speed import SOURCE, TARGET
from understudy.diffusion.text import Text
from understudy.jobs.execution import tf32

# Evaluations of the network


def evaluations(table: Table, compiled: bool) -> None:
    """One call of two rows, each way, and its share of what a large matrix product reaches."""
    size = table.size
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        meta = replace(size, device="meta")
        evaluation(meta, prepared(meta, WAYS[0]))()
    flops = counted.get_total_flops()
    for way in ways(compiled, WAYS):
        if not table.has_time(f"evaluation, {way.name}"):
            continue
        model = prepared(size, way)
        call = evaluation(size, model)
        with torch.no_grad(), tf32(torch.device(size.device), way.tf32):
            seconds, made = median(size.device, call), call()
            most = reached(size.device, way.dtype)
        right = table.answer("evaluation", evaluation(size, prepared(size, WAYS[0])))
        achieved = flops / seconds / 1e12
        table.add("evaluation of 2 rows", way.name, seconds, 0.0, TFLOPS=achieved,
                  share_of_matmul=achieved / most, apart=apart(made[-1:], right),
                  **told(model))  # fmt: skip


def evaluation(size: Size, model: Shaped) -> Callable[[], Tensor]:
    """A call of two rows."""
    text, x = model.embed([SOURCE, TARGET]), noise(size, 2)

    def call() -> Tensor:
        with torch.no_grad():
            return model.predict(x, 500, text)

    return call


def reached(device: str, dtype: torch.dtype) -> float:
    """TFLOPS of one large matrix product."""
    side = 8192 if device.startswith("cuda") else 512
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / median(device, lambda: a @ a) / 1e12


# What the time goes to


def profile(table: Table, compiled: bool) -> None:
    """The ten kernels that take most of an evaluation, and of an inner step of null-text inversion,
    with the share of the time in which the device computes; attention's backend."""
    size = table.size
    if compiled or not table.has_time("profile"):
        return
    for what, way in PROFILED.items():
        model = prepared(size, way)
        text, x = model.embed([SOURCE, TARGET]), noise(size, 2)
        text.tokens.requires_grad_(what == "inner step")

        def run(model: Shaped = model, x: Tensor = x, text: Text = text) -> None:
            with torch.set_grad_enabled(text.tokens.requires_grad):
                out = model.predict(x[:1] if text.tokens.requires_grad else x, 500,
                                    text[:1] if text.tokens.requires_grad else text)  # fmt: skip
            if text.tokens.requires_grad:
                out.square().mean().backward()

        with tf32(model.device, way.tf32):
            profiled(table, f"{what}, {way.name}", run)
    print(f"flash attention in bfloat16: {flash(size, torch.bfloat16)}, in float32: "
          f"{flash(size, torch.float32)}", flush=True)  # fmt: skip


def profiled(table: Table, what: str, run: Callable[[], None]) -> None:
    """Print the ten kernels of a run that take most; add how busy the device was."""
    kinds, device = [torch.profiler.ProfilerActivity.CPU], table.size.device
    if device.startswith("cuda"):
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    seconds = median(device, run)
    with torch.profiler.profile(activities=kinds) as seen:
        run()
        if len(kinds) == 2:
            torch.cuda.synchronize()
    events = seen.key_averages()
    by = "self_cuda_time_total" if len(kinds) == 2 else "self_cpu_time_total"
    print(events.table(sort_by=by, row_limit=10), flush=True)
    if len(kinds) == 2:  # kernels; operators are told their kernels' time as well
        events = [event for event in events if event.device_type.name == "CUDA"]
    computing = sum(getattr(event, by.replace("cuda", "device")) for event in events) / 1e6
    table.add(f"profile: {what}", "ours", seconds, 0.0, busy=min(computing / seconds, 1.0))


def flash(size: Size, dtype: torch.dtype) -> str:
    """PyTorch's own answer whether attention of the largest layer takes the flash kernel."""
    if not size.device.startswith("cuda"):
        return "no CUDA"
    from torch.backends.cuda import SDPAParams, can_use_flash_attention

    q = torch.randn(2, 8, size.side**2, 40, device=size.device, dtype=dtype)
    return str(can_use_flash_attention(SDPAParams(q, q, q, None, 0.0, False, False)))


PARTS = {"evaluations": evaluations, "swaps": swaps, "drags": drags, "learning": learning,
         "profile": profile}  # fmt: skip
PASSES = {"uncompiled": (False,), "compiled": (True,), "all": (False, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--ways", choices=PASSES, default="all")
    parser.add_argument("--out", type=Path, help="append rows to this file, and know those in it")
    parser.add_argument("--page", action="store_true", help="only write the page of --out's rows")
    parser.add_argument("--miniature", action="store_true")
    wish = parser.parse_args()
    if wish.page and not wish.out:
        parser.error("--page needs --out FILE with the rows")
    size = Size(wish.device)
    if wish.miniature:
        size = Size(wish.device, "small", 8, 2, 1, (128,), 3, 0.1, 64, "eager")
    table = Table(size, time.monotonic() + 60 * wish.minutes, [], [])
    if wish.page:
        table.earlier = [json.loads(line) for line in wish.out.read_text().splitlines()]
    elif wish.out:
        table.read_from(wish.out)
    torch.backends.cudnn.allow_tf32 = False  # off unless a way asks for it
    for compiled in () if wish.page else PASSES[wish.ways]:
        for part in wish.part:
            PARTS[part](table, compiled)
    if not wish.miniature:
        print(written(table))


def written(table: Table) -> str:
    """Write results/gpu.json and .md; returns the Markdown."""
    rows = [{"on": conditions(table.size)} | row for row in table.rows]
    rows = table.earlier + rows if table.earlier else rows
    rows = list({(row["what"], row["how"]): row for row in rows}.values())
    names = sorted({key for row in rows for key in row} - {"what", "how", "on"})
    intro = ["# Every engine on one GPU", "", *dict.fromkeys(row["on"] for row in rows)]
    intro += [f"Skipped for want of time: {', '.join(table.skipped)}."] if table.skipped else []
    cells = (
        [row["what"], row["how"], *(f"{row[n]:.3g}" if n in row else "" for n in names)]
        for row in rows
    )
    return page(RESULTS / "gpu.json", rows, intro, ("", "how", *names), cells)


if __name__ == "__main__":
    main()
