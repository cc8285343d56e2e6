"""Single checkpoint files of flow models: the model of the folder they were made of, bit by bit."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import flow_names
from tiny import _session, _tokenizer
from tiny_flow import shaken, t5_network, tiny_flow_folder
from understudy.errors import ModelError
from understudy.models import registry
from understudy.models.transformer.load import class_of, empty_network
from understudy.models.transformer.model import FlowTransformer
from understudy.models.transformer.single_file_shapes import layout_of, transformer_config
from understudy.models.weight_files import Entry
from understudy.settings.bases import BASES, Base, base_named, licence_of, trained_instead
from understudy.settings.families import family_suits

# Published heads are 128 wide, SD3's 64: the shapes alone do not tell their number.
SIZES: dict[str, dict[str, Any]] = {
    "sd3": {"attention_head_dim": 64, "num_attention_heads": 1, "caption_projection_dim": 64,
            "sample_size": 128},
    "flux": {"attention_head_dim": 128, "num_attention_heads": 1, "axes_dims_rope": [16, 56, 56],
             "num_layers": 1, "num_single_layers": 1},
    "qwen": {"attention_head_dim": 128, "num_attention_heads": 1, "num_layers": 1,
             "axes_dims_rope": [16, 56, 56]},
    "zimage": {"dim": 128, "n_heads": 1, "n_kv_heads": 1, "n_layers": 1,
               "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512]},
    "flux2": {"attention_head_dim": 128, "num_attention_heads": 1, "num_layers": 1,
              "num_single_layers": 1, "axes_dims_rope": [32, 32, 32, 32]},
}  # fmt: skip
KINDS = {"sd3": "sd3", "sd35": "sd3", "flux": "flux", "schnell": "flux", "chroma": "flux",
         "qwen": "qwen", "zimage": "zimage", "klein": "flux2", "flux2": "flux2"}  # fmt: skip


@cache
def published(kind: str) -> Path:
    """The tiny folder of a kind with a transformer whose heads are as wide as published ones."""
    folder = _session() / f"published-{kind}"
    shutil.copytree(tiny_flow_folder(kind), folder)
    told = json.loads((folder / "transformer" / "config.json").read_text())
    told |= SIZES[KINDS[kind]]
    network = empty_network(class_of(family(kind), "transformer"), plain(told))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = {
            name: torch.randn(value.shape) * 0.1 for name, value in network.state_dict().items()
        }
    save_file(state, next((folder / "transformer").glob("*.safetensors")))
    (folder / "transformer" / "config.json").write_text(json.dumps(told))
    return folder


def plain(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if not key.startswith("_")}


def family(kind: str) -> Any:
    from understudy.models.folder import family_in

    return family_in(tiny_flow_folder(kind))


def beside_its_parts(kind: str, place: Path, name: str, **change: Any) -> Path:
    """The transformer of a kind as its authors' file, with the other parts beside it."""
    state = load_file(next((published(kind) / "transformer").glob("*.safetensors")))
    tensors = flow_names.original(family(kind).name, state) | change
    for part in published(kind).iterdir():
        if part.is_dir() and part.name != "transformer":
            shutil.copytree(part, place / part.name)
    prefix = "model.diffusion_model." if kind in ("sd35", "zimage") else ""
    file = place / name
    save_file({f"{prefix}{k}": v.contiguous() for k, v in tensors.items() if v is not None}, file)
    return file


def same(model: Any, expected: FlowTransformer) -> None:
    """Every tensor of every network, and what they compute."""
    assert isinstance(model, FlowTransformer) and model.family is expected.family
    assert model.networks.keys() == expected.networks.keys()
    for part, network in expected.networks.items():
        found = model.networks[part].state_dict()
        assert found.keys() == network.state_dict().keys()
        assert all(torch.equal(found[name], v) for name, v in network.state_dict().items()), part
    latents = torch.randn(1, expected.latent_channels, 8, 4)
    with torch.no_grad():
        text = expected.embed(["a photo of a cat"])
        assert all(map(torch.equal, model.embed(["a photo of a cat"]).trainable, text.trainable))
        assert torch.equal(model.predict(latents, 0.7, text), expected.predict(latents, 0.7, text))


