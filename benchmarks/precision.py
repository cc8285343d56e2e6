"""What half precision and TF32 do to inversions and swaps, emulated in float32 on any CPU.

    scripts/bench precision [--limit 8] [--swaps 16] [--kinds float32,tf32]     (0: none)

float16 and bfloat16: the U-Net's weights and the output of every module are rounded to it, and
computed with in float32: latents, optimiser state and everything outside the network stay float32.
tf32: the inputs and weights of every convolution and matrix product are rounded to 10 bits of
mantissa, as tensor cores do. Inverted pictures are held-out toys that no published table uses;
swaps are cases of SwapBench after those of its table. One line of JSON a case; killed, it goes on
where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import cases
from benchmarks.inversion import ddim_replay
from benchmarks.rows import Row, Rows, report, spreads
from understudy import toybox
from understudy.concept import applied
from understudy.evaluate import swapbench, truth
from understudy.evaluate.setup import Setup, pick
from understudy.evaluate.swap_scores import Answers, score
from understudy.invert.invert import method_steps
from understudy.jobs.source import InputPicture, inverted
from understudy.jobs.subjects import SwapSubjects
from understudy.jobs.swap import located, replaced
from understudy.models.interface import DiffusionModel
from understudy.models.registry import load
from understudy.pictures import metrics
from understudy.settings import InvertSettings, LearnSettings, SwapSettings
from understudy.settings.swap import inversion_for
from understudy.transfer.source_target import Replacement
from understudy.vision import examiner

ROOT = Path(__file__).parent.parent
KINDS = ("float32", "tf32", "float16", "bfloat16")
FIRST_CASE = 64  # of SwapBench; its table is of those before
aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
            aten.convolution.default}  # fmt: skip


def to_tf32(x: Tensor) -> Tensor:
    """float32 with the mantissa rounded to 10 bits, to the nearest."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class TF32(TorchDispatchMode):
    """Products inside take inputs of 10 bits of mantissa, as tensor cores do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            single = (isinstance(a, Tensor) and a.dtype == torch.float32 for a in args)
            args = tuple(to_tf32(a) if s else a for a, s in zip(args, single, strict=True))
        return func(*args, **(kwargs or {}))


@contextmanager
def emulated(network: nn.Module, kind: str) -> Generator[None]:
    """The network computes in this precision inside the block; its weights are restored after."""
    if kind in ("float32", "tf32"):
        with TF32() if kind == "tf32" else ExitStack():
            yield
        return
    dtype = cast(torch.dtype, getattr(torch, kind))
    exact = {name: value.detach().clone() for name, value in network.named_parameters()}

    def rounded(module: nn.Module, given: Any, output: Any) -> Any:
        return output.to(dtype).to(output.dtype) if isinstance(output, Tensor) else output

    handles = [module.register_forward_hook(rounded) for module in network.modules()]
    try:
        with torch.no_grad():
            for value in network.parameters():
                value.copy_(value.to(dtype))
        yield
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for name, value in network.named_parameters():
                value.copy_(exact[name])


@torch.no_grad()
def inversion(model: DiffusionModel, kinds: Sequence[str], number: int) -> Row:
    """dB of the picture replayed by DDIM without guidance and by null-text, for each kind."""
    scene = cases.scene(5000 + number)
    known, prompt = truth.shown(scene), toybox.plain_caption(scene)
    with torch.no_grad():
        latents = model.encode(known.picture)
    network = model.trainable_modules()["unet"]
    how = replace(InvertSettings.filled({}, "toybox"), method="null-text")
    row: Row = {}
    for kind in kinds:
        with emulated(network, kind):
            *_, last = method_steps(model, latents, prompt, how)
            plain = ddim_replay(model, latents, prompt, how.steps, 1.0)
        assert last.inversion is not None and last.inversion.replay is not None
        for method, found in (("DDIM", plain), ("null-text", last.inversion.replay[-1:])):
            with torch.no_grad():
                picture = model.decode(found)
            row[f"{method}, {kind}: dB"] = metrics.psnr(picture, known.picture).item()
    return row


def swap(model: DiffusionModel, setup: Setup, kinds: Sequence[str], number: int) -> Row:
    """Background and identity of a `best` swap, for each kind; the concept is of float32."""
    scorer = examiner.load_scorer()
    answers = Answers.of(swapbench.case(FIRST_CASE + number), scorer, model.picture_size[0])
    case, photos = answers.case, answers.photos
    noun = case.subject.identity.class_name
    learnt = setup.concept(case.subject.name, noun, photos, setup.settings(LearnSettings))
    source = InputPicture(case.prompt, answers.source.picture)
    target = case.prompt.replace(case.noun, learnt.phrase, 1)
    subjects = SwapSubjects((Replacement(case.noun, learnt.phrase),), (learnt,), target)
    how = SwapSettings.filled({}, model.name)
    source = located(model, source, subjects, how)
    network = model.trainable_modules()["unet"]
    pictures: dict[str, Tensor] = {}
    for kind in kinds:
        with applied(model, learnt), emulated(network, kind):
            found = drained(inverted(model, source, inversion_for(how, model.name), cache=None))
            pictures[kind] = drained(replaced(model, found, source, subjects, how, photos)).picture
    row: Row = {}
    for kind, picture in pictures.items():
        scored = score(picture, answers, scorer)
        for name in ("identity", "background, dB"):
            row[f"{name}, {kind}"] = scored[name]
            if kind != kinds[0]:
                row[f"change of {name}, {kind}"] = abs(scored[name] - row[f"{name}, {kinds[0]}"])
        if kind != kinds[0]:
            same = metrics.psnr(picture, pictures[kinds[0]]).item()
            row[f"{kind} against {kinds[0]}, dB"] = same
    return row


def drained(steps: Generator[Any, None, Any]) -> Any:
    """What a job's function returns, its events dropped."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=8, help="pictures to invert")
    parser.add_argument("--swaps", type=int, default=4)
    parser.add_argument("--kinds", default=",".join(KINDS), help="the first is compared with")
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "measured")
    wish = parser.parse_args()
    torch.set_num_threads(1)
    model, kinds = load("toybox"), pick(wish.kinds, KINDS, "--kinds")
    swaps = partial(swap, model, Setup(model, {}, wish.store), kinds)
    parts: tuple[tuple[str, int, Callable[..., Row]], ...] = (
        ("precision_inversion", wish.limit, partial(inversion, model, kinds)),
        ("precision_swap", wish.swaps, swaps),
    )
    for name, count, measure in parts:
        if not count:
            continue
        rows = Rows(wish.store / f"{name}.jsonl", f"{model.fingerprint[:12]} {' '.join(kinds)}")
        found = rows.measure((str(n), partial(measure, n)) for n in range(count))
        columns = [column for column in found[0] if ", " in column]
        title = "Precision, emulated: " + name.removeprefix("precision_")
        print(report(name, title, {"model": model.name}, spreads(found, columns)))


if __name__ == "__main__":
    main()
