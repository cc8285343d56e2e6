"""Runs of models whose network is compiled; prints what was found as JSON.

A program of its own, without run-time type checks: see `test_compiled.py`. The backend traces as
the real one does and computes as the network does, so results are equal to the last bit.
"""

import json
from typing import Any

import torch
import torch._dynamo as dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters

from tiny import tiny_model
from tiny_flow import tiny_flow
from understudy.diffusion.sampler import sample_steps
from understudy.edit import edit_steps
from understudy.invert.inversion import ddim_inversion_steps
from understudy.invert.null_text import null_text_steps
from understudy.learn import Subject, learn_steps
from understudy.models.compiled import Compiled
from understudy.settings import EditSettings, InvertSettings, LearnSettings, SwapSettings
from understudy.swap.photoswap import swap_steps
from understudy.transfer.source_target import Replacement, Target

PROMPTS = ("a photo of cat", "a photo of sks cat")


def inverted(model: Any) -> Any:
    photo = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    *_, last = ddim_inversion_steps(model, photo, PROMPTS[0], steps=3)
    return last.inversion


def edited(model: Any, method: str) -> Tensor:
    settings = EditSettings.filled({"method": method, "steps": 3, "guidance": 5.0})
    *_, last = edit_steps(model, inverted(model), PROMPTS[1], settings)
    return last.target


def null_text(model: Any) -> Tensor:
    photo = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    how = InvertSettings(method="null-text", steps=2, guidance=7.5, inner_steps=2)
    *_, last = null_text_steps(model, photo, PROMPTS[0], how)
    return last.inversion.replay[-1:]


def learnt(model: Any) -> Tensor:
    pictures = torch.rand(2, 3, *model.picture_size, generator=torch.Generator().manual_seed(1))
    given = {"method": "lora", "steps": 2, "prior_samples": 0, "precision": "float32", "rank": 2}
    how = LearnSettings.filled({**given, "train_text_encoder": False})
    *_, last = learn_steps(model, Subject("rex", "cat", pictures * 2 - 1), settings=how)
    return torch.cat(
        [last.concept.tensors[name].flatten() for name in sorted(last.concept.tensors)]
    )


RUNS = {
    "null-text": null_text,
    "p2p": lambda model: edited(model, "p2p"),
    "pnp": lambda model: edited(model, "pnp"),
    "learn": learnt,
}


def unet() -> dict[str, Any]:
    """For each run: whether a compiled network gives the same, and whether it was compiled."""
    found: dict[str, Any] = {}
    model = tiny_model("sd15", shallow=True)
    for name, run in RUNS.items():
        plain = run(model)
        compiled = model.compile(backend="eager")
        again = run(model)
        assert compiled is not None
        found[name] = {"equal": torch.equal(plain, again), "failure": compiled.failure}
        model.compile(False)
    return found


def flow(kind: str) -> dict[str, Any]:
    """A call of a tiny flow model, plain and compiled."""
    model: Any = tiny_flow(kind)
    text = model.embed(["a cat"])
    latents = torch.randn(1, model.latent_channels, 8, 8)
    with torch.no_grad():
        plain = model.predict(latents, 0.5, text)
        compiled = model.compile(backend="eager")
        again = model.predict(latents, 0.5, text)
    return {"equal": torch.equal(plain, again), "failure": compiled.failure}


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
    model.denoiser.unet = torch.compile(model.denoiser.unet, backend="eager", fullgraph=True)
    found: dict[str, Any] = {"sampling equal": torch.equal(sampled(), plain)}
    found["sampling graphs"] = before = counters["stats"]["unique_graphs"]
    target, _ = swapped()
    found |= {"swap equal": torch.equal(target, swap), "swap kinds": kinds}
    found["swap graphs"] = counters["stats"]["unique_graphs"] - before
    swapped()
    found["swap graphs again"] = counters["stats"]["unique_graphs"] - before
    dynamo.reset()
    return found


class Reads(nn.Module):
    """Cannot be compiled as one graph: it asks for a number on the way."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


def refused() -> dict[str, Any]:
    """A network that cannot be compiled runs as it is, and says why."""
    compiled = Compiled(Reads(), "eager")
    right = torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    return {"right": right and torch.equal(compiled(-torch.ones(2)), -torch.ones(2)),
            "failure": compiled.failure}  # fmt: skip


if __name__ == "__main__":
    found = {"graphs": graphs(), **unet(), "refused": refused()}
    print(json.dumps(found | {kind: flow(kind) for kind in ("sd35", "flux")}))
