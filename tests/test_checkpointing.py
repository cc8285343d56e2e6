"""Gradient checkpointing of networks and text encoders: equal gradients, fewer activations kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from cases import few
from test_flow_learn import photos
from tiny import tiny_model
from tiny_flow import tiny_flow, tiny_flow_folder
from understudy.learn import learn
from understudy.learn.textual_inversion import new_words
from understudy.models.memory import gradient_checkpointing
from understudy.models.transformer.model import FlowTransformer
from understudy.settings import LearnSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
WORDS = [("sks red", "dog")]


def kept_bytes(work: Callable[[], Any]) -> tuple[Any, int]:
    """What `work` returns, and the bytes of the activations that autograd keeps for it."""
    seen: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if not isinstance(value, nn.Parameter) and value.grad_fn is not None:
            seen[value.data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        found = work()
    return found, sum(seen.values())


def gradients(model: Any, wanted: bool) -> tuple[dict[str, Tensor], int]:
    """Of learnt rows in every text encoder, by a loss on all that the network reads."""
    with new_words(model, WORDS, rate=1e-3) as words, gradient_checkpointing(model, wanted):
        text, kept = kept_bytes(lambda: words.embed(["a photo of a sks red on the beach"]))
        draws = torch.Generator().manual_seed(0)
        parts = [part for part in (text.tokens, text.pooled) if part is not None]
        loss = sum((part * torch.randn(part.shape, generator=draws)).sum() for part in parts)
        torch.as_tensor(loss).backward()
        found = {name: row.grad for name, row in words.parameters.items()}
    assert all(grad is not None and grad.abs().max() > 0 for grad in found.values())
    return {name: grad for name, grad in found.items() if grad is not None}, kept


@pytest.mark.parametrize("kind", ["sd35", "flux", "chroma", "sd15"])
def test_rows_of_words_have_equal_gradients_and_less_is_kept(kind: str) -> None:
    """T5 and CLIP, float32 on the CPU: recomputing repeats the same arithmetic."""
    model = tiny_model(kind) if kind == "sd15" else tiny_flow(kind)
    plain, kept = gradients(model, False)
    again, fewer = gradients(model, True)
    assert plain.keys() == again.keys() and any("shared" in name for name in plain) == (
        kind != "sd15"
    )
    assert all(torch.equal(again[name], grad) for name, grad in plain.items())
    assert fewer < 0.5 * kept


@pytest.mark.parametrize("kind", ["sd35", "flux"])
def test_layers_are_computed_twice_in_evaluation_mode_and_left_as_they_were(kind: str) -> None:
    model = tiny_flow(kind)
    networks = [encoder.network for encoder in model.word_encoders.values()]
    layers = [m for one in networks for m in one.modules()
              if isinstance(m, GradientCheckpointingLayer)]  # fmt: skip
    before = [dict(vars(layer)) for layer in layers]
    calls, modes = list[int](), set[bool]()

    def heard(number: int) -> Callable[..., None]:
        def hear(module: nn.Module, *_: Any) -> None:
            calls.append(number)
            modes.add(module.training)

        return hear

    firsts = [next(m for m in layer.modules() if isinstance(m, nn.Linear)) for layer in layers]
    hooks = [first.register_forward_hook(heard(n)) for n, first in enumerate(firsts)]
    gradients(model, True)
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == sorted(2 * list(range(len(layers)))) and modes == {False}
    for layer, old in zip(layers, before, strict=True):
        assert vars(layer) == old
    with gradient_checkpointing(model), torch.no_grad():
        assert model.embed(["a cat"]).equals(tiny_flow(kind).embed(["a cat"]))


@pytest.mark.parametrize(
    ("kind", "method"),
    few([("sd35", "textual-inversion"), ("flux", "textual-inversion"), ("sd35", "pivotal"),
         ("flux", "pivotal"), ("flux", "lora"), ("chroma", "lora"), ("qwen", "lora"),
         ("zimage", "lora"), ("klein", "lora")],
        [("sd35", "textual-inversion"), ("flux", "pivotal"), ("chroma", "lora"), ("qwen", "lora"),
         ("zimage", "lora"), ("klein", "lora")]),
)  # fmt: skip
def test_learning_gives_the_same_concept(kind: str, method: str) -> None:
    def learnt(wanted: bool) -> dict[str, Tensor]:
        told = {"method": method, "steps": 2, "prior_samples": 0, "save_every": 0,
                "gradient_checkpointing": wanted, "precision": "float32"}  # fmt: skip
        settings = LearnSettings.filled(told, str(tiny_flow_folder(kind)))
        model = tiny_flow(kind, dtype=torch.float64)
        rex = learn(model, photos(1), name="rex", class_noun="dog", settings=settings)
        assert not model.networks["transformer"].is_gradient_checkpointing
        return dict(rex.tensors)

    one, two = learnt(False), learnt(True)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_encoders_stay_until_the_backward_pass(checkpointed: bool, monkeypatch) -> None:
    """Where parts come and go, weights that have left the device are not there for gradients."""
    wanted, _ = gradients(tiny_flow("flux"), checkpointed)
    model = tiny_flow("flux", memory="parts")
    encoders = [encoder.network for encoder in model.word_encoders.values()]
    # Tables of words are read where they wait; the layers are not.
    layers = {
        id(one): [p for n, p in one.named_parameters() if not ("embed" in n or "shared" in n)]
        for one in encoders
    }
    there = {number: [p.data for p in found] for number, found in layers.items()}
    moves = list[str]()
    plain = nn.Module.to

    def to(self: nn.Module, where: Any) -> nn.Module:
        """Away from the device stand numbers that are none."""
        if id(self) not in there:
            return plain(self, where)
        moves.append("away" if isinstance(where, str) else "here")
        for parameter, data in zip(layers[id(self)], there[id(self)], strict=True):
            away = torch.full_like(data, float("nan"))
            parameter.data = away if isinstance(where, str) else data
        return self

    monkeypatch.setattr(nn.Module, "to", to)
    with torch.no_grad():
        model.embed(["a cat"])
    assert moves[-1] == "away"
    found, _ = gradients(model, checkpointed)
    assert moves[-1] == "here"
    assert all(torch.equal(found[name], grad) for name, grad in wanted.items())
    with torch.no_grad():
        assert model.embed(["a dog"]).tokens.isfinite().all()
    assert moves[-1] == "away"
    assert isinstance(model, FlowTransformer)
