"""More than a hundred odd, broken and hostile model folders: each loads, or is refused in one line.

No traceback of a library, no endless read, and the same answer from `check_model` as from loading.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from test_model_folders import (
    CLIP,
    DIFFUSERS,
    Break,
    both,
    copied,
    first,
    headed,
    raw,
    said,
    tensors,
    touched,
    weights,
)
from understudy.errors import UnderstudyError
from understudy.models.parts import check_model
from understudy.models.unet.stable_diffusion import StableDiffusion

SECONDS = 60  # a folder that takes longer hangs; the slowest takes 2 on an idle machine


@pytest.fixture(autouse=True)
def alarm() -> Generator[None]:
    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def replaced(part: str, name: str, make: Callable[[Path], object]) -> Break:
    """Another thing in place of a file."""

    def changed(folder: Path) -> None:
        (folder / part / name).unlink()
        make(folder / part / name)

    return changed


def written(part: str, name: str, text: str | bytes) -> Break:
    data = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / part / name).write_bytes(data)


def gone(part: str, name: str) -> Break:
    return lambda folder: (folder / part / name).unlink()


def named(part: str, name: str) -> Break:
    """The weights under another name."""
    return lambda folder: (folder / part / weights(part)).rename(folder / part / name)


def edited(part: str, name: str, change: Callable[[Any], Any]) -> Break:
    """A change of a JSON file."""

    def changed(folder: Path) -> None:
        file = folder / part / name
        told = json.loads(file.read_text())
        file.write_text(json.dumps(change(told) or told))

    return changed


def cast_to(dtype: torch.dtype, part: str = "unet") -> Break:
    def change(found: dict[str, Tensor]) -> None:
        found |= {name: value.to(dtype) for name, value in found.items()}

    return tensors(part, change)


def sharded(*, twice: bool = False, absent: bool = False) -> Break:
    def changed(folder: Path) -> None:
        unet = folder / "unet"
        found = load_file(unet / DIFFUSERS)
        (unet / DIFFUSERS).unlink()
        names = list(found)
        halves = [names[::2], names[1::2] + (names[:1] if twice else [])]
        placed = {name: f"s{n}.safetensors" for n, half in enumerate(halves) for name in half}
        for n, half in enumerate(halves):
            save_file({name: found[name].clone() for name in half}, unet / f"s{n}.safetensors")
        if absent:
            (unet / "s1.safetensors").unlink()
        (unet / f"{DIFFUSERS}.index.json").write_text(json.dumps({"weight_map": placed}))

    return changed


def fp16_beside(folder: Path) -> None:
    found = load_file(folder / "unet" / DIFFUSERS)
    halved = {name: value.half() for name, value in found.items()}
    save_file(halved, folder / "unet" / DIFFUSERS.replace(".saf", ".fp16.saf"))


def linked_part(folder: Path) -> None:
    (folder / "vae").rename(folder.parent / "other-vae")
    (folder / "vae").symlink_to(folder.parent / "other-vae")


def file_for_folder(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    (folder / "vae").write_text("x")


def nan(found: dict[str, Tensor]) -> None:
    next(iter(found.values())).fill_(torch.nan)


def head_only(text: bytes, length: int | None = None) -> Callable[[bytes], bytes]:
    size = len(text) if length is None else length
    return lambda _: struct.pack("<Q", size) + text


LOADS = ""  # the folder loads
CONFIG, INDEX, TOKENS = "config.json", "model_index.json", "tokenizer_config.json"
ODD: dict[str, tuple[Break, str]] = {
    # Files that are no files.
    "config: missing": (gone("unet", CONFIG), "no such file"),
    "config: folder": (replaced("unet", CONFIG, Path.mkdir), "it is a folder"),
    "config: FIFO": (replaced("unet", CONFIG, os.mkfifo), "not an ordinary file"),
    "config: /dev/zero": (
        replaced("unet", CONFIG, lambda f: f.symlink_to("/dev/zero")), "not an ordinary file"),
    "config: link to itself": (
        replaced("unet", CONFIG, lambda f: f.symlink_to(f.name)), "lead in a circle"),
    "weights: folder": (replaced("vae", DIFFUSERS, Path.mkdir), "it is a folder"),
    "weights: FIFO": (replaced("vae", DIFFUSERS, os.mkfifo), "not an ordinary file"),
    "weights: link to nothing": (
        replaced("vae", DIFFUSERS, lambda f: f.symlink_to("gone")), "no such file"),
    "part: a file": (file_for_folder, "lacks vae/"),
    "part: a link the user made": (linked_part, LOADS),
    # JSON.
    "config: a list": (written("unet", CONFIG, "[1]"), "no object"),
    "config: empty": (written("vae", CONFIG, ""), "cannot be read as JSON"),
    "config: nested": (written("unet", CONFIG, "[" * 100_000), "levels deep"),
    "config: 17 MB": (written("unet", CONFIG, " " * 17_000_000), "bytes"),
    "config: no UTF-8": (written("unet", CONFIG, b"\xff\xfe{}"), "cannot be read as JSON"),
    "config: git-lfs": (written("unet", CONFIG, "version https://git-lfs"), "cannot be read"),
    "config: empty object": (written("unet", CONFIG, "{}"), "unet"),
    "index: a list": (written("", INDEX, "[]"), "model_index.json"),
    "index: a number": (written("", INDEX, "3"), "model_index.json"),
    "index: empty object": (written("", INDEX, "{}"), LOADS),
    "index: odd class": (written("", INDEX, '{"_class_name": ["my_pipeline", "X"]}'), "holds a"),
    "index: foreign parts": (
        edited("", INDEX, lambda t: {**t, "unet": ["my_unet", "Evil"]}), LOADS),
    # The U-Net's configuration.
    "unet: sample_size 0": (said("unet", sample_size=0), "sample_size"),
    "unet: sample_size of one": (said("unet", sample_size=[16]), "sample_size"),
    "unet: sample_size text": (said("unet", sample_size="16"), "sample_size"),
    "unet: sample_size none": (said("unet", sample_size=None), LOADS),
    "unet: sample_size pair": (said("unet", sample_size=[16, 24]), LOADS),
    "unet: no levels": (said("unet", block_out_channels=[]), "block_out_channels"),
    "unet: one level more": (said("unet", block_out_channels=[16, 32, 32]), "differ in length"),
    "unet: true as a width": (said("unet", in_channels=True), "in_channels"),
    "unet: float as a width": (said("unet", in_channels=4.0), "in_channels"),
    "unet: no groups": (said("unet", norm_num_groups=0), "norm_num_groups"),
    "unet: groups do not divide": (said("unet", norm_num_groups=7), "does not divide"),
    "unet: no layers": (said("unet", layers_per_block=0), "layers_per_block"),
    "unet: fewer layers": (said("unet", layers_per_block=2), "lack"),
    "unet: no heads": (said("unet", attention_head_dim=0), "attention_head_dim"),
    "unet: odd heads": (said("unet", attention_head_dim=5), "unet"),
    "unet: other text width": (said("unet", cross_attention_dim=24), "of shape"),
    "unet: list of text widths": (said("unet", cross_attention_dim=[16, 16]), "cross_attention"),
    "unet: unknown blocks": (
        said("unet", down_block_types=["SkipDownBlock2D"] * 2), "down_block_types"),
    "unet: block types differ": (said("unet", up_block_types=["UpBlock2D"]), "differ in length"),
    "unet: no middle said": (said("unet", mid_block_type=None), "does not use"),
    "unet: image conditions": (said("unet", encoder_hid_dim=8), "encoder_hid_dim"),
    "unet: linear projections": (said("unet", use_linear_projection=True), "of shape"),
    "unet: other additions": (said("unet", addition_embed_type="image"), "addition_embed_type"),
    "unet: wide time": (said("unet", time_embedding_dim=10**9), "time_embedding_dim"),
    "unet: gated attention": (said("unet", attention_type="gated"), "attention_type"),
    "unet: latent consistency": (said("unet", time_cond_proj_dim=256), "time_cond_proj_dim"),
    "unet: NaN": (said("unet", norm_eps=float("nan")), "norm_eps"),
    "unet: only cross attention": (said("unet", only_cross_attention=True), "only_cross"),
    "unet: unknown key": (said("unet", brand_new=3), LOADS),
    # The autoencoder's.
    "vae: no scale": (said("vae", scaling_factor=0), "scaling_factor"),
    "vae: scale as text": (said("vae", scaling_factor="0.18"), "scaling_factor"),
    "vae: scale NaN": (said("vae", scaling_factor=float("nan")), "scaling_factor"),
    "vae: scale infinite": (said("vae", scaling_factor=float("inf")), "scaling_factor"),
    "vae: 16 channels": (said("vae", latent_channels=16), "of shape"),
    "vae: alpha channel": (said("vae", in_channels=4), "in_channels"),
    "vae: shifted": (said("vae", shift_factor=0.1), "shift_factor"),
    "vae: whitened": (said("vae", latents_std=[1.0] * 4), "latents_std"),
    "vae: tiny": (said("vae", _class_name="AutoencoderTiny"), "AutoencoderTiny"),
    "vae: no quant layers": (said("vae", use_quant_conv=False), "does not use"),
    # The text encoder's.
    "text: another activation": (said("text_encoder", hidden_act="relu"), "hidden_act"),
    "text: heads": (said("text_encoder", num_attention_heads=3), "does not divide"),
    "text: fewer words": (said("text_encoder", vocab_size=100), "of shape"),
    "text: a million places": (
        said("text_encoder", max_position_embeddings=10**6), "max_position_embeddings"),
    "text: BERT": (said("text_encoder", model_type="bert", architectures=...), "bert"),
    "text: own class": (said("text_encoder", architectures=["Evil"]), "Evil"),
    "text: a layer cut off": (said("text_encoder", num_hidden_layers=1), LOADS),
    "text: a layer more": (said("text_encoder", num_hidden_layers=3), "lack"),
    "text: odd dtype": (said("text_encoder", dtype="evil", torch_dtype=7), LOADS),
    "text: several ends": (said("text_encoder", eos_token_id=[1, 2]), "eos_token_id"),
    "text: eager attention": (said("text_encoder", attn_implementation="eager"), LOADS),
    "text: a key for gradients": (said("text_encoder", gradient_checkpointing=True), LOADS),
    # Weights.
    "weights: fp16 alone": (
        both(cast_to(torch.float16), named("unet", DIFFUSERS.replace(".saf", ".fp16.saf"))), LOADS),
    "weights: fp16 beside": (fp16_beside, LOADS),
    "weights: EMA's other half alone": (
        named("unet", "diffusion_pytorch_model.non_ema.safetensors"), "non_ema"),
    "weights: old name": (named("text_encoder", "pytorch_model.safetensors"), "pytorch_model"),
    "weights: pickle alone": (named("vae", "diffusion_pytorch_model.bin"), "only pickled"),
    "weights: pickle beside": (touched("vae", "diffusion_pytorch_model.bin", "x"), LOADS),
    "weights: msgpack alone": (named("vae", "diffusion_flax_model.msgpack"), "no weights"),
    "weights: ONNX alone": (named("unet", "model.onnx"), "no weights"),
    "weights: float64": (cast_to(torch.float64), LOADS),
    "weights: bfloat16": (cast_to(torch.bfloat16), LOADS),
    "weights: float8": (cast_to(torch.float8_e4m3fn), "F8_E4M3"),
    "weights: integers": (cast_to(torch.int64), "I64"),
    "weights: NaN": (tensors("text_encoder", nan), "not finite"),
    "weights: shards": (sharded(), LOADS),
    "weights: a shard absent": (sharded(absent=True), "is absent"),
    "weights: a tensor in two shards": (sharded(twice=True), "in s0.safetensors and in"),
    "header: endless": (raw("unet", head_only(b"{}", 2**63)), "is damaged"),
    "header: a list": (raw("unet", head_only(b"[]")), "not a table"),
    "header: no JSON": (raw("unet", head_only(b"{nope")), "cannot be read as JSON"),
    "header: nested": (raw("unet", head_only(b"[" * 9999)), "levels deep"),
    "header: no tensors": (raw("unet", head_only(b"{}")), "holds no tensors"),
    "header: huge tensor": (
        raw("unet", headed(lambda t: first(t, shape=[2**40, 2**40]))), "is damaged"),
    "header: negative": (raw("unet", headed(lambda t: first(t, shape=[-1]))), "is damaged"),
    "header: text as shape": (raw("unet", headed(lambda t: first(t, shape="4"))), "is damaged"),
    "header: overlap": (
        raw("unet", headed(lambda t: first(t, data_offsets=[4, 68]))), "is damaged"),
    "header: unknown type": (raw("unet", headed(lambda t: first(t, dtype="Q4"))), "unknown type"),
    "header: a list as type": (
        raw("unet", headed(lambda t: first(t, dtype=["F32"]))), "unknown type"),
    "header: entry a number": (
        raw("unet", headed(lambda t: {**t, "conv_in.bias": 3})), "is damaged"),
    # Tokenizers.
    "words: no vocabulary": (gone("tokenizer", "vocab.json"), "neither vocab.json"),
    "words: no merges": (gone("tokenizer", "merges.txt"), "neither vocab.json"),
    "words: a list": (written("tokenizer", "vocab.json", "[]"), "no JSON object"),
    "words: text as numbers": (written("tokenizer", "vocab.json", '{"a": "b"}'), "no table"),
    "words: twice the same": (
        edited("tokenizer", "vocab.json", lambda t: {**t, "cat</w>": 0}), "twice"),
    "words: below zero": (
        edited("tokenizer", "vocab.json", lambda t: {**t, "cat</w>": -1}), "out of bounds"),
    "words: far beyond": (
        edited("tokenizer", "vocab.json", lambda t: {**t, "cat</w>": 999_999}), "has 558 words"),
    "words: a token with another key": (
        edited("tokenizer", "tokenizer_config.json", lambda t: {
            **t, "added_tokens_decoder": {"0": {"content": "!", "\x1b[2J": 1}}}), "with the key"),
    "words: binary merges": (written("tokenizer", "merges.txt", b"\0\1\2"), "damaged"),
    "words: merges of nothing": (
        written("tokenizer", "merges.txt", "#version: 0.2\nqq zz\n"), "cannot be loaded"),
    "words: settings a list": (written("tokenizer", TOKENS, "[]"), "no JSON object"),
    "words: own code": (
        edited("tokenizer", TOKENS, lambda t: {**t, "auto_map": {"AutoTokenizer": ["x", None]}}),
        "auto_map"),
    "words: length as text": (
        edited("tokenizer", TOKENS, lambda t: {**t, "model_max_length": "many"}), "tokenizer"),
    "words: length of one": (
        edited("tokenizer", TOKENS, lambda t: {**t, "model_max_length": 1}), "model_max_length"),
    "words: endless length": (
        edited("tokenizer", TOKENS, lambda t: {**t, "model_max_length": 10**30}), LOADS),
    "words: start unknown": (
        edited("tokenizer", TOKENS, lambda t: {**t, "bos_token": "<new>"}), "558 words"),
    "words: odd padding": (
        edited("tokenizer", TOKENS, lambda t: {**t, "pad_token": {"x": 1}}), "tokenizer"),
    "words: added": (written("tokenizer", "added_tokens.json", '{"<rex>": 558}'), "558 words"),
    "words: special a list": (
        written("tokenizer", "special_tokens_map.json", "[1]"), "no JSON object"),
    # The scheduler.
    "scheduler: missing": (gone("scheduler", "scheduler_config.json"), "no such file"),
    "scheduler: a list": (written("scheduler", "scheduler_config.json", "[]"), "no object"),
    "scheduler: empty object": (written("scheduler", "scheduler_config.json", "{}"), LOADS),
    # Beside.
    "beside: README, pictures, code": (
        both(touched("", "README.md"), touched("unet", "x.png"), touched("unet", "modeling.py")),
        LOADS),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_folder_loads_or_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    change, match = ODD[kind]
    folder = copied(tmp_path)
    change(folder)
    if match == LOADS:
        check_model(folder)
        model = StableDiffusion.from_folder(folder)
        assert model.fingerprint and model.embed(["a cat"]).tokens.isfinite().all()
        return
    with pytest.raises(UnderstudyError, match=match) as refused:
        check_model(folder)
        StableDiffusion.from_folder(folder)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 700


def test_two_encoders(tmp_path: Path) -> None:
    """Folders of XL whose parts are exchanged or missing."""
    cases: dict[str, Break] = {
        "lacks tokenizer_2": lambda folder: shutil.rmtree(folder / "tokenizer_2"),
        "text_encoder_2 lack": tensors("text_encoder_2", lambda t: t.pop("text_projection.weight")),
        "of shape": said("text_encoder_2", projection_dim=12),
        "addition_time_embed_dim|numbers of text": said("unet", addition_time_embed_dim=8),
    }
    for number, (match, change) in enumerate(cases.items()):
        folder = copied(tmp_path / str(number), "sdxl")
        change(folder)
        with pytest.raises(UnderstudyError, match=match):
            check_model(folder)


def test_weights_that_overflow_in_half_precision_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    tensors("unet", lambda t: t["conv_in.bias"].fill_(1e6))(folder)
    StableDiffusion.from_folder(folder)
    with pytest.raises(UnderstudyError, match="conv_in.bias .*not finite in float16"):
        StableDiffusion.from_folder(folder, dtype=torch.float16)
    assert CLIP and DIFFUSERS
