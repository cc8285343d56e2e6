"""Perturbed-attention guidance and guidance rescale, against plain arithmetic in float64.

The reference of a perturbed network replaces the processors of the chosen layers by others, which
give their values (U-Nets) or materialise a map whose part among image tokens is the identity.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import tiny_flow
from cases import few
from flow_stub import FlowStub
from recorder import Recorder
from test_concept import concept_for
from test_graphs import noise
from tiny import KINDS, tiny_folder, tiny_model
from understudy.attention.perturbed import perturbed_layers
from understudy.attention.plan import AttentionPlan
from understudy.cli.app import app
from understudy.concept import applied
from understudy.diffusion.guidance import Guidance, Scales
from understudy.diffusion.sampler import guided_output
from understudy.errors import InputError
from understudy.generate import drawing_scales, generate
from understudy.jobs.comparison import drawn_of
from understudy.jobs.subjects import SwapSubjects
from understudy.learn.prior import PriorSource, ancestral_samples
from understudy.models.interface import scales_for
from understudy.settings import GenerateSettings, SwapSettings
from understudy.transfer.source_target import Replacement

TIME = 601
PAG = GenerateSettings(steps=3, guidance=2.0, pag_scale=1.5)


class Values:
    """A self-attention that gives its values."""

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return attn.to_out[0](attn.to_v(hidden_states))


class OwnAndWords:
    """SD 3's attention, its map materialised: an image token reads itself and the words."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: Any,
    ) -> Any:
        given = [(hidden_states, "to_{}", "norm_{}")]
        if encoder_hidden_states is not None:
            given.append((encoder_hidden_states, "add_{}_proj", "norm_added_{}"))
        parts: dict[str, Tensor] = {}
        for part in "qkv":
            of = [getattr(attn, name.format(part))(x) for x, name, _ in given]
            of = [x.unflatten(-1, (attn.heads, -1)) for x in of]
            if part != "v":
                norms = [getattr(attn, norm.format(part)) for _, _, norm in given]
                of = [x if norm is None else norm(x) for x, norm in zip(of, norms, strict=True)]
            parts[part] = torch.cat(of, dim=1).transpose(1, 2)
        cells = hidden_states.shape[1]
        logits = parts["q"] @ parts["k"].mT * parts["q"].shape[-1] ** -0.5
        others = ~torch.eye(cells, dtype=torch.bool)
        logits[..., :cells, :cells] = logits[..., :cells, :cells].masked_fill(others, -torch.inf)
        mixed = (logits.softmax(-1) @ parts["v"]).transpose(1, 2).flatten(2)
        image = attn.to_out[0](mixed[:, :cells])
        if encoder_hidden_states is None:
            return image
        words = mixed[:, cells:]
        return image, words if attn.context_pre_only else attn.to_add_out(words)


def close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() < 1e-12 * max(1.0, float(b.abs().max()))


def expected(model: Any, perturbed: Any, latents: Tensor, time: float, scales: Scales) -> Tensor:
    """The guided output of two prompts from one call a part. perturbed: the model with other
    processors."""
    text = model.embed(["a red cat", "a dog"])
    cond, other = model.predict(latents, time, text), perturbed.predict(latents, time, text)
    found = cond
    if scales.guidance != 1:
        uncond = model.predict(latents, time, model.embed(["the floor"]).expand(2))
        found = uncond + scales.guidance * (cond - uncond)
    found = found + scales.pag * (cond - other)
    deviation = [x.flatten(1).std(dim=1)[:, None, None, None] for x in (cond, found)]
    rescaled = found * deviation[0] / deviation[1]
    return scales.rescale * rescaled + (1 - scales.rescale) * found


def check(model: Any, perturbed: Any, latents: Tensor, time: float, layers: str) -> None:
    for guidance, rescale in ((2.5, 0.0), (1.0, 0.0), (2.5, 0.7)):
        scales = scales_for(model, guidance, pag=1.5, layers=layers, rescale=rescale)
        text, uncond = model.embed(["a red cat", "a dog"]), model.embed(["the floor"]).expand(2)
        before = model.nfe
        found = guided_output(model, latents, time, text, uncond, scales)
        assert model.nfe - before == (6 if guidance != 1 else 4)
        close(found, expected(model, perturbed, latents, time, scales))


@pytest.mark.parametrize(
    "kind, layers",
    few(product(KINDS, ("mid", "mid,down.1", "all")),
        [("sd15", "mid"), ("sd21", "mid,down.1"), ("toy", "all"), ("sdxl", "all")]),
)  # fmt: skip
@torch.no_grad()
def test_a_perturbed_unet_gives_values_for_self_attention(kind: str, layers: str) -> None:
    model, other = (tiny_model(kind, dtype=torch.float64) for _ in range(2))
    chosen = perturbed_layers(model.sites, layers)
    for site in model.sites:
        if site.index in chosen:
            assert site.kind == "self" and (layers == "all" or site.block in ("mid", "down"))
            other.unet.get_submodule(site.name).set_processor(Values())
    check(model, other, noise(model, 2).double(), TIME, layers)


