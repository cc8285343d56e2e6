"""LoRA files of flow models in every dialect: equal changes of the weights, nothing lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny_flow import stock_pipeline, tiny_flow
from understudy.concept import Concept, applied, named_parameters
from understudy.concept.exchange import export_concept, import_concept
from understudy.concept.exchange.original_names import as_original, as_ours, original_table
from understudy.errors import ConceptError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
LORAS = ("lora", "peft", "kohya", "comfyui", "ai-toolkit", "bfl")
KINDS, FLUX = ("sd35", "flux", "chroma", "qwen", "zimage", "klein"), ("flux", "chroma", "klein")
ENDS = ("to_q", "to_k", "to_out.0", "add_v_proj", "proj_mlp", "norm_out.linear", "ff.net.2",
        "norm1_context.linear")  # fmt: skip


def made(model) -> Concept:
    """A LoRA of some layers: parts of fused ones, and ones whose halves are swapped elsewhere."""
    draws = torch.Generator().manual_seed(0)
    tensors = {}
    for number, (name, weight) in enumerate(named_parameters(model).items()):
        if name.startswith("transformer.") and name.endswith(tuple(f"{e}.weight" for e in ENDS)):
            rank, (outputs, inputs) = 2 + number % 3, weight.shape
            tensors[f"{name}.lora_A"] = torch.randn(rank, inputs, generator=draws)
            tensors[f"{name}.lora_B"] = torch.randn(outputs, rank, generator=draws)
            tensors[f"{name}.alpha"] = torch.tensor(1.0 + number % 4)
    assert len(tensors) > 20
    prints = model.base_fingerprint
    return Concept("rex", "sks", "dog", "lora", model.name, prints, tensors)


def changes(model, concept: Concept) -> dict[str, torch.Tensor]:
    before = {name: weight.detach().clone() for name, weight in named_parameters(model).items()}
    with applied(model, concept):
        after = named_parameters(model)
        found = {name: after[name].detach() - old for name, old in before.items()}
    return {name: change for name, change in found.items() if change.any()}


@pytest.mark.parametrize(
    ("kind", "format"),
    [(kind, format) for kind in KINDS for format in LORAS if format != "bfl" or kind in FLUX],
)
def test_a_lora_round_trips_with_equal_changes(kind: str, format: str, tmp_path: Path) -> None:
    model = tiny_flow(kind, dtype=torch.float64)
    concept, file = made(model), tmp_path / "rex.safetensors"
    export_concept(model, concept, file, format, dtype=torch.float64)
    again = import_concept(model, file)
    wanted, found = changes(model, concept), changes(model, again)
    assert wanted.keys() == found.keys() and again.identifier == "sks"
    for name, change in wanted.items():
        assert (found[name] - change).abs().max() < 1e-6 * change.abs().max(), name


def test_names_are_those_of_other_programs(tmp_path: Path) -> None:
    for kind, kohya, comfyui, ai_toolkit in (
        ("flux", "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
         "diffusion_model.single_blocks.0.linear1.lora_A.weight",
         "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"),
        ("sd35", "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight",
         "diffusion_model.joint_blocks.1.x_block.mlp.fc2.lora_B.weight",
         "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"),
        ("qwen", "lora_unet_transformer_blocks_0_attn_to_q.alpha",
         "diffusion_model.transformer_blocks.0.attn.to_q.lora_A.weight",
         "diffusion_model.transformer_blocks.0.attn.to_k.lora_A.weight"),
        ("zimage", "lora_unet_layers_0_attention_qkv.alpha",
         "diffusion_model.layers.0.attention.out.lora_B.weight",
         "diffusion_model.layers.0.attention.to_q.lora_A.weight"),
        ("klein", "lora_unet_double_blocks_0_img_attn_qkv.alpha",
         "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight",
         "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"),
        ("chroma", "lora_unet_single_blocks_0_linear1.alpha",
         "diffusion_model.single_blocks.0.linear1.lora_B.weight",
         "diffusion_model.single_blocks.0.linear1.lora_B.weight"),
    ):  # fmt: skip
        model = tiny_flow(kind)
        bfl = [("bfl", comfyui.removeprefix("diffusion_model."))] if kind in FLUX else []
        for format, name in (
            ("kohya", kohya), ("comfyui", comfyui), ("ai-toolkit", ai_toolkit), *bfl
        ):  # fmt: skip
            file = tmp_path / f"{kind}-{format}.safetensors"
            export_concept(model, made(model), file, format)
            assert name in load_file(file), (kind, format)


@pytest.mark.parametrize(
    "prefix",
    ["transformer.", "diffusion_model.", "base_model.model.transformer.", "lora_transformer_"],
)
def test_diffusers_names_behind_any_prefix_are_read(prefix: str, tmp_path: Path) -> None:
    model = tiny_flow("qwen")
    layer, a, b = "transformer_blocks.0.attn.to_q", torch.randn(2, 48), torch.randn(48, 2)
    inside = layer.replace(".", "_") if prefix.endswith("_") else layer
    kinds = ("lora_down", "lora_up") if prefix.endswith("_") else ("lora_A", "lora_B")
    weight = named_parameters(model)[f"transformer.{layer}.weight"]
    a, b = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    file = tmp_path / "in.safetensors"
    save_file(
        {f"{prefix}{inside}.{kinds[0]}.weight": a, f"{prefix}{inside}.{kinds[1]}.weight": b}, file
    )
    found = changes(model, import_concept(model, file, identifier="sks"))
    assert set(found) == {f"transformer.{layer}.weight"}
    assert torch.allclose(found[f"transformer.{layer}.weight"], b @ a, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "format"),
    [("sd35", "kohya"), ("sd35", "comfyui"), *[("flux", format) for format in LORAS]],
)
def test_a_file_with_one_unknown_tensor_is_refused_by_name(
    kind: str, format: str, tmp_path: Path
) -> None:
    model = tiny_flow(kind)
    file = tmp_path / "in.safetensors"
    export_concept(model, made(model), file, format)
    source = file
    file = file / "adapter_model.safetensors" if format == "peft" else file
    tensors = load_file(file)
    tensors |= {f"lora_unet_double_blocks_99_strange.lora_{end}.weight": torch.ones(2, 2)
                for end in ("down", "up")}  # fmt: skip
    save_file(tensors, file)
    with pytest.raises(ConceptError, match="double_blocks_99_strange"):
        import_concept(model, source, identifier="sks")
    alone = {**load_file(file), "lora_unet_double_blocks_0_img_attn_qkv.dora_scale": torch.ones(3)}
    save_file(alone, file)
    with pytest.raises(ConceptError, match="dora_scale|strange"):
        import_concept(model, source, identifier="sks")


def test_fused_layers_are_split_by_rows_and_swapped_halves_put_back() -> None:
    shapes = {
        **{f"transformer.single_transformer_blocks.0.attn.to_{x}.weight": (4, 4) for x in "qkv"},
        "transformer.single_transformer_blocks.0.proj_mlp.weight": (6, 4),
        "transformer.norm_out.linear.weight": (8, 4),
    }
    table = original_table(shapes)
    assert len(table["single_blocks.0.linear1"].weights) == 4
    assert table["final_layer.adaLN_modulation.1"].swapped
    up, down = torch.randn(18, 3), torch.randn(3, 4)
    name = "lora_unet_single_blocks_0_linear1"
    found = as_ours({f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down,
                     f"{name}.alpha": torch.tensor(2.0)}, shapes, "x")  # fmt: skip
    stem = "transformer.single_transformer_blocks.0"
    assert torch.equal(found[f"{stem}.attn.to_k.lora_up.weight"], up[4:8])
    assert torch.equal(found[f"{stem}.proj_mlp.lora_up.weight"], up[12:])
    assert torch.equal(found[f"{stem}.attn.to_v.lora_down.weight"], down)
    final = {"transformer.norm_out.linear.weight": (torch.randn(2, 4), torch.randn(8, 2), 2.0)}
    a, b, alpha = as_original(final, shapes)["final_layer.adaLN_modulation.1"]
    ours = final["transformer.norm_out.linear.weight"][1]
    assert torch.equal(b[:4], ours[4:]) and torch.equal(b[4:], ours[:4]) and alpha == len(a)
    with pytest.raises(ConceptError, match="Expected 18"):
        as_ours({f"{name}.lora_up.weight": up[:5]}, shapes, "x")


def stock_changes(network, changed) -> dict[str, torch.Tensor]:
    """What another program's reader adds to a transformer's weights. changed: runs that reader and
    returns the network with the LoRA merged."""
    before = {name: value.detach().clone() for name, value in network.state_dict().items()}
    after = changed(network).state_dict()
    return {f"transformer.{n}": after[n] - old for n, old in before.items() if "lora" not in n}


@pytest.mark.parametrize("kind", ["sd35", "flux", "zimage"])
def test_peft_itself_reads_the_folder(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = tiny_flow(kind)
    concept = made(model)
    wanted = changes(model, concept)
    export_concept(model, concept, tmp_path / "rex", "peft", dtype=torch.float32)

    def merged(network):
        return PeftModel.from_pretrained(network, str(tmp_path / "rex")).merge_and_unload()

    found = stock_changes(model.networks["transformer"], merged)
    for name, change in found.items():
        assert torch.allclose(change, wanted.get(name, torch.zeros(1)), atol=2e-5), name
    assert {name for name, change in found.items() if change.any()} == set(wanted)


@pytest.mark.parametrize(
    ("kind", "format"),
    [("flux", "lora"), ("flux", "kohya"), ("sd35", "lora"), ("qwen", "lora"), ("qwen", "kohya"),
     ("qwen", "ai-toolkit"), ("zimage", "ai-toolkit"), ("klein", "comfyui")],
)  # fmt: skip
def test_diffusers_itself_reads_the_file(kind: str, format: str, tmp_path: Path) -> None:
    """Layers that its converters know. Those of FLUX's single blocks want kohya's real widths."""
    model, pipeline = tiny_flow(kind), stock_pipeline(kind)
    ends = ("to_q", "to_k", "to_out.0", "add_v_proj", "ff.net.2")
    whole = made(model)
    kept = {
        name: value
        for name, value in whole.tensors.items()
        if name.rpartition(".weight")[0].endswith(ends)
        and not (format == "kohya" and ".single_" in name)
    }
    concept, file = replace(whole, tensors=kept), tmp_path / "rex.safetensors"
    wanted = changes(model, concept)
    export_concept(model, concept, file, format, dtype=torch.float32)

    def merged(network):
        pipeline.load_lora_weights(tmp_path, weight_name=file.name)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        return network

    found = stock_changes(pipeline.transformer, merged)
    for name, change in wanted.items():
        assert torch.allclose(found[name], change, atol=2e-5), name
    assert {name for name, change in found.items() if change.abs().max() > 1e-5} == set(wanted)


def test_what_a_dialect_cannot_hold_is_refused(tmp_path: Path) -> None:
    model, file = tiny_flow("sd35"), tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="bfl is for FLUX models"):
        export_concept(model, made(model), file, "bfl")
    flux = tiny_flow("flux")
    clip = next(n for n in named_parameters(flux) if n.startswith("text_encoder.") and "q_pr" in n
                and n.endswith("weight"))  # fmt: skip
    pair = {f"{clip}.lora_A": torch.ones(1, 8), f"{clip}.lora_B": torch.ones(8, 1),
            f"{clip}.alpha": torch.tensor(1.0)}  # fmt: skip
    both = replace(made(flux), tensors={**made(flux).tensors, **pair})
    with pytest.raises(ConceptError, match="writes the transformer alone"):
        export_concept(flux, both, file, "bfl")
    wanted = changes(flux, both)
    for format in ("peft", "ai-toolkit", "comfyui"):  # these have a place for it
        export_concept(flux, both, tmp_path / format / "x.safetensors", format, dtype=torch.float32)
        again = changes(flux, import_concept(flux, tmp_path / format / "x.safetensors"))
        assert again.keys() == wanted.keys()
        assert all(torch.allclose(again[name], one, atol=2e-5) for name, one in wanted.items())
    rows = {f"{n}.{end}": torch.ones(1, 8) if end == "rows" else torch.tensor([3])
            for n in named_parameters(flux) if n.endswith("token_embedding.weight")
            for end in ("rows", "ids")}  # fmt: skip
    with pytest.raises(ConceptError, match="has learnt words beside its LoRA"):
        export_concept(flux, replace(both, tensors={**both.tensors, **rows}), file, "peft")


def test_comfyui_is_for_flow_models(tmp_path: Path) -> None:
    from tiny import tiny_model

    model = tiny_model()
    weight = next(n for n in named_parameters(model) if n.endswith("attn1.to_q.weight"))
    one = {f"{weight}.lora_A": torch.ones(1, 8), f"{weight}.lora_B": torch.ones(8, 1),
           f"{weight}.alpha": torch.tensor(1.0)}  # fmt: skip
    rex = Concept("rex", "sks", "dog", "lora", model.name, model.base_fingerprint, one)
    with pytest.raises(InputError, match="is for flow models"):
        export_concept(model, rex, tmp_path / "x.safetensors", "comfyui")
