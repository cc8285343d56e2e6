"""Replayed calls of a network give what the network gives, bit for bit, in every method.

The recorder of these tests computes again on the memory that a CUDA graph would read (see
`recorder.py`); one test records real CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cases import few
from recorder import Recorder, Refusing
from test_concept import concept_for
from tiny import KINDS, tiny_model
from understudy.attention.plan import AttentionPlan, Recording
from understudy.concept import applied
from understudy.cuda_graphs.tensor_tree import OpaqueError, ignored, structure
from understudy.diffusion.sampler import sample_steps
from understudy.diffusion.text import Text
from understudy.edit import edit_steps
from understudy.invert.inversion import Inversion
from understudy.invert.null_text import null_text_steps
from understudy.invert.source import SourceFeatures
from understudy.learn import Subject, learn_steps
from understudy.models.graphs import MOST, Graphs
from understudy.models.memory import gradient_checkpointing
from understudy.settings import EditSettings, InvertSettings, LearnSettings, SwapSettings
from understudy.swap.photoswap import parts_read, swap_steps
from understudy.transfer.source_target import Replacement, Source, Target

SOURCE, TARGET = "a photo of cat on the beach", "a photo of sks cat on the beach"
WORDS = (Replacement("cat", "sks cat"),)
STEPS = 6


def noise(model: Any, rows: int = 1) -> Tensor:
    drawn = torch.Generator().manual_seed(1)
    shape = (rows, model.latent_channels, 16, 16)
    return torch.randn(shape, generator=drawn).to(model.device)


def graphed(model: Any, **how: Any) -> Graphs:
    found = model.graph(capturer=Recorder(), **how)
    assert found is not None
    return found


def generated(model: Any) -> list[Tensor]:
    text, empty = model.embed([SOURCE]), model.embed([""])
    steps = sample_steps(model, noise(model), text, empty, steps=STEPS, guidance=5.0)
    return [step.latents for step in steps]


def inverted(model: Any, settings: SwapSettings, features: SourceFeatures | None) -> Inversion:
    how = InvertSettings(
        method="null-text", steps=STEPS, inner_steps=2, guidance=settings.guidance, epsilon=0.0
    )
    *_, last = null_text_steps(
        model, noise(model), SOURCE, how, features=features,
        parts=lambda index: parts_read(settings, index),
    )  # fmt: skip
    assert last.inversion is not None
    return last.inversion


def swapped(model: Any, preset: str) -> list[Tensor]:
    """Null-text inversion, a first swap that keeps rows, a later one that reads them."""
    settings = SwapSettings.filled({"preset": preset, "steps": STEPS, "guidance": 5.0})
    found = list[Tensor]()
    for features in (SourceFeatures(), None):
        inversion = inverted(model, settings, features)
        assert inversion.replay is not None and inversion.null_embeddings is not None
        found += [inversion.replay, inversion.null_embeddings.tokens]
        for _ in range(1 if features is None else 2):
            source = Source(inversion, features or SourceFeatures())
            *_, last = swap_steps(model, source, Target(TARGET, WORDS), settings)
            found.append(last.target)
    return found


def edited(model: Any, method: str) -> list[Tensor]:
    settings = EditSettings.filled({"method": method, "steps": STEPS, "guidance": 5.0})
    how = SwapSettings.filled({"preset": "paper", "steps": STEPS, "guidance": 5.0})
    steps = edit_steps(model, inverted(model, how, None), TARGET, settings)
    return [step.target for step in steps]


RUNS: dict[str, Callable[[Any], list[Tensor]]] = {
    "generate": generated,
    "paper": partial(swapped, preset="paper"),
    "best": partial(swapped, preset="best"),
    "p2p": partial(edited, method="p2p"),
    "pnp": partial(edited, method="pnp"),
}


SD15 = [(run, "sd15") for run in RUNS]


@pytest.mark.parametrize("run, kind", few([*SD15, ("paper", "sdxl"), ("pnp", "sdxl")], SD15))
def test_replayed_runs_give_the_same(run: str, kind: str) -> None:
    model = tiny_model(kind)
    right, before = RUNS[run](model), model.nfe
    graphs = graphed(model)
    made = RUNS[run](model)
    assert all(torch.equal(a, b) for a, b in zip(made, right, strict=True))
    assert graphs.replays > len(graphs) > 0 and graphs.failure == ""
    assert model.nfe == 2 * before


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_unet_is_replayed(kind: str) -> None:
    model = tiny_model(kind)
    right, graphs = generated(model), graphed(model)
    assert all(torch.equal(a, b) for a, b in zip(generated(model), right, strict=True))
    assert graphs.replays == STEPS - 1


class Records:
    """A control that keeps the maps of every cross-attention layer."""

    def __init__(self) -> None:
        self.maps = list[Tensor]()

    def plan(self, site: Any) -> AttentionPlan | None:
        if site.kind == "self":
            return None
        return AttentionPlan(record=Recording((1, 0), (2, 4), lambda _, maps: self.keep(maps)))

    def keep(self, maps: Tensor) -> None:
        self.maps.append(maps)


@torch.no_grad()
def test_recorded_maps_are_those_of_their_call() -> None:
    model = tiny_model()
    plain, replayed, text = Records(), Records(), model.embed([SOURCE, TARGET])
    inputs = [noise(model, 2) * scale for scale in (1, 2, 3, 4)]
    for one in inputs:
        model.predict(one, 500, text, plain)
    graphs = graphed(model)
    for one in inputs:
        model.predict(one, 500, text, replayed)
    assert graphs.replays == 3 and len(plain.maps) == len(replayed.maps) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain.maps, replayed.maps, strict=True))


def test_a_concept_and_its_end_are_seen() -> None:
    model = tiny_model()
    concept = concept_for(model)
    plain = generated(model)
    with applied(model, concept):
        changed = generated(model)
    graphs = graphed(model)
    for right, block in ((plain, False), (changed, True), (plain, False), (changed, True)):
        with applied(model, concept) if block else nullcontext():
            assert torch.equal(generated(model)[-1], right[-1])
    assert graphs.replays > STEPS and not torch.equal(plain[-1], changed[-1])


def test_weights_changed_in_place_are_read() -> None:
    model = tiny_model()
    graphs = graphed(model)
    generated(model)
    recorded = len(graphs)
    with torch.no_grad():
        for weight in model.unet.parameters():
            weight.mul_(1.01)
    made = generated(model)
    assert len(graphs) == recorded
    model.graph(False)
    assert torch.equal(made[-1], generated(model)[-1])


@torch.no_grad()
def test_the_number_of_graphs_is_bounded() -> None:
    model = tiny_model()
    text, recorder = model.embed([SOURCE]), Recorder()
    graphs = Graphs(model.unet, recorder, most=3)
    model.denoiser.graphs = graphs
    for rows in (1, 2, 3, 4, 5):
        for _ in range(3):
            model.predict(noise(model, rows), 500, text.expand(rows))
    assert len(graphs) == 3 and recorder.captures == 5
    model.predict(noise(model, 5), 500, text.expand(5))
    assert recorder.captures == 5
    model.predict(noise(model, 1), 500, text)  # dropped: as it is, then recorded again
    model.predict(noise(model, 1), 500, text)
    assert recorder.captures == 6 and len(graphs) == 3


def test_concepts_that_come_and_go_leave_a_bounded_number() -> None:
    model = tiny_model()
    graphs, concept = graphed(model), concept_for(model)
    kept = list[Tensor]()
    for _ in range(MOST + 5):
        with applied(model, concept), torch.no_grad():
            kept += [weight.data for weight in model.unet.parameters()]  # so no address comes again
            model.predict(noise(model), 500, model.embed([SOURCE]))
    assert len(graphs._weights) <= MOST + 1 and len(graphs) == 0  # pyright: ignore


def predicted(model: Any) -> Tensor:
    return model.predict(noise(model), 500, model.embed([SOURCE]))


@torch.no_grad()
def test_a_failure_runs_as_it_is_and_says_why() -> None:
    model, recorder = tiny_model(), Refusing()
    right = predicted(model)
    graphs = model.graph(capturer=recorder)
    assert all(torch.equal(predicted(model), right) for _ in range(3))
    assert graphs is not None and len(graphs) == graphs.replays == 0
    assert graphs.failure == "operation not permitted when stream is capturing"


@torch.no_grad()
def test_without_room_nothing_is_recorded() -> None:
    model = tiny_model()
    graphs = model.graph(capturer=Recorder(room=False))
    right = predicted(model)
    assert all(torch.equal(predicted(model), right) for _ in range(3))
    assert graphs is not None and graphs.replays == 0 and graphs.failure == ""


def drops(model: Any) -> Any:
    model.unet.mid_block.dropout = torch.nn.Dropout(0.5)
    return nullcontext()


def hooks(model: Any) -> Any:
    model.unet.mid_block.register_forward_hook(ignored)
    return nullcontext()


def inference(model: Any) -> Any:
    return torch.inference_mode()


def counts(model: Any) -> Any:
    return FlopCounterMode(display=False)


@pytest.mark.parametrize("special", [drops, hooks, inference, counts])
def test_special_calls_run_as_they_are(special: Any) -> None:
    model = tiny_model()
    graphs = graphed(model)
    with torch.no_grad(), special(model):
        for _ in range(3):
            predicted(model)
    assert graphs.replays == 0


def gradients(model: Any, texts: list[Text]) -> list[Tensor]:
    """Of the tokens: the passes of all texts forward, then backward in the same order."""
    leaves = [text.tokens.clone().requires_grad_() for text in texts]
    outputs = [model.predict(noise(model), 500, Text(one)) for one in leaves]
    return [torch.autograd.grad(out.square().sum(), one)[0] for out, one in
            zip(outputs, leaves, strict=True)]  # fmt: skip


def test_gradients_to_the_text_are_the_same_in_any_order() -> None:
    model = tiny_model()
    texts = [model.embed([prompt]) for prompt in (SOURCE, TARGET, "")]
    right, graphs = gradients(model, texts), graphed(model)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(gradients(model, texts), right, strict=True))
    assert graphs.replays == 5 and len(graphs) == 1


def test_checkpointed_calls_with_gradients_run_as_they_are() -> None:
    model = tiny_model()
    graphs, texts = graphed(model), [model.embed([SOURCE])] * 3
    with gradient_checkpointing(model):
        gradients(model, texts)
    assert graphs.replays == 0


def learnt(model: Any, half: str, method: str) -> list[Tensor]:
    pictures = torch.rand(2, 3, *model.picture_size, generator=torch.Generator().manual_seed(1))
    given = {"method": method, "steps": 5, "prior_samples": 0, "precision": half}
    given |= {"rank": 2} if method == "lora" else {}
    settings = LearnSettings.filled({**given, "train_text_encoder": False})
    subject = Subject("rex", "cat", pictures * 2 - 1)
    *_, last = learn_steps(model, subject, settings=settings)
    assert last.concept is not None
    return [last.concept.tensors[name] for name in sorted(last.concept.tensors)]


@pytest.mark.parametrize(
    "method, half",
    few(product(("lora", "dreambooth"), ("float32", "bfloat16")),
        [("lora", "float32"), ("dreambooth", "bfloat16")]),
)  # fmt: skip
def test_learning_gives_the_same_weights(method: str, half: str) -> None:
    model = tiny_model()
    right, graphs = learnt(model, half, method), graphed(model)
    made = learnt(model, half, method)
    assert all(torch.equal(a, b) for a, b in zip(made, right, strict=True))
    assert graphs.replays == 4 and len(graphs) == 1


def test_a_weight_that_the_output_does_not_read_gets_no_gradient() -> None:
    model = tiny_model()
    graphed(model)
    read = next(model.unet.parameters()).requires_grad_()
    model.unet.unread = torch.nn.Parameter(torch.ones(2))
    for _ in range(3):
        model.unet.zero_grad()
        predicted(model).sum().backward()
        assert model.unet.unread.grad is None and read.grad is not None and read.grad.any()


@torch.no_grad()
def test_autocast_is_replayed_in_its_dtype() -> None:
    model = tiny_model()
    plain = predicted(model)
    with torch.autocast("cpu", torch.bfloat16):
        half = predicted(model)
    graphs = graphed(model)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(predicted(model), half)
        assert torch.equal(predicted(model), plain)
    assert graphs.replays == 4 and len(graphs) == 2 and not torch.equal(plain, half)


def test_plans_that_hold_functions_have_no_structure() -> None:
    def receive(*_: Any) -> None:
        raise AssertionError

    plan = AttentionPlan(record=Recording((0,), None, receive))
    with pytest.raises(OpaqueError, match="function"):
        structure(plan, [])
    a, b = torch.zeros(2), torch.ones(2)
    assert structure((a, b, a), []) == structure((b, a, b), []) != structure((a, b, b), [])
    assert structure(replace(plan, record=None), []) != structure(AttentionPlan((0,)), [])


@pytest.mark.gpu
def test_real_graphs_give_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = tiny_model(device="cuda")
    texts, concept = [model.embed([prompt]) for prompt in (SOURCE, TARGET, "")], concept_for(model)
    runs = {**RUNS, "gradients": partial(gradients, texts=texts)}
    runs["learn"] = partial(learnt, half="bfloat16", method="lora")
    for name, run in runs.items():
        model.graph(False)
        right = run(model)
        graphs = model.graph()
        assert graphs is not None
        made = [run(model) for _ in range(2)][-1]
        assert graphs.failure == "" and graphs.replays > len(graphs) > 0, name
        # Null-text inversion doubles a difference of rounding in every step.
        least = 1e-4 if name in ("generate", "gradients") else 2e-2
        for one, other in zip(made, right, strict=True):
            assert (one - other).abs().max() <= least * other.abs().max(), name
    graphs = model.graph()
    plain = generated(model)
    with applied(model, concept):
        changed = [generated(model) for _ in range(2)][-1]
        model.graph(False)
        assert torch.allclose(changed[-1], generated(model)[-1], atol=1e-4)
    assert not torch.allclose(plain[-1], changed[-1], atol=1e-3)