QUICK = ("sd35", "flux", "zimage")  # the others are alike, and take a second each


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in QUICK else [pytest.mark.slow]) for k in KINDS]
)
def test_a_transformer_file_is_the_one_of_its_folder(kind: str, tmp_path: Path) -> None:
    """Bit-equal under diffusers' names, and the shapes tell the published configuration."""
    file = beside_its_parts(kind, tmp_path, "model.safetensors")
    model = registry.load(str(file), device="cpu")
    expected = FlowTransformer.from_folder(published(kind))
    same(model, expected)
    assert model.schedule == expected.schedule
    assert family_suits(str(file)) == family_suits(str(published(kind)))
    found = dict(model.networks["transformer"].config)  # type: ignore[attr-defined]
    wanted = dict(expected.networks["transformer"].config)  # type: ignore[arg-type]
    assert {k: listed(v) for k, v in plain(found).items()} == {
        k: listed(v) for k, v in plain(wanted).items()
    }


@pytest.mark.parametrize(("kind", "converter"), [
    ("sd35", "convert_sd3_transformer_checkpoint_to_diffusers"),
    ("zimage", "convert_z_image_transformer_checkpoint_to_diffusers"),
    pytest.param(
        "flux2", "convert_flux2_transformer_checkpoint_to_diffusers", marks=pytest.mark.slow
    ),
])  # fmt: skip
def test_diffusers_reads_the_same_from_such_a_file(
    kind: str, converter: str, tmp_path: Path
) -> None:
    """An oracle of the names. Its converters of FLUX.1 and Chroma take the published width only."""
    from diffusers.loaders import single_file_utils

    file = beside_its_parts(kind, tmp_path, "model.safetensors")
    theirs = getattr(single_file_utils, converter)(load_file(file))
    ours = registry.load(str(file), device="cpu").networks["transformer"].state_dict()  # type: ignore
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