@pytest.mark.parametrize("kind", ["sd3", "sd35"])
@pytest.mark.parametrize("layers", ["mid", "double.0", "all"])
@torch.no_grad()
def test_a_perturbed_transformer_reads_itself_and_the_words(kind: str, layers: str) -> None:
    model, other = (tiny_flow.tiny_flow(kind, dtype=torch.float64) for _ in range(2))
    chosen = perturbed_layers(model.sites, layers)
    for site in model.sites:
        if site.index in chosen:
            other.networks["transformer"].get_submodule(site.name).set_processor(OwnAndWords())
    latents = noise(model, 2).double()
    check(model, other, latents, 0.6, layers)


@pytest.mark.parametrize("kind", tiny_flow.KINDS)
@torch.no_grad()
def test_every_flow_family_is_perturbed_in_one_call(kind: str) -> None:
    """One more row a picture, whether the model has an unconditional branch or not."""
    model = tiny_flow.tiny_flow(kind)
    guided = model.guidance.kind == "cfg"
    how = {"steps": 2, "guidance": 1.0 if model.guidance.kind == "none" else 2.0}
    found = list[Tensor]()
    for scale, rows in ((0.0, 1 + guided), (1.5, 2 + guided)):
        before = model.nfe
        settings = GenerateSettings(**how, pag_scale=scale)
        found.append(generate(model, ["a red cat", "a dog"], [0, 1], settings, size=(32, 32)))
        assert model.nfe - before == 2 * 2 * rows
    assert found[1].isfinite().all() and (found[0] - found[1]).abs().max() > 1e-4


@torch.no_grad()
def test_a_scale_of_zero_is_no_guidance_bit_for_bit() -> None:
    model = tiny_model("sd15")
    text, uncond, latents = model.embed(["a cat"]), model.embed([""]), noise(model)
    before = model.nfe
    scales = scales_for(model, 3.0, pag=0.0, layers="all")
    found = guided_output(model, latents, TIME, text, uncond, scales)
    assert model.nfe - before == 2
    assert torch.equal(found, guided_output(model, latents, TIME, text, uncond, 3.0))
    one, same = GenerateSettings(steps=3), GenerateSettings(steps=3, pag_layers="all")
    assert torch.equal(*(generate(model, ["a cat"], [1], how) for how in (one, same)))


def test_rescale_gives_back_the_deviation_of_the_conditional_output() -> None:
    draws = torch.Generator().manual_seed(0)
    uncond, cond = torch.randn(2, 3, 4, 5, 5, generator=draws, dtype=torch.float64)
    whole = Guidance().combined(uncond, cond, Scales(7.5, rescale=1.0))
    plain = Guidance().combined(uncond, cond, 7.5)
    close(whole.std(dim=(1, 2, 3)), cond.std(dim=(1, 2, 3)))
    half = Guidance().combined(uncond, cond, Scales(7.5, rescale=0.5))
    close(half, (whole + plain) / 2)
    assert Guidance().combined(None, cond, Scales(1.0, rescale=0.5)) is cond


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_the_batch_does_not_change_a_picture(sampler: str) -> None:
    model = tiny_model("toy")
    how = GenerateSettings(
        steps=3, guidance=2.0, pag_scale=2.0, sampler=sampler, negative="the floor",
        guidance_rescale=0.5,
    )  # fmt: skip
    concept = concept_for(model)
    prompts, seeds = ["a photo of a (red:1.3) {rex}", "a dog"], [5, 6]
    with applied(model, concept):
        before = model.nfe
        both = generate(model, prompts, seeds, how, concepts=[concept])
        assert model.nfe - before == 3 * 2 * 3
        alone = generate(model, prompts[:1], seeds[:1], how, concepts=[concept])
        assert (alone[0] - both[0]).abs().max() < 1e-4
        plain = generate(
            model, prompts, seeds, GenerateSettings.from_dict({**how.to_dict(), "pag_scale": 0.0}),
            concepts=[concept],
        )  # fmt: skip
    assert (plain - both).abs().max() > 1e-3


def test_replayed_graphs_give_what_the_calls_give() -> None:
    plain, replaying = (tiny_model("sd15") for _ in range(2))
    graphs = replaying.graph(capturer=Recorder())
    wanted, found = (generate(one, ["a cat"], [2], PAG) for one in (plain, replaying))
    assert torch.equal(wanted, found)
    assert graphs is not None and graphs.replays == PAG.steps - 1 and not graphs.failure


# Which layers


