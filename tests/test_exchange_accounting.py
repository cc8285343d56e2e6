"""Every entry of a LoRA or embedding file is used, listed as left out, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tiny import tiny_model
from understudy.concept import Concept, applied, named_parameters
from understudy.concept.exchange import import_concept
from understudy.errors import ConceptError, ModelError

STEM = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
WEIGHT = f"unet.{STEM}.weight"
KOHYA = "lora_unet_" + STEM.replace(".", "_")
TEXT = "encoder.layers.0.self_attn.q_proj"


def halves(weight: str = WEIGHT, kind: str = "sd15", rank: int = 4) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) for a weight of the tiny model."""
    outputs, inputs = named_parameters(tiny_model(kind))[weight].shape
    random = torch.Generator().manual_seed(3)
    return (
        torch.randn(rank, inputs, generator=random),
        torch.randn(outputs, rank, generator=random),
    )


def taken(folder: Path, tensors: dict[str, Tensor], notes: dict[str, str] | None = None) -> Concept:
    save_file({k: v.clone() for k, v in tensors.items()}, folder / "in.safetensors", notes)
    return import_concept(tiny_model(), folder / "in.safetensors", identifier="sks")


def change(concept: Concept, weight: str = WEIGHT, kind: str = "sd15") -> Tensor:
    """What a concept adds to a weight of the tiny model."""
    model = tiny_model(kind)
    before = named_parameters(model)[weight].detach().clone()
    with applied(model, concept):
        return named_parameters(model)[weight].detach() - before


def close(found: Tensor, wanted: Tensor) -> bool:
    return float((found - wanted).abs().max() / wanted.abs().max()) < 1e-6


def peft(**settings: Any) -> dict[str, str]:
    named = {f"unet.{key}": value for key, value in settings.items()}
    return {"lora_adapter_metadata": json.dumps(named)}


@pytest.mark.parametrize(
    ("notes", "scale"),
    [
        ({}, 1.0),
        (peft(r=4, lora_alpha=16), 4.0),
        (peft(r=4, lora_alpha=16, use_rslora=True), 8.0),
        (peft(r=4, lora_alpha=16, alpha_pattern={STEM: 2}), 0.5),
        (peft(r=4, lora_alpha=16, alpha_pattern={f"^{STEM}": 2}), 0.5),
        (peft(r=4, lora_alpha=16, alpha_pattern={"to_q": 2, "attn1.to_q": 3}), 0.5),
        (peft(r=4, lora_alpha=16, alpha_pattern={"to_k": 2, "^to_q": 3}), 4.0),
        (peft(r=8, lora_alpha=16, rank_pattern={"attn1.to_q": 4}), 4.0),
        ({"lora_adapter_metadata": json.dumps({"unet": {"r": 4, "lora_alpha": 8}})}, 2.0),
        ({"lora_adapter_metadata": json.dumps({"r": 4, "lora_alpha": 8})}, 2.0),
        ({"lora_adapter_metadata": json.dumps({"text_encoder.lora_alpha": 8})}, 1.0),
    ],
)
def test_the_scale_in_the_header_is_honoured(
    notes: dict[str, str], scale: float, tmp_path: Path
) -> None:
    a, b = halves()
    found = taken(
        tmp_path, {f"unet.{STEM}.lora_A.weight": a, f"unet.{STEM}.lora_B.weight": b}, notes or None
    )
    assert close(change(found), scale * b @ a)
    assert "left_out" not in found.record


@pytest.mark.parametrize("more", ["lora.alpha", "alpha"])
def test_an_alpha_tensor_is_honoured_in_every_layout(more: str, tmp_path: Path) -> None:
    a, b = halves()
    pair = {f"unet.{STEM}.lora.down.weight": a, f"unet.{STEM}.lora.up.weight": b}
    found = taken(tmp_path, pair | {f"unet.{STEM}.{more}": torch.tensor(2.0)})
    assert close(change(found), 0.5 * b @ a)