@cache
def complete(kind: str) -> Path:
    """`published` with an autoencoder and text encoders as wide as such files have them."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    folder = _session() / f"complete-{kind}"
    shutil.copytree(published(kind), folder)
    scales = (1.5305, 0.0609) if kind == "sd35" else (0.3611, 0.1159)
    vae = AutoencoderKL(
        latent_channels=4, block_out_channels=[32, 32], use_quant_conv=False,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        use_post_quant_conv=False, scaling_factor=scales[0], shift_factor=scales[1],
        sample_size=1024,
    )  # fmt: skip
    words = _tokenizer("sd15")
    sizes: dict[str, Any] = {
        "hidden_size": 64, "projection_dim": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 1, "vocab_size": len(words), "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1,
    }  # fmt: skip
    t5 = t5_network(128)
    t5.config.d_kv, t5.config.num_heads = 64, 1
    t5 = type(t5)(t5.config)
    if kind == "sd35":
        parts = {"text_encoder": CLIPTextModelWithProjection(CLIPTextConfig(**sizes)),
                 "text_encoder_2": CLIPTextModelWithProjection(
                     CLIPTextConfig(**sizes, hidden_act="gelu")),
                 "text_encoder_3": t5}  # fmt: skip
    else:
        parts = {"text_encoder": CLIPTextModel(CLIPTextConfig(**sizes)), "text_encoder_2": t5}
    for name, part in {"vae": vae, **parts}.items():
        shaken(part)
        shutil.rmtree(folder / name)
        part.save_pretrained(folder / name)
    network = json.loads((folder / "transformer" / "config.json").read_text())
    pooled = 64 if kind == "flux" else 128  # of both CLIPs in SD3
    network |= {"joint_attention_dim": 128, "pooled_projection_dim": pooled}
    made = empty_network(class_of(family(kind), "transformer"), plain(network))
    state = {name: torch.randn(value.shape) * 0.1 for name, value in made.state_dict().items()}
    save_file(state, next((folder / "transformer").glob("*.safetensors")))
    (folder / "transformer" / "config.json").write_text(json.dumps(network))
    return folder


ENCODERS = {
    "sd35": {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"},
    "flux": {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"},
}


def whole(kind: str, place: Path, name: str, change: Any = None) -> Path:
    """A file with everything in it, and tokenizers beside it."""
    vae = "first_stage_model." if kind == "sd35" else "vae."
    tensors = flow_names.all_in_one(complete(kind), family(kind).name, ENCODERS[kind], vae)
    if change is not None:
        change(tensors)
    for part in complete(kind).iterdir():
        if part.name.startswith("tokenizer"):
            shutil.copytree(part, place / part.name)
    save_file(tensors, place / name)
    return place / name


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_file_with_everything_is_the_model_of_its_folder(kind: str, tmp_path: Path) -> None:
    file = whole(kind, tmp_path, "all.safetensors")
    model = registry.load(str(file), device="cpu")
    expected = FlowTransformer.from_folder(complete(kind))
    same(model, expected)
    pictures = torch.rand(1, 3, 16, 32)
    with torch.no_grad():
        latents = expected.encode(pictures)
        assert torch.equal(model.encode(pictures), latents)
        assert torch.equal(model.decode(latents), expected.decode(latents))
    assert registry.told(str(file)) == ()  # nothing was left out


def test_clips_without_t5_make_a_model_without_t5(tmp_path: Path) -> None:
    """As sd3_medium_incl_clips is."""

    def without(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if ".t5xxl." in name]:
            del tensors[name]

    file = whole("sd35", tmp_path, "incl_clips.safetensors", without)
    shutil.rmtree(tmp_path / "tokenizer_3")
    model = registry.load(str(file), device="cpu")
    assert isinstance(model, FlowTransformer) and "text_encoder_3" not in model.networks
    text = model.embed(["a cat"]).trainable[0]
    assert not text[:, 77:].any()


def test_weights_in_eight_bits_are_those_numbers(tmp_path: Path) -> None:
    """ComfyUI's fp8 files hold plain numbers: bfloat16 holds each of them exactly."""
    eight: dict[str, torch.Tensor] = {}

    def rounded(tensors: dict[str, Any]) -> None:
        for name, value in tensors.items():
            if name.startswith("model.diffusion_model."):
                eight[name] = tensors[name] = value.to(torch.float8_e4m3fn)

    file = whole("flux", tmp_path, "flux1-dev-fp8.safetensors", rounded)
    model = registry.load(str(file), device="cpu")
    assert isinstance(model, FlowTransformer)
    found = flow_names.original("FLUX.1", model.networks["transformer"].state_dict())
    assert len(found) == len(eight)
    for name, value in found.items():
        assert torch.equal(value, eight[f"model.diffusion_model.{name}"].float()), name
    assert licence_of(str(file)) == "FLUX non-commercial license"


def test_large_weights_become_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from understudy.models.transformer import shards

    monkeypatch.setattr(shards, "SHARD", 300_000)
    file = beside_its_parts("flux", tmp_path, "model.safetensors")
    made = registry.find(str(file))
    assert len(list((made / "transformer").glob("*.safetensors"))) > 3
    same(FlowTransformer.from_folder(made), FlowTransformer.from_folder(published("flux")))


QKV = "double_blocks.0.img_attn.qkv.weight"


