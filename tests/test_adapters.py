"""LoRA's relatives and PEFT's folders: what they change is what PEFT, or the formula, says."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from test_exchange_accounting import KOHYA, STEM, TEXT, WEIGHT, change, close, halves, taken
from tiny import tiny_model
from understudy.concept import Concept, applied, named_parameters
from understudy.concept.exchange import export_concept, import_concept
from understudy.errors import ConceptError

CONV = "unet.down_blocks.0.resnets.0.conv1.weight"
CONV_KOHYA = "lora_unet_down_blocks_0_resnets_0_conv1"
NORM, OUT = "lora_unet_conv_norm_out", "unet.conv_norm_out"
TEXT_KOHYA = "lora_te_text_model_" + TEXT.replace(".", "_")
TARGETS = ["to_q", "to_k", "conv1"]


def noisy(network: nn.Module, seed: int = 5) -> None:
    """Random adapters; a new one changes nothing."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name or "hada_" in name or "lokr_" in name:
                noise = 0.3 * torch.randn(parameter.shape, generator=random)
                parameter.copy_(parameter + noise if "magnitude" in name else noise)


def adapted(folder: Path, config: Any, part: str = "unet", kind: str = "sd15") -> dict[str, Tensor]:
    """Write PEFT's folder of a random adapter; how it changes each weight when PEFT merges it."""
    import peft

    network: Any = getattr(tiny_model(kind), part)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries about each other
        wrapped: Any = peft.get_peft_model(network, config)
        noisy(wrapped)
        wrapped.save_pretrained(folder)
        after = wrapped.merge_and_unload().state_dict()
    assert after.keys() == before.keys()
    changes = {f"{part}.{name}": after[name] - before[name] for name in before}
    return {name: value for name, value in changes.items() if value.abs().max() > 0}


def same_as(concept: Concept, wanted: dict[str, Tensor], kind: str = "sd15") -> None:
    model = tiny_model(kind)
    weights = named_parameters(model)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    with applied(model, concept):
        for name, weight in weights.items():
            found = weight.detach() - before[name]
            expected = wanted.get(name, torch.zeros_like(found))
            assert torch.allclose(found, expected, atol=2e-6, rtol=1e-4), name
    assert wanted


def configs() -> dict[str, Any]:
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    more: dict[str, Any] = {"target_modules": TARGETS}
    return {
        "lora": LoraConfig(r=4, lora_alpha=6, **more),
        "rslora": LoraConfig(r=4, lora_alpha=6, use_rslora=True, **more),
        "patterns": LoraConfig(
            r=4, lora_alpha=6, rank_pattern={"attn1.to_q": 2}, alpha_pattern={"to_k": 3}, **more
        ),
        "dora": LoraConfig(r=4, lora_alpha=6, use_dora=True, **more),
        "bias": LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=["conv1", "ff.net.2"]),
        "loha": LoHaConfig(r=3, alpha=5, **more),
        "loha, Tucker": LoHaConfig(r=3, alpha=5, use_effective_conv2d=True, **more),
        "lokr": LoKrConfig(r=2, alpha=5, **more),
        "lokr, both decomposed": LoKrConfig(r=1, alpha=5, decompose_both=True, **more),
        "lokr, Tucker": LoKrConfig(r=2, alpha=5, use_effective_conv2d=True, **more),
        "lokr, full": LoKrConfig(r=16, alpha=8, **more),
    }


@pytest.mark.parametrize("kind", configs())
def test_a_peft_folder_changes_what_peft_changes(kind: str, tmp_path: Path) -> None:
    wanted = adapted(tmp_path / "adapter", configs()[kind])
    found = import_concept(tiny_model(), tmp_path / "adapter", identifier="sks")
    assert found.kind == "lora" and "left_out" not in found.record
    same_as(found, wanted)


def test_folders_of_several_networks_and_of_xls_encoders(tmp_path: Path) -> None:
    from peft import LoraConfig

    # One sub-folder for each network, as PEFT's own DreamBooth example writes them.
    wanted = adapted(tmp_path / "both" / "unet", LoraConfig(r=2, target_modules=["to_q"]))
    text = LoraConfig(r=2, target_modules=["q_proj"])
    wanted |= adapted(tmp_path / "both" / "text_encoder", text, "text_encoder")
    same_as(import_concept(tiny_model(), tmp_path / "both", identifier="sks"), wanted)
    # XL's text encoders have the same paths: the class that was wrapped tells them apart.
    for part in ("text_encoder", "text_encoder_2"):
        wanted = adapted(tmp_path / part, text, part, "sdxl")
        found = import_concept(tiny_model("sdxl"), tmp_path / part, identifier="sks")
        same_as(found, wanted, "sdxl")