@pytest.mark.parametrize(
    ("notes", "match"),
    [
        (peft(r=8, lora_alpha=8), "say rank 8 .* have rank 4"),
        (peft(r=4, lora_alpha=4, use_dora=True), "settings say use_dora.* no magnitudes"),
        (peft(r=4, lora_alpha=4, peft_type="BOFT"), "settings say peft_type = BOFT"),
        (peft(r=4, lora_alpha=4, init_lora_weights="pissa_niter_4"), "init_lora_weights = pissa"),
        (peft(r=4, lora_alpha=4, bias="all"), "settings say bias"),
        (peft(r=4, lora_alpha="4"), "lora_alpha must be a number"),
        (peft(r=4, lora_alpha=float("nan")), "lora_alpha must be a number"),
        (peft(r=4, lora_alpha=4, alpha_pattern={".*(a|b)+": 4}), "is a regular expression"),
        (peft(r=4, lora_alpha=4, alpha_pattern=[1]), "alpha_pattern is not a table"),
        (peft(r=4, lora_alpha=8), "alpha 8 .* alpha tensor says 4"),
        ({"lora_adapter_metadata": "{"}, "JSON"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(
    notes: dict[str, str], match: str, tmp_path: Path
) -> None:
    a, b = halves()
    pair = {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b}
    with pytest.raises(ConceptError, match=match):
        taken(tmp_path, pair | {f"{KOHYA}.alpha": torch.tensor(4.0)}, notes)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("lora_unet_x.lora_down.weight", torch.ones(4, 4), "without its other half"),
        ("lora_unet_x.lora_up.weight", torch.ones(4, 4), "without its other half"),
        ("lora_unet_x.alpha", torch.tensor(4.0), "belongs to no pair"),
        ("something", torch.ones(4), "'something', which belongs to no pair"),
        (f"{KOHYA}.alpha", torch.tensor(float("nan")), "not finite"),
        (f"{KOHYA}.alpha", torch.tensor(0.0), "one number other than 0"),
        (f"{KOHYA}.alpha", torch.ones(2), "one number other than 0"),
        (f"{KOHYA}.lora_up.weight", torch.full((32, 4), torch.inf), "not finite"),
        (f"{KOHYA}.lora_up.weight", torch.ones(32, 4, dtype=torch.int8), "floating point"),
        (f"{KOHYA}.lora_up.weight", torch.ones(32, 3), "for another model"),
        ("lora_unet_conv_norm_out.w_norm", torch.ones(4), "for another model"),
        ("lora_unet_conv_norm_out.b_norm", torch.ones(4), "no such bias"),
        (f"{KOHYA}.dora_scale", torch.ones(4), "for another model"),
        (f"{KOHYA}.dora_scale", torch.ones(3, 5), "for another model"),
        (f"{KOHYA}.lora_magnitude_vector.weight", torch.ones(4), "for another model"),
        (f"{KOHYA}.hada_w1_a", torch.ones(4, 4), "without its other half"),
        (f"{KOHYA}.lokr_w1", torch.ones(4, 4), "without its other half"),
        (f"{KOHYA}.oft_blocks", torch.ones(4, 4), "OFT"),
        (f"{KOHYA}.lora_embedding_A", torch.ones(4, 4), "embedding table"),
        (f"{KOHYA}.diff", torch.ones(4, 4), "without its other half"),
        (f"{KOHYA}.diff_b", torch.ones(4), "no such bias"),
        (f"{KOHYA}.lora_mid.weight", torch.ones(4, 4), "for another model"),
        ("lora_unet_conv_in.diff", torch.ones(4, 4), "for another model"),
        ("lora_unet_conv_in.lokr_w1", torch.ones(4, 4), "without its other half"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_refused_by_name(
    name: str, value: Tensor, match: str, tmp_path: Path
) -> None:
    a, b = halves()
    pair = {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b}
    with pytest.raises(ConceptError, match=match):
        taken(tmp_path, pair | {name: value})


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    a, b = halves()
    pair = {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b}
    rows = {"bundle_emb.rexword.string_to_param.*": torch.randn(2, 16)}
    found = taken(tmp_path, pair | rows, {"ss_network_alpha": "1", "lora_alpha": "16"})
    assert close(change(found), b @ a)
    first, second, third = found.record["left_out"]
    assert "bundled with the LoRA for 'rexword'" in first
    assert "'lora_alpha' ('16')" in second and "'ss_network_alpha'" in third


def test_one_weight_twice_and_two_adapters_are_refused(tmp_path: Path) -> None:
    a, b = halves()
    pair = {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b}
    other = {f"unet.{STEM}.lora_A.weight": a, f"unet.{STEM}.lora_B.weight": b}
    with pytest.raises(ConceptError, match="twice"):
        taken(tmp_path, pair | other)
    two = {
        f"unet.{STEM}.lora_{half}.{name}.weight": value
        for name in ("one", "two")
        for half, value in (("A", a), ("B", b))
    }
    with pytest.raises(ConceptError, match="twice, also as"):
        taken(tmp_path, two)
    one = {key: value for key, value in two.items() if ".one." in key}
    assert close(change(taken(tmp_path, one)), b @ a)


def test_an_empty_file_and_odd_keys_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConceptError, match="changes no weights"):
        taken(tmp_path, {})
    with pytest.raises(ConceptError, match="holds 2 tensors and none of them is a LoRA matrix"):
        taken(tmp_path, {f"{KOHYA}.alpha": torch.tensor(4.0), "x.alpha": torch.tensor(4.0)})
    torch.save({3: torch.ones(1), "b": torch.ones(1)}, tmp_path / "in.pt")
    with pytest.raises(ModelError, match="holds the key '3'. Expected names"):
        import_concept(tiny_model(), tmp_path / "in.pt", identifier="sks")


def test_embeddings_are_accounted_for(tmp_path: Path) -> None:
    rows = torch.randn(2, 16)
    with pytest.raises(ConceptError, match="not finite"):
        taken(tmp_path, {"emb_params": rows * torch.nan})
    with pytest.raises(ConceptError, match="not a floating-point"):
        taken(tmp_path, {"emb_params": rows.long()})
    with pytest.raises(ConceptError, match="holds 2 embeddings"):
        taken(tmp_path, {"emb_params": rows, "other": rows})
    with pytest.raises(ConceptError, match="three text encoders, this one has one"):
        taken(tmp_path, {"clip_l": rows, "clip_g": rows, "t5xxl": rows})


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"{STEM.replace('to_q', 'processor.to_q_lora')}.down.weight",
         f"{STEM.replace('to_q', 'processor.to_q_lora')}.up.weight"),
        (f"base_model.model.{STEM}.lora_A.weight", f"base_model.model.{STEM}.lora_B.weight"),
        (f"base_model.model.unet.{STEM}.lora_A.rex.weight",
         f"base_model.model.unet.{STEM}.lora_B.rex.weight"),
    ],
)  # fmt: skip
def test_a_missing_part_is_inferred(down: str, up: str, tmp_path: Path) -> None:
    a, b = halves()
    assert close(change(taken(tmp_path, {down: a, up: b})), b @ a)
    torch.save({down: a, up: b}, tmp_path / "in.bin")
    found = import_concept(tiny_model(), tmp_path / "in.bin", identifier="sks")
    assert close(change(found), b @ a)


@pytest.mark.parametrize("module", ["lora_te_text_model_", "lora_te1_text_model_"])
def test_one_text_encoder_may_be_numbered(module: str, tmp_path: Path) -> None:
    weight = f"text_encoder.{TEXT}.weight"
    a, b = halves(weight)
    stem = module + TEXT.replace(".", "_")
    found = taken(tmp_path, {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b})
    assert close(change(found, weight), b @ a)


@pytest.mark.parametrize(
    ("module", "layout"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", "Flux"),
        ("transformer.transformer_blocks.0.attn.to_q", "for a transformer"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "Diffusion XL"),
        ("unet.no_such_block.0.to_q", "diffusers'"),
        ("base_model.model.q", "PEFT's"),
        ("what", "not known"),
    ],
)
def test_the_layout_of_a_strange_file_is_named(module: str, layout: str, tmp_path: Path) -> None:
    pair = {
        f"{module}.lora_A.weight": torch.ones(4, 8),
        f"{module}.lora_B.weight": torch.ones(8, 4),
    }
    with pytest.raises(ConceptError, match=f"The layout is .*{layout}"):
        taken(tmp_path, pair)
