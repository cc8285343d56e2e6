"""Times, memory and equality of every engine on one GPU, in at most eight minutes.

    scripts/bench gpu [--minutes 8] [--device cuda] [--miniature]

Stable Diffusion 1.5's U-Net and StyleGAN2's config-f with random weights. Each engine runs as
published ("plain", float32 without TF32) and as ours in several ways: float32, TF32, TF32 compiled,
bfloat16, bfloat16 compiled; evaluations by CUDA graphs as well, which no command uses until they
are measured. Printed as it goes; what does not fit into the time is named. The most telling parts
come first. --miniature: small networks and few steps, to try the script on a CPU.

"apart" is the largest difference from the right answer, as a share of its largest value: an
evaluation from one in float32, a swap from the plain swap of the same inversion, the w of a drag
from the plain one after as many steps, the first loss of learning from that in float32. Null-text
inversions cannot be compared like this (they part by rounding); dB says how well they replay.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_engines import drags, learning, swaps
from benchmarks.gpu_table import GRAPHS, WAYS, Size, Table, apart, median, noise, prepared
from benchmarks.rows import RESULTS, page
from benchmarks.shapes import Shaped
from benchmarks.speed import machine
from benchmarks.swap_speed import SOURCE, TARGET
from understudy.diffusion.text import Text
from understudy.jobs.execution import tf32

# Evaluations of the network


def evaluations(table: Table) -> None:
    """One call of two rows, each way, and its share of what a large matrix product reaches."""
    size, right = table.size, None
    for way in (*WAYS, GRAPHS):
        if not table.has_time(f"evaluation, {way.name}"):
            continue
        model = prepared(size, way)
        text, x = model.embed([SOURCE, TARGET]), noise(size, 2)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            Shaped(size.shape, size.device).predict(x, 500, text.to(torch.float32))
        with torch.no_grad(), tf32(model.device, way.tf32):
            seconds = median(size.device, partial(model.predict, x, 500, text))
            made = model.predict(x, 500, text)
            most = reached(size.device, way.dtype)
        right = made if right is None else right
        achieved = counted.get_total_flops() / seconds / 1e12
        table.add("evaluation of 2 rows", way.name, seconds, 0.0, TFLOPS=achieved,
                  share_of_matmul=achieved / most, apart=apart(made[-1:], right))  # fmt: skip


def reached(device: str, dtype: torch.dtype) -> float:
    """TFLOPS of one large matrix product."""
    side = 8192 if device.startswith("cuda") else 512
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / median(device, lambda: a @ a) / 1e12


# What the time goes to


def profile(table: Table) -> None:
    """The ten kernels that take most of an evaluation, and of an inner step of null-text inversion,
    with the share of the time in which the device computes; attention's backend."""
    size = table.size
    if not table.has_time("profile"):
        return
    for what, way in (("evaluation", WAYS[3]), ("inner step", WAYS[1])):
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
    computing = sum(getattr(event, by.replace("cuda", "device")) for event in events) / 1e6
    table.add(f"profile: {what}", "ours", seconds, 0.0, busy=min(computing / seconds, 1.0))


def flash(size: Size, dtype: torch.dtype) -> str:
    """PyTorch's own answer whether attention of the largest layer takes the flash kernel."""
    if not size.device.startswith("cuda"):
        return "no CUDA"
    from torch.backends.cuda import SDPAParams, can_use_flash_attention

    q = torch.randn(2, 8, size.side**2, 40, device=size.device, dtype=dtype)
    return str(can_use_flash_attention(SDPAParams(q, q, q, None, 0.0, False, False)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--miniature", action="store_true")
    wish = parser.parse_args()
    size = Size(wish.device)
    if wish.miniature:
        size = Size(wish.device, "small", 8, 2, 1, (128,), 0.1, 64, "eager")
    table = Table(size, time.monotonic() + 60 * wish.minutes, [], [])
    torch.backends.cudnn.allow_tf32 = False  # off unless a way asks for it
    for part in (evaluations, profile, swaps, drags, learning):
        part(table)
    if wish.miniature:
        return
    names = sorted({key for row in table.rows for key in row} - {"what", "how"})
    intro = ["# Every engine on one GPU", "", ", ".join(f"{k} {v}" for k, v in machine().items())]
    intro += [f"Skipped for want of time: {', '.join(table.skipped)}."] if table.skipped else []
    cells = (
        [row["what"], row["how"], *(f"{row[n]:.3g}" if n in row else "" for n in names)]
        for row in table.rows
    )
    print(page(RESULTS / "gpu.json", table.rows, intro, ("", "how", *names), cells))


if __name__ == "__main__":
    main()
