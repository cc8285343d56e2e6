"""Faults that published code for flow models has, each held off by a test.

Others are held where they belong: sampling grids in test_flow.py, inversions in
test_flow_inversions.py and test_flow_solvers.py, stock networks and pipelines in
test_flow_models.py, swaps of logits in test_joint.py and test_flow_swaps.py, FlowEdit in
test_flow_edit.py, LoRA dialects in test_flow_exchange.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from diffusers.models.transformers.transformer_z_image import ZSingleStreamAttnProcessor
from safetensors.torch import save_file
from torch import Tensor

from test_flow_learn import QUICK, photos
from tiny_flow import kl_autoencoder, tiny_flow, tiny_flow_folder
from understudy.attention.plan import AttentionPlan
from understudy.attention.site import AttentionSite
from understudy.concept.exchange import import_concept
from understudy.errors import ConceptError, ModelError
from understudy.generate import generate_steps
from understudy.invert import invert
from understudy.learn import learn
from understudy.models.family import SD3
from understudy.models.plan import empty_flow_network
from understudy.models.transformer.autoencoder import KLCodec
from understudy.models.transformer.networks import FluxNetwork
from understudy.settings import GenerateSettings, InvertSettings, LearnSettings
from understudy.settings.bases import base_named
from understudy.transfer.blend import Blend
from understudy.transfer.joint import word_blocks

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
LISTENS = AttentionPlan()


class Listening:
    def plan(self, site: AttentionSite) -> AttentionPlan:
        return LISTENS


@pytest.mark.parametrize("kind", ["sd35", "flux", "klein", "zimage"])
@torch.no_grad()
def test_a_layer_that_does_not_ask_the_control_is_an_error(kind: str) -> None:
    """Processors that somebody replaced would ignore a swap in silence."""
    model = tiny_flow(kind)
    text, latents = model.embed(["a cat"]), torch.randn(1, model.latent_channels, 16, 16)
    model.predict(latents, 0.5, text, Listening())
    *_, (path, _, _, _, layer, _) = model.network.layers()
    named = {"sd35": JointAttnProcessor2_0, "zimage": ZSingleStreamAttnProcessor}
    stock = named[kind]() if kind in named else type(layer)._default_processor_cls()
    layer.set_processor(stock)
    with pytest.raises(ModelError, match=path.replace(".", r"\.")):
        model.predict(latents, 0.5, text, Listening())


def test_fused_projections_are_refused() -> None:
    """Their queries and keys are not where a processor looks for them."""
    module: Any = tiny_flow("flux").networks["transformer"]
    module.transformer_blocks[1].attn.fuse_projections()
    with pytest.raises(ModelError, match=r"transformer_blocks\.1\.attn has fused projections"):
        FluxNetwork(module)


@pytest.mark.parametrize("kind", ["sd35", "flux", "zimage"])
@torch.no_grad()
def test_latents_keep_float32_beside_a_half_precision_network(kind: str) -> None:
    """diffusers casts them to the network's dtype in each step, which loses inversions."""
    model = tiny_flow(kind, dtype=torch.bfloat16)
    name = str(tiny_flow_folder(kind))
    how = InvertSettings.filled({"method": "euler", "steps": 4}, name)
    found = invert(model, photos(1), "a cat", how)
    assert found.trajectory.dtype == torch.float32
    assert not torch.equal(found.trajectory, found.trajectory.bfloat16().float())
    settings = GenerateSettings.filled({"steps": 3, "guidance": 1.0}, name)
    made = [step.latents for step in generate_steps(model, ["a cat"], [0], settings)]
    text = model.embed(["a cat"])
    times = model.schedule.times(3, made[0].shape[-1] * made[0].shape[-2])
    for before, after, start, end in zip(made, made[1:], times[1:], times[2:], strict=False):
        moved = before + (end - start) * model.predict(before, start, text)
        assert after.dtype == torch.float32 and torch.allclose(after, moved, atol=1e-6)