@pytest.mark.parametrize(("change", "match"), [
    ({"extra.weight": torch.ones(1)}, "1 tensors that no transformer of FLUX.1 .*extra.weight"),
    ({"img_in.bias": None}, "incomplete: it has no img_in.bias"),
    ({"vector_in.in_layer.weight": None}, "incomplete: it has no vector_in.in_layer.weight"),
    ({QKV: torch.ones(383, 128)}, "qkv.weight has the shape .383, 128.*Wanted .384, 128"),
    ({"img_in.weight": torch.ones(128, 96)}, "takes 96 latent channels, vae gives 4"),
    ({"img_in.bias": torch.full([128], torch.nan)}, "x_embedder.bias holds .*not finite"),
    ({"img_in.scale_weight": torch.ones(())}, "quantised with scales .*scale_weight"),
    ({"img_in.bias": torch.ones(128, dtype=torch.uint8)}, "tensors of type U8"),
])  # fmt: skip
def test_load_convert_and_check_refuse_the_same(
    change: Any, match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In one line that names the file, with nothing left behind."""
    from understudy import cli

    monkeypatch.chdir(tmp_path)
    file = beside_its_parts("flux", tmp_path, "odd.safetensors", **change)
    with pytest.raises(ModelError, match=match):
        registry.load(str(file))
    for command in (["convert", "odd.safetensors", "--out", "made"], ["check", "odd.safetensors"]):
        assert cli.main(["models", *command]) == 1
        said = capsys.readouterr().err
        assert "odd.safetensors" in said and "Traceback" not in said and said.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_what_no_part_reads_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from understudy import cli

    def more(tensors: dict[str, Any]) -> None:
        tensors |= {"lora.a": torch.ones(1), "model_ema.decay": torch.ones(1)}

    file = whole("flux", tmp_path, "all.safetensors", more)
    assert cli.main(["models", "convert", str(file), "--out", str(tmp_path / "made")]) == 0
    said = capsys.readouterr()
    assert "left out: lora (1), model_ema (1)." in said.err
    assert "FLUX.1" in said.out
    same(registry.load(str(tmp_path / "made"), device="cpu"), registry.load(str(file)))


def test_a_missing_part_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = beside_its_parts("flux", tmp_path, "flux1-dev.safetensors")
    shutil.rmtree(tmp_path / "text_encoder_2")
    match = r"holds no text_encoder_2, and black-forest-labs/FLUX.1-dev .* to .*/text_encoder_2\."
    with pytest.raises(ModelError, match=match):
        registry.load(str(file))


def test_another_part_beside_the_file_is_another_model(tmp_path: Path) -> None:
    file = beside_its_parts("flux", tmp_path, "model.safetensors")
    first = registry.find(str(file))
    told = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(told | {"shift": 1.0}))
    assert registry.find(str(file)) != first


@pytest.mark.parametrize(("name", "hub_id"), [
    ("flux1-dev.safetensors", "black-forest-labs/FLUX.1-dev"),
    ("flux1-schnell-fp8.safetensors", "black-forest-labs/FLUX.1-schnell"),
    ("flux1-kontext-dev.safetensors", "black-forest-labs/FLUX.1-Kontext-dev"),
    ("sd3.5_large_turbo.safetensors", "stabilityai/stable-diffusion-3.5-large-turbo"),
    ("sd3_medium_incl_clips_t5xxlfp8.safetensors",
     "stabilityai/stable-diffusion-3-medium-diffusers"),
    ("z_image_turbo_bf16.safetensors", "Tongyi-MAI/Z-Image-Turbo"),
    ("flux-2-klein-4b.safetensors", "black-forest-labs/FLUX.2-klein-4B"),
    ("qwen_image_fp8_e4m3fn.safetensors", "Qwen/Qwen-Image"),
])  # fmt: skip
def test_a_published_file_is_known_by_its_name(name: str, hub_id: str) -> None:
    base = base_named(f"models/{name}")
    assert base is not None and base.hub_id == hub_id
    assert trained_instead(f"models/{name}") == base.train_on


def sized() -> list[Any]:
    """The published models whose sizes differ from each other."""
    known = {json.dumps([base.pipeline, dict(base.config)]): base for base in BASES[::-1]}
    quick = ("3.5-medium",)
    return [
        pytest.param(base, id=base.hub_id, marks=[] if base.hub_id.endswith(quick)
                     else [pytest.mark.slow]) for base in known.values()
    ]  # fmt: skip


@pytest.mark.parametrize("base", sized())
def test_the_shapes_of_published_models_tell_their_sizes(base: Base) -> None:
    from understudy.models.family import family_named

    found = family_named(base.pipeline)
    assert found is not None
    config = {**base.config, **({"pos_embed_max_size": 24} if found.name.endswith(" 3") else {})}
    network: Any = empty_network(class_of(found, "transformer"), config)  # tables take time
    tensors = flow_names.original(found.name.replace(" klein", ""), network.state_dict())
    entries = {k: Entry(Path("x"), "BF16", tuple(v.shape)) for k, v in tensors.items()}
    layout = layout_of(entries)
    assert layout is not None and layout.family is found
    told = transformer_config(found, entries)
    wanted = {key: network.config[key] for key in told if key not in ("_class_name", "axes_lens")}
    assert {key: listed(told[key]) for key in wanted} == {k: listed(v) for k, v in wanted.items()}


def listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