def test_folders_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    from peft import LoraConfig

    folder = tmp_path / "adapter"
    adapted(folder, LoraConfig(r=2, target_modules=["to_q"]))
    told = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**told, "r": 3}))
    with pytest.raises(ConceptError, match="say rank 3 .* have rank 2"):
        import_concept(tiny_model(), folder, identifier="sks")
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(ConceptError, match="holds no JSON object"):
        import_concept(tiny_model(), folder, identifier="sks")
    (folder / "adapter_config.json").write_text(json.dumps(told))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ConceptError, match="has no adapter_model.safetensors"):
        import_concept(tiny_model(), folder, identifier="sks")


def test_the_folder_of_diffusers_lora_scripts_is_read(tmp_path: Path) -> None:
    a, b = halves()
    pair = {f"unet.{STEM}.lora_A.weight": a, f"unet.{STEM}.lora_B.weight": b}
    save_file(pair, tmp_path / "pytorch_lora_weights.safetensors")
    assert close(change(import_concept(tiny_model(), tmp_path, identifier="sks")), b @ a)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def shape_of(weight: str) -> tuple[int, ...]:
    return tuple(named_parameters(tiny_model())[weight].shape)


def test_lycoris_files_by_their_formulas(tmp_path: Path) -> None:
    """Names of LyCORIS; each entry of the result is computed by hand from the factors."""
    outputs, inputs = shape_of(WEIGHT)
    o, i, k, _ = shape_of(CONV)
    one, other = (drawn(outputs, 2, seed=n) @ drawn(2, inputs, seed=n) for n in (1, 2))
    loha: dict[str, Tensor] = {}
    for n in (1, 2):
        loha[f"{KOHYA}.hada_w{n}_a"] = drawn(outputs, 2, seed=n)
        loha[f"{KOHYA}.hada_w{n}_b"] = drawn(2, inputs, seed=n)
    found = taken(tmp_path, {**loha, f"{KOHYA}.alpha": torch.tensor(1.0)})
    assert close(change(found), 0.5 * one * other)

    w1, w2 = drawn(4, 2), drawn(outputs // 4, inputs // 2)
    found = taken(tmp_path, {f"{KOHYA}.lokr_w1": w1, f"{KOHYA}.lokr_w2": w2,
                             f"{KOHYA}.alpha": torch.tensor(3.0)})  # fmt: skip
    rows = [torch.cat([w1[r, c] * w2 for c in range(2)], 1) for r in range(4)]
    assert close(change(found), torch.cat(rows))  # alpha has no rank to be divided by

    core, up, down = drawn(2, 3, k, k), drawn(o, 2, 1, 1), drawn(3, i, 1, 1)
    stem = f"{CONV_KOHYA}.lora"
    locon = {f"{stem}_mid.weight": core, f"{stem}_up.weight": up, f"{stem}_down.weight": down,
             f"{CONV_KOHYA}.alpha": torch.tensor(6.0)}  # fmt: skip
    wanted = torch.zeros(o, i, k, k)
    for p in range(2):
        for q in range(3):
            wanted += (
                2
                * up[:, p, 0, 0][:, None, None, None]
                * core[p, q]
                * down[q, :, 0, 0][None, :, None, None]
            )
    assert close(change(taken(tmp_path, locon), CONV), wanted)

    full = {f"{CONV_KOHYA}.diff": drawn(o, i, k, k), f"{CONV_KOHYA}.diff_b": drawn(o),
            f"{NORM}.w_norm": drawn(16), f"{NORM}.b_norm": drawn(16)}  # fmt: skip
    found = taken(tmp_path, full)
    changed = (CONV, CONV.replace("weight", "bias"), *(f"{OUT}.{n}" for n in ("weight", "bias")))
    for weight, tensor in zip(changed, full.values(), strict=True):
        assert close(change(found, weight), tensor)


@pytest.mark.parametrize("per_output", [True, False])
def test_magnitudes_of_lyc_oris_are_per_output_or_per_input(
    per_output: bool, tmp_path: Path
) -> None:
    a, b = halves()
    weight = named_parameters(tiny_model())[WEIGHT].detach()
    outputs, inputs = weight.shape
    magnitude = drawn(outputs, 1).abs() if per_output else drawn(1, inputs).abs()
    pair = {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b}
    found = taken(tmp_path, {**pair, f"{KOHYA}.dora_scale": magnitude})
    moved = weight + b @ a
    norm = moved.square().sum(1 if per_output else 0, keepdim=True).sqrt()
    assert close(change(found), magnitude * moved / norm - weight)


def test_a_mixed_file_is_exported_whole(tmp_path: Path) -> None:
    a, b = halves()
    text = f"text_encoder.{TEXT}.weight"
    diff = drawn(*shape_of(text))
    found = taken(tmp_path, {f"{KOHYA}.lora_down.weight": a, f"{KOHYA}.lora_up.weight": b,
                             f"{TEXT_KOHYA}.diff": diff})  # fmt: skip
    export_concept(tiny_model(), found, tmp_path / "out.safetensors", "kohya", rank=16,
                   dtype=torch.float32)  # fmt: skip
    again = import_concept(tiny_model(), tmp_path / "out.safetensors", identifier="sks")
    assert close(change(again), b @ a)
    assert torch.allclose(change(again, text), diff, atol=1e-2)


def test_a_small_file_cannot_ask_for_a_large_weight(tmp_path: Path) -> None:
    with pytest.raises(ConceptError, match="for another model"):
        taken(tmp_path, {f"{KOHYA}.lokr_w1": torch.ones(4096, 4096),
                         f"{KOHYA}.lokr_w2": torch.ones(4096, 4096)})  # fmt: skip


def test_embeddings_in_a_parameter_dict_and_of_pivotal_tuning(tmp_path: Path) -> None:
    rows = drawn(2, 16)
    words = ("cat", "dog")
    content = {"string_to_token": {"*": 265},
               "string_to_param": nn.ParameterDict({"*": nn.Parameter(rows)})}  # fmt: skip
    torch.save(content, tmp_path / "a.pt")
    found = import_concept(tiny_model(), tmp_path / "a.pt", words=words)
    assert torch.equal(found.tensors["text_encoder.embeddings.token_embedding.weight.rows"], rows)
    pair = {"text_encoders_0": drawn(2, 8), "text_encoders_1": drawn(2, 8, seed=1)}
    save_file(pair, tmp_path / "xl.safetensors")
    found = import_concept(tiny_model("sdxl"), tmp_path / "xl.safetensors", words=words)
    for part, name in (("text_encoder", "text_encoders_0"), ("text_encoder_2", "text_encoders_1")):
        [own] = [k for k in found.tensors if k.startswith(f"{part}.") and k.endswith(".rows")]
        assert torch.equal(found.tensors[own], pair[name])


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"emb_params": torch.ones(0, 0)}, "not a floating-point"),
        ({"emb_params": torch.ones(2, 16).to(torch.float8_e4m3fn)}, "not a floating-point"),
        ({"emb_params": torch.ones(1, 2, 16)}, "not a floating-point|no LoRA|no pair"),
        ({f"{KOHYA}.lora_down.weight": torch.ones(0, 16),
          f"{KOHYA}.lora_up.weight": torch.ones(16, 0)}, "for another model"),
        ({f"{KOHYA}.lora_down.weight": torch.ones(2, 16).to(torch.float8_e4m3fn),
          f"{KOHYA}.lora_up.weight": torch.ones(16, 2)}, "float8"),
        ({f"{KOHYA}.lora_down.weight": torch.full((2, 16), 1e25),
          f"{KOHYA}.lora_up.weight": torch.full((16, 2), 1e25)}, "damaged"),
        ({f"{CONV_KOHYA}.lora_down.weight": torch.ones(2),
          f"{CONV_KOHYA}.lora_mid.weight": torch.ones(2, 2, 3, 3),
          f"{CONV_KOHYA}.lora_up.weight": torch.ones(16, 2, 1, 1)}, "for another model"),
        ({f"{KOHYA}.lokr_w1": torch.tensor(1.0),
          f"{KOHYA}.lokr_w2": torch.ones(16, 16)}, "for another model"),
        ({f"{KOHYA}.hada_w{n}_{h}": torch.full((4,), 1.0) for n in (1, 2) for h in "ab"},
         "for another model"),
        ({f"{CONV_KOHYA}.diff": torch.full((16, 16, 3, 3), 1e35)}, "damaged"),
    ],
)  # fmt: skip
def test_degenerate_files_are_refused_in_one_line(
    tensors: dict[str, Tensor], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ConceptError, match=match) as refused:
        taken(tmp_path, tensors)
    assert "\n" not in str(refused.value)