@pytest.mark.parametrize("kind", ["flux", "flux2"])
def test_a_distilled_network_is_told_scale_1_while_it_learns(kind: str) -> None:
    """At 3.5 the target, noise - clean, contradicts what the network is told."""
    model, told = tiny_flow(kind), list[Tensor]()

    def hear(_: Any, __: Any, given: dict[str, Any]) -> None:
        told.append(given["guidance"])

    settings = LearnSettings.filled({"method": "lora", **QUICK}, str(tiny_flow_folder(kind)))
    hook = model.networks["transformer"].register_forward_pre_hook(hear, with_kwargs=True)
    learn(model, photos(), name="rex", class_noun="dog", settings=settings)
    hook.remove()
    scales = torch.cat(told)
    assert len(scales) >= 3 and torch.equal(scales, torch.ones_like(scales))


@pytest.mark.parametrize("kind", ["zimage", "chroma", "klein"])
def test_class_images_of_a_batch_are_weighed_row_by_row(kind: str) -> None:
    """Two photos and two class images a step: four times, and a weight for each."""
    model, seen = tiny_flow(kind), list[tuple[Tensor, int]]()
    predict = model.predict

    def listening(latents: Tensor, time: Any, *given: Any, **told: Any) -> Tensor:
        if torch.is_grad_enabled():
            seen.append((torch.as_tensor(time), len(latents)))
        return predict(latents, time, *given, **told)

    model.predict = listening  # pyright: ignore[reportAttributeAccessIssue]
    told = {"method": "lora", **QUICK, "prior_samples": 2, "prior_steps": 2, "batch_size": 2,
            "prior_weight": 0.5, "prior_source": "drawn"}  # fmt: skip
    settings = LearnSettings.filled(told, str(tiny_flow_folder(kind)))
    rex = learn(model, photos(), name="rex", class_noun="dog", settings=settings)
    assert {rows for _, rows in seen} == {4}
    assert all(len(set(times.tolist())) == 4 for times, _ in seen)
    assert rex.record


def test_names_that_no_layer_has_are_refused_by_name(tmp_path: Path) -> None:
    """XLabs' LoRAs, and those of T5, whose number depends on the trainer."""
    flux, sd3 = tiny_flow("flux"), tiny_flow("sd35")
    pair = (torch.ones(1, 8), torch.ones(8, 1))
    for model, module, ends in (
        (flux, "double_blocks.0.processor.qkv_lora1", ("down", "up")),
        (flux, "lora_te2_encoder_block_0_layer_0_SelfAttention_q", ("lora_down", "lora_up")),
        (sd3, "lora_te3_encoder_block_0_layer_0_SelfAttention_q", ("lora_down", "lora_up")),
    ):
        file = tmp_path / "in.safetensors"
        save_file(
            {f"{module}.{end}.weight": one for end, one in zip(ends, pair, strict=True)}, file
        )
        with pytest.raises(ConceptError, match=module):
            import_concept(model, file, identifier="sks")


@pytest.mark.parametrize("name", ["stable-diffusion-3.5-medium", "stable-diffusion-3.5-large"])
def test_words_are_looked_for_in_the_published_blocks(name: str) -> None:
    """Blocks, not layers: SD 3.5 medium has a second attention in half of its blocks."""
    base = base_named(f"stabilityai/{name}")
    network = empty_flow_network(SD3, base, None)

    model = tiny_flow("sd35")
    model.networks["transformer"] = network.module
    blocks = word_blocks(model)
    sums = Blend(0, (5,), ((5,),)).sums((8, 8), blocks)
    assert sums is not None and blocks is not None and len(blocks) == 5
    heard = [site for site in network.sites if sums.wants(site)]
    assert [site.name for site in heard] == [
        f"transformer_blocks.{number}.attn" for number in sorted(blocks)
    ]


def test_an_autoencoder_without_a_shift_has_none() -> None:
    """diffusers' SD3 pipeline adds None."""
    vae = kl_autoencoder(4).eval().requires_grad_(False)
    vae.register_to_config(shift_factor=None)
    codec, latents = KLCodec(vae), torch.randn(1, 4, 8, 8)
    assert codec.shift == 0.0
    drawn = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    assert torch.equal(codec.decode(latents), drawn)
