"""How a job's network runs on its device: precision of the weights, TF32, compiled, CUDA graphs.

Chosen where `--dtype` and `--compile` are "auto". Half precision is for `generate` and `mask`,
whose pictures are not compared with a photo. Commands that optimise through the network (null-text
inversion, learning), and those that follow a photo's inversion, keep float32 weights and let
products run in TF32: over 16 swaps it moves the background by 0.003 dB, while bfloat16 moves that
of a swap by up to 0.8 dB (`scripts/bench precision`). Latents and optimiser state are float32 or
finer.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from understudy.jobs.request import Job
from understudy.settings import RunSettings
from understudy.settings.families import flows, is_xl
from understudy.settings.run import AUTO

if TYPE_CHECKING:
    import torch

    from understudy.models.compiled import Compiled
    from understudy.models.graphs import Graphs
    from understudy.models.interface import DiffusionModel

MANY = 10_000  # calls of a verb that runs case after case
LONG = ("evaluate", "demo", "sweep")  # such verbs, by the start of their names
FOLLOWS = ("invert", "swap", "sweep", "explain", "edit")  # verbs that follow a photo's inversion
OPTIMISES = ("learn", "project", "evaluate", "demo")  # verbs that need gradients of the network


def suited(run: RunSettings, job: Job) -> RunSettings:
    """`run` with the precision that suits the job where it is "auto".

    Flow transformers are trained and published in half precision: on a GPU they get it for every
    command but those that optimise. Stable Diffusion XL gets it too, because its weights take 14 GB
    in float32; `--dtype float32` changes the background of its swaps less.
    """
    if run.dtype != AUTO:
        return run
    from understudy.models.precision import half_precision
    from understudy.models.registry import device_of

    device = device_of(run.device)
    exact = optimises(job) or (job.verb in FOLLOWS and not (flows(run.model) or is_xl(run.model)))
    half = half_precision(device) if device.type == "cuda" and not exact else None
    return replace(run, dtype="float32" if half is None else str(half).removeprefix("torch."))


def optimises(job: Job) -> bool:
    """Whether the job follows gradients through the network."""
    methods = {str(group.get("method")) for group in job.settings.values()}
    return job.verb.startswith(OPTIMISES) or bool(methods & {"null-text", "hiper"})


def network_calls(job: Job) -> int:
    """About how often the job calls the network: steps of every group, inner steps included."""
    if job.verb.startswith(LONG):
        return MANY
    total = 0.0
    for group in job.settings.values():
        steps: Any = group.get("steps") or 0
        inner: Any = group.get("inner_steps", 0) if group.get("method") == "null-text" else 0
        total += steps * (1 + 2 * inner)
    return round(total)


@contextmanager
def running(
    model: DiffusionModel, run: RunSettings, job: Job
) -> Generator[Compiled | Graphs | None]:
    """Inside the block the model's network is compiled if that is wanted or pays, or else replayed
    from CUDA graphs where it can be, and float32 products of a GPU are TF32 where the precision is
    "auto". Gives what runs the network; None = it runs as it is."""
    from understudy.models.compiled import Compilable, compiling_pays
    from understudy.models.graphs import Graphable

    compiled = graphs = None
    if isinstance(model, Compilable):
        auto = run.compile == AUTO and compiling_pays(model.device, network_calls(job))
        compiled = model.compile(auto or run.compile == "on")
    if isinstance(model, Graphable):
        graphs = model.graph(
            compiled is None and run.compile == AUTO and model.device.type == "cuda"
        )
    with tf32(model.device, run.dtype == AUTO):
        try:
            yield compiled or graphs
        finally:
            # Graphs keep memory of the device, and the next job would have to record most anew.
            if isinstance(model, Graphable):
                model.graph(False)


@contextmanager
def tf32(device: torch.device, allowed: bool) -> Generator[None]:
    """Inside the block, float32 products of a GPU may round their inputs to 10 bits of mantissa."""
    import torch

    if device.type != "cuda" or not allowed:
        yield
        return
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = True
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