def test_layers_are_named_by_their_blocks() -> None:
    model = tiny_flow.tiny_flow("flux")
    names = {index: site.name for index, site in enumerate(model.sites)}

    def named(wanted: str) -> list[str]:
        return [names[index] for index in sorted(perturbed_layers(model.sites, wanted))]

    every = list(names.values())
    assert named("all") == named("double, single") == every
    assert named("double.0") == [every[0]]
    doubles = [name for name in every if not name.startswith("single")]
    assert named(f"double.0-{len(doubles) - 1}") == doubles
    assert named("mid") == [every[len(every) // 2]]


@pytest.mark.parametrize("wanted", ["", "top", "up.9", "mid,,all", "down.-1", "down.1-0", "single"])
def test_a_block_that_is_not_there_is_refused(wanted: str) -> None:
    with pytest.raises(InputError, match=r"--pag-layers must name .* down\.0, down\.1, mid\.0"):
        scales_for(tiny_model("sd15"), 2.0, pag=1.0, layers=wanted)


def test_a_model_without_self_attention_is_refused() -> None:
    with pytest.raises(InputError, match="stub has no self-attention"):
        scales_for(FlowStub(), 2.0, pag=1.0)
    assert scales_for(FlowStub(), 2.0) == Scales(2.0)
    sites = [site for site in tiny_model("sd15").sites if site.kind == "cross"]
    with pytest.raises(InputError, match="no self-attention"):
        perturbed_layers(sites, "mid")


def test_another_control_is_refused() -> None:
    class Nothing:
        def plan(self, site: object) -> AttentionPlan | None:
            return None

    model = tiny_model("sd15")
    scales = scales_for(model, 1.0, pag=1.0)
    with pytest.raises(ValueError, match="no other control"):
        guided_output(model, noise(model), TIME, model.embed(["a"]), None, scales, Nothing())


# Who uses it


@pytest.mark.parametrize("guidance", ["1", "2"])
@pytest.mark.parametrize("folder", ["unet", "sd35"])
def test_the_plan_counts_the_perturbed_rows(folder: str, guidance: str) -> None:
    flow = folder != "unet"
    where = tiny_flow.tiny_flow_folder(folder) if flow else tiny_folder("sd15")
    given = ["generate", "a cat", "--model", str(where), "--steps", "3", "--guidance", guidance]
    given += ["--pag-scale", "1", "--count", "2", "--show-plan", "--json"]
    said = CliRunner().invoke(app, given)
    assert said.exit_code == 0, said.output
    model = tiny_flow.tiny_flow(folder) if flow else tiny_model("sd15")
    before = model.nfe
    settings = GenerateSettings(steps=3, guidance=float(guidance), pag_scale=1.0)
    with torch.no_grad():
        generate(model, ["a cat"] * 2, [0, 1], settings)
    assert json.loads(said.output)["rows"] == model.nfe - before


def test_class_images_are_drawn_with_it() -> None:
    model = tiny_model("toy")
    plain = PriorSource("a cat", (6, 16, 16), steps=2, guidance=3.0)
    other = PriorSource("a cat", (6, 16, 16), steps=2, guidance=3.0, pag=2.0)
    rescaled = PriorSource("a cat", (6, 16, 16), steps=2, guidance=3.0, rescale=0.5)
    assert len({one.key(model) for one in (plain, other, rescaled)}) == 3
    ends = [list(ancestral_samples(model, one, [0]))[-1] for one in (plain, other, rescaled)]
    assert all((ends[0] - end).abs().max() > 1e-3 for end in ends[1:])


def suited(folder: Path, **values: object) -> Path:
    """A copy of the tiny toy model that says what suits `generate`."""
    import shutil

    shutil.copytree(tiny_folder("toy"), folder)
    body = {"format": 1, "settings": {"generate": values}}
    (folder / "understudy.json").write_text(json.dumps(body))
    return folder


def test_pictures_of_a_concept_for_a_swap_are_drawn_as_suits_the_model(tmp_path: Path) -> None:
    from understudy.models.unet.stable_diffusion import StableDiffusion

    folder = suited(tmp_path / "suited", pag_scale=2.0, eta=1.0)
    model = StableDiffusion.from_folder(folder)
    assert drawing_scales(model, GenerateSettings.filled({}, str(folder))).pag == 2
    subjects = SwapSubjects((Replacement("dog", "cat"),), (), "a photo of a cat")
    found = drawn_of(model, SwapSettings(guidance=2.0), subjects)
    how = GenerateSettings(steps=20, guidance=2.0, pag_scale=2.0, eta=1.0)
    assert torch.equal(found, generate(model, ["a photo of a cat"] * 2, [0, 1], how))


def test_the_recipe_draws_the_picture_again(here: Path) -> None:
    where = ["--model", str(tiny_folder("toy")), "--device", "cpu"]
    given = ["generate", "a photo of cat", "--steps", "2", "--out", "one.png", *where]
    said = CliRunner().invoke(app, [*given, "--pag-scale", "2", "--guidance-rescale", "0.5"])
    assert said.exit_code == 0, said.output
    again = ["rerun", "one.png", "--out", "two.png", "--inputs", str(tiny_folder("toy").parent)]
    said = CliRunner().invoke(app, [*again, "--json"])
    assert said.exit_code == 0 and json.loads(said.stdout)["identical"], said.output
    said = CliRunner().invoke(app, [*given, "--pag-layers", "all"])
    assert "--pag-layers changes nothing without --pag-scale" in said.output
