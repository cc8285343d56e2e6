"""Concepts out and in: what other programs read of ours, what we read of theirs."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import ldm
from tiny import tiny_folder, tiny_model
from understudy import cli
from understudy.concept import Concept, applied, named_parameters
from understudy.concept.exchange import export_concept, import_concept
from understudy.concept.exchange.names import kohya_name, kohya_table, split_weight
from understudy.errors import ConceptError, InputError, OutputError
from understudy.models.unet.stable_diffusion import StableDiffusion

KINDS = ("sd15", "sd21", "sdxl")
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")


def concept_of(model: StableDiffusion, tensors: dict[str, Tensor], kind: str) -> Concept:
    return Concept("rex", "sks", "cat", kind, model.name, model.base_fingerprint, tensors)


def lora_of(model: StableDiffusion, rank: int = 3, alpha: float = 1.5) -> Concept:
    """Random low-rank changes of all attention layers of U-Net and text encoders."""
    random = torch.Generator().manual_seed(1)
    tensors: dict[str, Tensor] = {}
    for name, weight in named_parameters(model).items():
        if split_weight(name)[1].endswith(LAYERS) and name.endswith(".weight"):
            tensors[f"{name}.lora_A"] = 0.2 * torch.randn(rank, weight.shape[1], generator=random)
            tensors[f"{name}.lora_B"] = torch.randn(weight.shape[0], rank, generator=random)
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    assert len({name.split(".")[0] for name in tensors}) == len(model.trainable_modules())
    return concept_of(model, tensors, "lora")


def rows_for(model: StableDiffusion, words: str = "sks zwx") -> Concept:
    """Random rows for the words, in every text encoder."""
    ids = torch.tensor([model.vocabulary[f"{word}</w>"] for word in words.split()])
    tensors: dict[str, Tensor] = {}
    for name, weight in named_parameters(model).items():
        if name.endswith("token_embedding.weight"):
            tensors[f"{name}.rows"] = torch.randn(len(ids), weight.shape[1])
            tensors[f"{name}.ids"] = ids
    found = concept_of(model, tensors, "textual-inversion")
    return replace(found, identifier=words)


@torch.no_grad()
def answer(model: StableDiffusion, prompt: str = "a photo of a sks zwx cat") -> Tensor:
    """What the whole model makes of a prompt."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return model.predict(latents, 501, model.embed([prompt]))


def pipeline_answer(model: StableDiffusion, pipeline: Any, prompt: str) -> Tensor:
    """The same by diffusers' pipeline."""
    with torch.no_grad():
        made = pipeline.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        added = None
        if len(made) == 4:
            frame = torch.tensor([[16.0, 16, 0, 0, 16, 16]])
            added = {"text_embeds": made[2], "time_ids": frame}
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        return pipeline.unet(latents, 501, made[0], added_cond_kwargs=added).sample


def pipeline_of(kind: str, folder: Path | None = None) -> Any:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    made = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made.from_pretrained(folder or tiny_folder(kind))


