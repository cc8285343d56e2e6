"""Counts kernels, synchronisations, waits and compiled graphs of steps; prints them as JSON.

A program of its own: see `test_operators.py`.
"""

import json
from dataclasses import asdict
from typing import Any

import torch
import torch._dynamo as dynamo
from torch._dynamo.utils import counters

from benchmarks import operators, training, waits
from tiny import tiny_model
from understudy.diffusion.sampler import sample_steps
from understudy.invert.inversion import ddim_inversion_steps
from understudy.settings import SwapSettings
from understudy.swap.photoswap import swap_steps
from understudy.transfer.source_target import Replacement, Target

PROMPTS = ("a photo of cat", "a photo of sks cat")


def main() -> None:
    first, later = operators.swaps(side=8, steps=3)
    null_text = operators.null_text(side=8, steps=2, inner=2)
    found: dict[str, Any] = {
        "swap": {
            which: {"share": row.share, "syncs": row.syncs}
            for which, row in (("first", first), ("later", later))
        },
        "null-text": {"share": null_text.share},
        "drag": {
            case: operators.drag(case).share for case in ("1 point", "3 points", "2 points, mask")
        },
        "learn": {method: operators.learning(method).share for method in training.METHODS},
        "drag reads": {case: operators.drag_reads(case) for case in ("3 points", "2 points, mask")},
    }
    found["waits"] = [asdict(one) for one in waits.every_loop()]
    print(json.dumps(found | graphs()))


def graphs() -> dict[str, Any]:
    """Graphs of a compiled network while sampling, then while swapping."""
    model = tiny_model("sd15", shallow=True)
    photo = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    *_, last = ddim_inversion_steps(model, photo, PROMPTS[0], steps=4)
    inversion = last.inversion
    assert inversion is not None
    text, uncond = model.embed(PROMPTS[:1]), model.embed([""])
    settings = SwapSettings.filled({"preset": "paper", "steps": 4, "guidance": 5.0})

    def sampled() -> torch.Tensor:
        steps = sample_steps(model, inversion.noise, text, uncond, steps=4, guidance=5.0)
        return [step.latents for step in steps][-1]

    def swapped() -> tuple[torch.Tensor, int]:
        target = Target(PROMPTS[1], (Replacement("cat", "sks cat"),))
        steps = list(swap_steps(model, inversion, target, settings))
        kinds = {(step.swaps, step.nfe, step.index == 0) for step in steps if step.nfe}
        return steps[-1].target, len(kinds)

    plain, (swap, kinds) = sampled(), swapped()
    dynamo.reset()
    model.denoiser.unet = torch.compile(model.denoiser.unet, backend="eager", fullgraph=True)
    found: dict[str, Any] = {"sampling equal": torch.equal(sampled(), plain)}
    found["sampling graphs"] = before = counters["stats"]["unique_graphs"]
    target, _ = swapped()
    found |= {"swap equal": torch.equal(target, swap), "swap kinds": kinds}
    found["swap graphs"] = counters["stats"]["unique_graphs"] - before
    swapped()
    found["swap graphs again"] = counters["stats"]["unique_graphs"] - before
    return found


if __name__ == "__main__":
    main()
