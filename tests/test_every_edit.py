"""For every way of editing: no wide attention map is made, and the model stays what it was."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from cases import few
from test_personalised import learnt
from test_schedule_search import Eye
from test_swap import TARGET, inverted, null_text
from tiny import tiny_model
from understudy.edit import WordEdits, edit
from understudy.generate import generate
from understudy.invert.source import SourceFeatures
from understudy.masks.attention import FINEST
from understudy.settings import EditSettings, GenerateSettings, SwapSettings
from understudy.swap.photoswap import swap, swap_steps
from understudy.swap.schedule_search import ScheduleSearch
from understudy.swap.sweep import Axis, cells, sweep_steps
from understudy.transfer.source_target import Replacement, Source, Target

STEPS = 3
WORDS = (Replacement("cat", "sks dog"),)
CELLS = 256  # of the largest layers here: 16 x 16
COLUMNS = 77


class Maps(TorchDispatchMode):
    """The columns of every attention map that is made: what softmax gives, or all cells by all."""

    def __init__(self) -> None:
        super().__init__()
        self.widest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 2:
                softmax = "softmax" in str(func) and "backward" not in str(func)
                if softmax or tensor.shape[-2:] == (CELLS, CELLS):
                    self.widest = max(self.widest, tensor.shape[-1])
        return made


def swapped(preset):
    def by(model, inversion):
        settings = SwapSettings.filled({"preset": preset, "steps": STEPS})
        source = Source(inversion, SourceFeatures())
        targets = [Target(prompt, WORDS) for prompt in (TARGET, "a photo of sks dog")]
        for _ in range(2):  # the source run, then from its features
            swap(model, source, targets, settings)

    return by


def chosen(model, inversion):
    settings = SwapSettings.filled({"preset": "best", "steps": STEPS})
    search = ScheduleSearch(Eye(), torch.ones(1, 3), torch.zeros(1, 3, 64, 64))
    swap(model, inversion, Target(TARGET, WORDS), settings, search=search)


def left_early(model, inversion):
    settings = SwapSettings.filled({"preset": "official", "steps": STEPS})
    steps = swap_steps(model, inversion, Target(TARGET, WORDS), settings)
    assert next(steps).index == 0


def swept(model, inversion):
    axes = Axis("self_output_steps", (0, 2)), Axis("self_map_steps", (1, 3))
    grid = cells(SwapSettings.filled({"steps": STEPS}), *axes)
    *_, _ = sweep_steps(model, inversion, TARGET, grid)


def edited(method, words=None, concepts=False, blend=(), **how):
    def by(model, inversion):
        rex = learnt(model, torch.ones(3, 16))
        target = "a photo of {rex} on the beach" if concepts else "a photo of red dog on the beach"
        asked = {"method": method, "steps": STEPS, "inversion_steps": 0, "negative": "", **how}
        settings = EditSettings.filled(asked)
        given = [rex] if concepts else []
        edit(model, inversion, Target(target, blend), settings, words=words, concepts=given)

    return by


BY_WORDS = WordEdits(weights={"red": 2.0}, windows={"dog": 0.5})
WAYS = {
    "inverted only": lambda model, inversion: None,
    "swap, paper": swapped("paper"),
    "swap, official": swapped("official"),
    "swap, best": chosen,
    "swap, left early": left_early,
    "sweep": swept,
    "p2p": edited("p2p"),
    "p2p by words": edited("p2p", BY_WORDS, blend=(Replacement("cat", "red dog"),)),
    "pnp": edited("pnp"),
    "hiper": edited("hiper", concepts=True),
    "hiper, maps kept": edited("hiper", concepts=True, cross_map_steps=2, self_map_steps=2),
}


def run(way, model):
    """Invert, and edit; the columns of the widest map that was made on the way."""
    made = inverted if way == "inverted only" else null_text  # which inverts equal models once
    with Maps() as seen:
        WAYS[way](model, made(model, width=16, steps=STEPS, guidance=7.5))
    return seen.widest


def state(model):
    """All of a model that an edit might change, and a plain picture of it."""
    parts = {name: getattr(model, name) for name in ("unet", "vae", "text_encoder")}
    tensors = {
        f"{part}.{name}": value.clone()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    tensors["picture"] = generate(model, [TARGET], [0], GenerateSettings(steps=2))
    facts = [
        (repr(module), module.training, bool(module._forward_hooks or module._forward_pre_hooks))
        for part in parts.values()
        for module in part.modules()
    ]
    grads = [p.requires_grad for part in parts.values() for p in part.parameters()]
    return facts, grads, tensors


@pytest.mark.parametrize("way", few(WAYS, WAYS.keys() - {"swap, official", "p2p", "hiper"}))
def test_no_wide_map_exists_and_the_model_is_what_it_was(way):
    model = tiny_model("toy", dtype=torch.float32)
    *before, tensors = state(model)
    # "best" finds the subject by self-attention, in maps of a bounded size.
    assert run(way, model) <= (FINEST if way == "swap, best" else COLUMNS)
    *after, others = state(model)
    assert before == after and tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], value) for name, value in others.items())


@pytest.mark.parametrize("way", ["inverted only", "swap, paper", "pnp"])
def test_where_wide_maps_exist_they_are_seen(way):
    with sdpa_kernel(SDPBackend.MATH):
        assert run(way, tiny_model("toy", dtype=torch.float32)) == CELLS