@pytest.mark.parametrize("format", ["kohya", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_reads_our_lora_as_we_wear_it(kind: str, format: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    concept, before = lora_of(model), answer(model)
    out = tmp_path / "rex.safetensors"
    export_concept(model, concept, out, format, dtype=torch.float32)
    with applied(model, concept):
        ours = answer(model)
    pipeline = pipeline_of(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.load_lora_weights(tmp_path, weight_name=out.name)
    theirs = pipeline_answer(model, pipeline, "a photo of a sks zwx cat")
    assert (ours - before).abs().max() > 0.01
    assert torch.allclose(ours, theirs, atol=1e-5)
    # And back in: the same change of every weight.
    again = import_concept(model, out)
    assert (again.name, again.phrase, again.kind) == ("rex", "sks cat", "lora")
    with applied(model, again):
        assert torch.allclose(answer(model), ours, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_peft_folder_of_ours_is_read_by_peft_and_by_us(kind: str, tmp_path: Path) -> None:
    """An adapter for each network in a folder of its name."""
    from peft import PeftModel

    model, out = tiny_model(kind), tmp_path / "rex"
    concept, before = lora_of(model), answer(model)
    export_concept(model, concept, out, "peft", dtype=torch.float32)
    with applied(model, concept):
        ours = answer(model)
    again = import_concept(model, out)
    assert again.identifier == concept.identifier
    with applied(model, again):
        assert torch.allclose(answer(model), ours, atol=1e-5)
    parts = {name.split(".")[0] for name in concept.tensors}
    assert {place.name for place in out.iterdir()} == parts
    for part in parts:
        network = model.trainable_modules()[part]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of PEFT's own call of transformers
            PeftModel.from_pretrained(network, str(out / part)).merge_and_unload()
    assert torch.allclose(answer(model), ours, atol=1e-5) and not torch.allclose(ours, before)


@pytest.mark.parametrize("kind", KINDS)
def test_kohya_files_bear_the_names_older_tools_look_for(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    export_concept(model, lora_of(model), tmp_path / "rex.safetensors", "kohya")
    with safe_open(tmp_path / "rex.safetensors", "pt") as file:
        names, notes = list(file.keys()), file.metadata()
    text = "lora_te1_" if kind == "sdxl" else "lora_te_"
    layer = "text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight"
    assert f"{text}{layer}" in names
    assert (f"lora_te2_{layer}" in names) == (kind == "sdxl")
    block = "input_blocks_1_1" if kind == "sdxl" else "down_blocks_0_attentions_0"
    inner = "transformer_blocks_0_attn1_to_q.alpha"
    assert f"lora_unet_{block}_{inner}" in names
    assert notes["ss_network_dim"] == "3" and notes["ss_network_alpha"] == "1.5"
    assert json.loads(notes["understudy"])["identifier"] == "sks"


def test_the_names_of_stability_are_those_of_its_checkpoints() -> None:
    """For every module of an XL U-Net; the checkpoint's names are written down in ldm.py."""
    model = tiny_model("sdxl")
    weights = named_parameters(model)
    unet = {n.removeprefix("unet."): w for n, w in weights.items() if n.startswith("unet.")}
    checked = 0
    for name in unet:
        if not name.endswith(".weight") or "norm" in name:
            continue
        theirs = ldm.unet(name, unet).removesuffix(".weight").replace(".", "_")
        assert kohya_name(f"unet.{name}", weights) == f"lora_unet_{theirs}"
        checked += 1
    assert checked > 100
    table = kohya_table(weights)
    assert len({weight for weight in table.values()}) == len(weights)


def test_old_spellings_are_understood(tmp_path: Path) -> None:
    """diffusers before PEFT, PEFT itself, and kohya's XL files with diffusers' block names."""
    model = tiny_model("sdxl")
    stem = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    weight = f"unet.{stem}.to_q.weight"
    outputs, inputs = named_parameters(model)[weight].shape
    a, b = torch.randn(2, inputs), torch.randn(outputs, 2)
    spellings = (
        (f"unet.{stem}.processor.to_q_lora.down.weight",
         f"unet.{stem}.processor.to_q_lora.up.weight"),
        (f"unet.base_model.model.{stem}.to_q.lora_A.weight",
         f"unet.base_model.model.{stem}.to_q.lora_B.weight"),
        (f"unet.{stem}.to_q.lora.down.weight", f"unet.{stem}.to_q.lora.up.weight"),
        (f"lora_unet_{stem.replace('.', '_')}_to_q.lora_down.weight",
         f"lora_unet_{stem.replace('.', '_')}_to_q.lora_up.weight"),
    )  # fmt: skip
    for number, (down, up) in enumerate(spellings):
        file = tmp_path / f"{number}.safetensors"
        save_file({down: a, up: b}, file)
        found = import_concept(model, file, name="rex", identifier="sks", class_noun="cat")
        assert set(found.tensors) == {f"{weight}.lora_A", f"{weight}.lora_B", f"{weight}.alpha"}
        assert float(found.tensors[f"{weight}.alpha"]) == 2
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer"
    save_file({f"{text}.down.weight": torch.ones(2, 8), f"{text}.up.weight": torch.ones(8, 2)},
              tmp_path / "te.safetensors")  # fmt: skip
    found = import_concept(model, tmp_path / "te.safetensors", identifier="sks")
    assert "text_encoder.encoder.layers.0.self_attn.q_proj.weight.lora_A" in found.tensors


def test_loras_of_convolutions_come_in_and_go_out(tmp_path: Path) -> None:
    model = tiny_model("sd15")
    name = "unet.mid_block.resnets.0.conv1.weight"
    shape = named_parameters(model)[name].shape
    down, up = torch.randn(2, *shape[1:]), torch.randn(shape[0], 2, 1, 1)
    stem = "lora_unet_mid_block_resnets_0_conv1"
    given = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up,
             f"{stem}.alpha": torch.tensor(4.0)}  # fmt: skip
    save_file(given, tmp_path / "a.safetensors")
    found = import_concept(model, tmp_path / "a.safetensors", identifier="sks")
    with applied(model, found):
        changed = named_parameters(model)[name].detach().clone()
    change = torch.einsum("orxy,rihw->oihw", up, down) * 2
    assert torch.allclose(changed - named_parameters(model)[name], change, atol=1e-5)
    export_concept(model, found, tmp_path / "b.safetensors", "kohya", dtype=torch.float32)
    again = load_file(tmp_path / "b.safetensors")
    assert again.keys() == given.keys() and all(torch.equal(again[k], given[k]) for k in given)


def test_a_full_change_becomes_the_best_lora_of_its_rank(tmp_path: Path) -> None:
    model = tiny_model()
    low = lora_of(model, rank=3, alpha=3.0).tensors
    stems = [n.removesuffix(".lora_A") for n in low if n.endswith("lora_A")]
    full = {s: (low[f"{s}.lora_B"] @ low[f"{s}.lora_A"]).half() for s in stems}
    concept = concept_of(model, full, "dreambooth")
    done = export_concept(model, concept, tmp_path / "a.safetensors", "kohya", rank=3)
    assert done.kept == pytest.approx(1, abs=1e-4)
    less = export_concept(model, concept, tmp_path / "b.safetensors", "kohya", rank=1)
    assert 0.3 < less.kept < 0.9
    again = import_concept(model, tmp_path / "a.safetensors").tensors
    for stem, change in full.items():
        a, b = (again[f"{stem}.{which}"].float() for which in ("lora_A", "lora_B"))
        found = (float(again[f"{stem}.alpha"]) / len(a)) * (b @ a)
        assert (found - change.float()).norm() < 0.005 * change.float().norm()


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_folder_of_ours_is_a_model_to_diffusers(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    random = torch.Generator().manual_seed(2)
    tensors = {
        name: (0.05 * torch.randn(weight.shape, generator=random)).half()
        for name, weight in named_parameters(model).items()
    }
    concept = concept_of(model, tensors, "dreambooth")
    export_concept(model, concept, tmp_path / "whole", "folder", dtype=torch.float32)
    with applied(model, concept):
        ours = answer(model)
    theirs = pipeline_answer(
        model, pipeline_of(kind, tmp_path / "whole"), "a photo of a sks zwx cat"
    )
    assert torch.allclose(ours, theirs, atol=1e-5)
    loaded = StableDiffusion.from_folder(tmp_path / "whole")
    assert torch.allclose(answer(loaded), ours, atol=1e-5)
    weights = load_file(tmp_path / "whole" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in weights)
    for part in ("tokenizer", "tokenizer_2")[: 1 + (kind == "sdxl")]:
        words = json.loads((tmp_path / "whole" / part / "vocab.json").read_text())
        assert words == model.tokenizer.get_vocab()
        assert (tmp_path / "whole" / part / "merges.txt").is_file()
    # And in again, as what it is more than its base.
    again = import_concept(model, tmp_path / "whole", name="rex", identifier="sks")
    assert again.kind == "dreambooth"
    with applied(model, again):
        assert torch.allclose(answer(model), ours, atol=1e-3)
    with pytest.raises(OutputError, match="holds something already"):
        export_concept(model, concept, tmp_path / "whole", "folder")


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_embeddings_go_out_and_come_in(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    concept, out = rows_for(model), tmp_path / "rex.safetensors"
    export_concept(model, concept, out, "embedding", dtype=torch.float32)
    content = load_file(out)
    assert set(content) == ({"clip_l", "clip_g"} if kind == "sdxl" else {"emb_params"})
    again = import_concept(model, out)
    assert again.identifier == "sks zwx" and again.phrase == "sks zwx"
    assert all(torch.equal(again.tensors[k], v) for k, v in concept.tensors.items())
    with applied(model, concept):
        ours = answer(model)
    if kind == "sd15":  # diffusers gives the rows new words
        pipeline = pipeline_of(kind)
        pipeline.load_textual_inversion(content["emb_params"], token="<rex>")
        theirs = pipeline_answer(model, pipeline, "a photo of a <rex> cat")
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_embeddings_of_other_programs(tmp_path: Path) -> None:
    model = tiny_model()
    rows = torch.randn(2, 16)
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.nn.Parameter(rows)},
                "name": "rex", "step": 5}, tmp_path / "a1111.pt")  # fmt: skip
    torch.save({"<rex>": rows}, tmp_path / "learned_embeds.bin")
    save_file({"<rex>": rows}, tmp_path / "learned_embeds.safetensors")
    for file in sorted(tmp_path.iterdir()):
        found = import_concept(model, file, name="rex", words=("sks", "zwx"))
        assert (found.identifier, found.kind) == ("sks zwx", "textual-inversion")
        assert torch.equal(
            found.tensors["text_encoder.embeddings.token_embedding.weight.rows"], rows
        )
    with pytest.raises(InputError, match="2 rows, so it needs 2 words"):
        import_concept(model, file, name="rex", words=("sks",))


def test_what_cannot_be_exchanged_is_said(tmp_path: Path) -> None:
    model, out = tiny_model(), tmp_path / "a.safetensors"
    lora, rows = lora_of(model), rows_for(model)
    tail = concept_of(model, {"tail": torch.randn(5, 16)}, "hiper")
    for concept, format, match in (
        (tail, "kohya", "learnt with HiPer"),
        (lora, "embedding", "changes the networks' weights"),
        (rows, "kohya", "is an embedding"),
    ):
        with pytest.raises(ConceptError, match=match):
            export_concept(model, concept, out, format)
    with pytest.raises(InputError, match="--to must be one of"):
        export_concept(model, lora, out, "pickle")
    with pytest.raises(InputError, match="must end in .safetensors"):
        export_concept(model, lora, tmp_path / "a.pt", "kohya")
    assert not list(tmp_path.iterdir())


def test_files_for_other_models_and_of_other_sorts_are_refused(tmp_path: Path) -> None:
    model, xl = tiny_model("sd15"), tiny_model("sdxl")
    for format in ("kohya", "lora"):
        export_concept(xl, lora_of(xl), tmp_path / f"{format}.safetensors", format)
        with pytest.raises(ConceptError, match="LoRA for another model|does not have"):
            import_concept(model, tmp_path / f"{format}.safetensors")
    export_concept(xl, rows_for(xl), tmp_path / "ti.safetensors", "embedding")
    with pytest.raises(ConceptError, match="two text encoders, this one has one"):
        import_concept(model, tmp_path / "ti.safetensors")
    save_file({"lora_unet_x.hada_w1_a": torch.ones(1)}, tmp_path / "loha.safetensors")
    with pytest.raises(ConceptError, match="'lora_unet_x.hada_w1_a' without its other half"):
        import_concept(model, tmp_path / "loha.safetensors")
    save_file({"a": torch.ones(1, 2, 3), "b": torch.ones(1)}, tmp_path / "no.safetensors")
    with pytest.raises(ConceptError, match="none of them is a LoRA matrix; the first is 'a'"):
        import_concept(model, tmp_path / "no.safetensors")
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    pair = {f"{stem}.lora_down.weight": torch.ones(2, 32)}
    save_file({**pair, f"{stem}.lora_up.weight": torch.ones(32, 2)}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="--identifier WORD"):
        import_concept(model, tmp_path / "bare.safetensors")


def test_the_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ran(*words: object) -> dict[str, Any]:
        assert cli.main(["concept", *map(str, words), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    model = StableDiffusion.from_folder(tiny_folder())
    capsys.readouterr()
    lora_of(model).save(here / "concepts" / "rex")
    shown = ran("show", "rex")
    assert shown["learnt by"] == "lora" and shown["phrases"] == "{rex} for 'sks cat'"
    written = ran("export", "rex", "--to", "kohya", "--out", "rex.safetensors")
    assert written["phrase"] == "sks cat" and Path("rex.safetensors").is_file()
    taken = ran("import", "rex.safetensors", "--name", "max", "--model", tiny_folder())
    assert taken == {"concept": "concepts/max", "name": "max", "phrase": "sks cat"}
    assert cli.main(["concept", "import", "rex.safetensors", "--model", str(tiny_folder())]) == 1
    assert "holds a concept already" in capsys.readouterr().err
    rows = rows_for(model)
    export_concept(model, rows, here / "ti.safetensors", "embedding")
    told = {k: v for k, v in load_file("ti.safetensors").items()}
    save_file(told, "bare.safetensors")
    taken = ran("import", "bare.safetensors", "--name", "mia", "--model", tiny_folder())
    assert taken["phrase"] == "sks zwx"
    (here / "concepts" / "rex" / "checkpoints" / "step-1").mkdir(parents=True)
    (here / "concepts" / "max" / "photo.jpg").touch()
    assert ran("remove", "rex", "--yes")["left"] == 0 and not Path("concepts/rex").exists()
    assert ran("remove", "max", "--yes")["left"] == 1
    assert [file.name for file in Path("concepts/max").iterdir()] == ["photo.jpg"]
