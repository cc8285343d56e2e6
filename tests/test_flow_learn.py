"""Learning on flow models: the loss, what trains, preservation; and the whole path by commands."""

from __future__ import annotations

from math import exp
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tiny_flow import tiny_flow, tiny_flow_folder
from understudy.cli.app import app
from understudy.concept import applied
from understudy.diffusion.flow import DynamicShift, FlowSchedule
from understudy.errors import InputError
from understudy.learn import dreambooth, learn
from understudy.learn.batches import Batches, Prior
from understudy.learn.latent_cache import encode_photos
from understudy.learn.lora import low_rank
from understudy.learn.loss import Rows, row_losses
from understudy.settings import LearnSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
QUICK = {"steps": 3, "prior_samples": 0, "learning_rate": 1e-3, "save_every": 0}


def photos(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_loss_is_flow_matching() -> None:
    """|| v(x_sigma, sigma) - (noise - clean) ||^2, times shifted logit-normal, in float32."""
    model = tiny_flow("sd35")
    clean, noise = torch.randn(2, 2, 4, 16, 12, generator=torch.Generator().manual_seed(0))
    sigma = model.schedule.draw_times(2, torch.Generator().manual_seed(1), 16 * 12)
    assert sigma.dtype == torch.float32
    drawn = torch.randn(2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logit = drawn.sigmoid()
    assert torch.allclose(sigma.double(), 3 * logit / (1 + 2 * logit), atol=1e-6)  # SD3: shift 3
    text = model.embed(["a cat", "a dog"])
    ones = torch.ones(2)
    rows = Rows(clean, noise, sigma, torch.arange(2), torch.zeros(2).long(), ones)
    losses = row_losses(model, rows, text)
    for n in range(2):
        x = (1 - sigma[n]) * clean[n : n + 1] + sigma[n] * noise[n : n + 1]
        v = model.predict(x, float(sigma[n]), text[n])
        wanted = (v - (noise - clean)[n : n + 1]).square().mean()
        assert losses[n].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_times_shift_with_the_resolution() -> None:
    schedule = FlowSchedule(DynamicShift(), cells_per_token=4)
    small, large = (
        schedule.draw_times(2000, torch.Generator().manual_seed(0), side * side).double()
        for side in (32, 128)
    )
    odds = (large / (1 - large)) / (small / (1 - small))
    assert odds.median().item() == pytest.approx(exp(1.15 - 0.5), rel=1e-3)


@pytest.mark.parametrize("kind", ["flux", "chroma", "klein", "flux2", "qwen", "zimage"])
def test_a_family_s_own_targets_name_its_layers(kind: str) -> None:
    """Each target is a layer; FLUX.2 has lists of them under the name of one."""
    model, folder = tiny_flow(kind), str(tiny_flow_folder(kind))
    settings = LearnSettings.filled({"method": "lora", **QUICK, "steps": 1}, folder)
    rex = learn(model, photos(1), name="rex", class_noun="dog", settings=settings)
    names = [name.removesuffix(".weight.lora_A") for name in rex.tensors if name.endswith("lora_A")]
    targets = settings.targets.split(",")
    assert all(any(name.endswith(f".{one}") for name in names) for one in targets)
    with pytest.raises(InputError, match="--targets must name layers"):
        with low_rank(model, rank=1, alpha=1, targets=["attn"], train_text=False, seed=0):
            pass
    if kind in ("klein", "flux2"):
        assert "transformer.transformer_blocks.0.attn.to_out.0" in names
        assert "transformer.single_transformer_blocks.0.attn.to_out" in names


def test_lora_adapts_both_streams_and_leaves_the_model_alone() -> None:
    model = tiny_flow("sd35")
    settings = LearnSettings.filled({"method": "lora", **QUICK}, str(tiny_flow_folder("sd35")))
    assert settings.rank == 16 and "add_q_proj" in settings.targets
    assert not settings.train_text_encoder
    before = model.fingerprint
    rex = learn(model, photos(), name="rex", class_noun="dog", settings=settings)
    names = {name.rpartition(".")[0] for name in rex.tensors}
    assert "transformer.transformer_blocks.0.attn.to_q.weight" in names
    assert "transformer.transformer_blocks.1.attn.add_k_proj.weight" in names
    assert "transformer.transformer_blocks.0.attn2.to_v.weight" in names
    assert model.fingerprint == before and rex.base_fingerprint == before
    x, text = torch.randn(1, 4, 16, 16), model.embed(["a sks dog"])
    plain = model.predict(x, 0.5, text)
    with applied(model, rex):
        assert not torch.equal(model.predict(x, 0.5, text), plain)
    assert torch.equal(model.predict(x, 0.5, text), plain)


@pytest.mark.parametrize("method", ["dreambooth", "hiper", "textual-inversion"])
def test_the_other_methods_learn_as_well(method: str) -> None:
    model = tiny_flow("sd35")
    settings = LearnSettings.filled({"method": method, **QUICK}, str(tiny_flow_folder("sd35")))
    rex = learn(model, photos(1), name="rex", class_noun="dog", settings=settings)
    names = set(rex.tensors)
    if method == "hiper":
        assert names == {"tail"} and rex.tensors["tail"].shape == (5, 24)
    elif method == "dreambooth":
        assert all(name.startswith("transformer.") for name in names) and len(names) > 50
    else:
        parts = {"text_encoder", "text_encoder_2", "text_encoder_3"}
        assert {name.split(".")[0] for name in names} == parts
    with applied(model, rex):
        model.predict(torch.randn(1, 4, 16, 16), 0.5, model.embed([f"a {rex.phrase}"]))


def test_a_network_too_large_to_train_whole_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(dreambooth, "LARGEST", 1000)
    with pytest.raises(InputError, match="Use --method lora"):
        learn(tiny_flow("sd35"), photos(1), name="rex", class_noun="dog",
              settings=LearnSettings.filled({**QUICK, "train_text_encoder": False}))  # fmt: skip


def test_output_preservation_keeps_what_the_class_gives() -> None:
    """Its loss is 0 before training and grows with it; the target is the frozen base's output."""
    model = tiny_flow("sd35")
    bank = encode_photos(model, photos())
    prior = Prior(("a photo of a dog",), bank, 1.0, by_output=True)
    batches = Batches(bank, (("a photo of a sks dog",),), prior, 2, model.schedule)
    with low_rank(
        model, rank=2, alpha=2.0, targets=["to_q", "to_v"], train_text=False, seed=0
    ) as trainable:
        (rows,) = batches.draw(torch.Generator().manual_seed(0))
        assert rows.by_base and len(rows) == 4
        text = model.embed(batches.prompts)[rows.prompts]
        with torch.no_grad():
            first = row_losses(model, rows, text, trainable.base)
            assert first[rows.part == 1].max() < 1e-9 < 1e-3 < first[rows.part == 0].min()
            for name, parameter in trainable.parameters.items():
                parameter += 0.3 * ("lora_B" in name)
            later = row_losses(model, rows, text, trainable.base)
            assert later[rows.part == 1].min() > 0
            loose = row_losses(model, rows.share(1, 2), text[[1, 3]], trainable.base)
            assert torch.allclose(loose, later[[1, 3]], rtol=1e-4)


def test_output_preservation_trains_under_autocast() -> None:
    """autocast keeps weights that it has cast: the pass of the untrained ones must leave none."""
    model = tiny_flow("sd35")
    bank = encode_photos(model, photos())
    prior = Prior(("a photo of a dog",), bank, 1.0, by_output=True)
    batches = Batches(bank, (("a photo of a sks dog",),), prior, 2, model.schedule)
    (rows,) = batches.draw(torch.Generator().manual_seed(0))
    text = model.embed(batches.prompts)[rows.prompts]
    with dreambooth.whole_model(model, train_text=False) as trainable:
        with torch.no_grad():
            for parameter in trainable.parameters.values():
                parameter += 0.1 * parameter.abs().mean()
        found: list[torch.Tensor] = []
        for cache in (True, False):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=cache):
                found.append(row_losses(model, rows, text, trainable.base))
    assert torch.equal(*found) and found[0][rows.part == 1].min() > 0


@pytest.mark.parametrize("kind", ["sd35", "flux"])
def test_learn_then_swap_edit_and_invert(kind: str, here: Path) -> None:
    """The whole path by commands: photos to a concept, and the concept in another photo."""
    model = ["--model", str(tiny_flow_folder(kind)), "--device", "cpu"]

    def run(*words: str) -> str:
        said = CliRunner().invoke(app, [*words, *model])
        assert said.exit_code == 0, said.output
        return said.output

    for words in (
        ["toybox", "subject", "--seed", "49", "--photos", "2", "--out", "rex"],
        ["toybox", "render", "--seed", "12", "--out", "photo.png"],
    ):
        assert CliRunner().invoke(app, words).exit_code == 0
    run("learn", "rex", "--class", "dog", "--name", "rex", "--method", "lora", "--steps", "2",
        "--preservation", "output")  # fmt: skip
    prompt = ["photo.png", "--prompt", "a photo of a cat on the beach", "--steps", "3"]
    run("swap", *prompt, "--swap", "cat=rex", "--out", "swapped.png")
    target = ["--to", "a photo of a dog on the beach"]
    run("edit", *prompt, *target, "--method", "flowedit", "--out", "edited.png")
    run("edit", *prompt, *target, "--blend", "cat=dog", "--out", "words.png")
    said = run("invert", *prompt, "--method", "implicit")
    assert "reconstruction" in said
    assert all((here / f"{name}.png").is_file() for name in ("swapped", "edited", "words"))
    refused = CliRunner().invoke(app, ["invert", *prompt, "--method", "null-text", *model])
    assert refused.exit_code != 0 and "Use direct" in f"{refused.exception} {refused.output}"
