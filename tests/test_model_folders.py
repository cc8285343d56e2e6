"""Model folders that are damaged, odd or hostile: refused in one line before weights are read.

`check_model` is what `models check` and `models convert` call; loading begins with the same checks.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tiny import tiny_folder
from understudy.cli import main
from understudy.errors import ModelError
from understudy.models.fingerprint import files_digest
from understudy.models.parts import check_model, load_parts
from understudy.models.unet.stable_diffusion import StableDiffusion

DIFFUSERS, CLIP = "diffusion_pytorch_model.safetensors", "model.safetensors"
Break = Callable[[Path], object]


def copied(place: Path, kind: str = "sd15") -> Path:
    return Path(shutil.copytree(tiny_folder(kind), place / "model"))


def said(part: str, **values: Any) -> Break:
    """A change of a part's configuration; the value ... removes the key."""

    def change(folder: Path) -> None:
        [file] = [p for p in (folder / part).iterdir() if p.name.endswith("config.json")][:1]
        told = {**json.loads(file.read_text()), **values}
        file.write_text(json.dumps({k: v for k, v in told.items() if v is not ...}))

    return change


def weights(part: str) -> str:
    return CLIP if part.startswith("text") else DIFFUSERS


def tensors(part: str, change: Callable[[dict[str, Tensor]], object]) -> Break:
    """A change of a part's tensors."""

    def changed(folder: Path) -> None:
        file = folder / part / weights(part)
        found = {name: value.clone() for name, value in load_file(file).items()}
        change(found)
        save_file(found, file)

    return changed


def raw(part: str, change: Callable[[bytes], bytes], name: str = "") -> Break:
    """A change of the bytes of a file, the part's weights unless named."""

    def changed(folder: Path) -> None:
        file = folder / part / (name or weights(part))
        file.write_bytes(change(file.read_bytes()))

    return changed


def headed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A change of a safetensors header, the tensors' bytes left as they are."""

    def changed(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        told = json.loads(data[8 : 8 + length])
        told = change(told) or told
        text = json.dumps(told).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return changed


def first(told: dict[str, Any], **values: Any) -> None:
    name = next(name for name in told if name != "__metadata__")
    told[name] |= values


def index(named: object, tensor: str = "conv_in.weight", ending: str = "index.json") -> Break:
    """An index in place of the U-Net's weights, which are put into other.safetensors."""

    def changed(folder: Path) -> None:
        (folder / "unet" / DIFFUSERS).rename(folder / "unet" / "other.safetensors")
        told = {"weight_map": {tensor: named}}
        (folder / "unet" / f"{DIFFUSERS}.{ending}").write_text(json.dumps(told))

    return changed


def both(*steps: Break) -> Break:
    return lambda folder: [step(folder) for step in steps]


def touched(part: str, name: str, text: str = "") -> Break:
    return lambda folder: (folder / part / name).write_text(text)


def widened(found: dict[str, Tensor]) -> None:
    """Nine channels in, as inpainting models have."""
    found["conv_in.weight"] = torch.zeros(16, 9, 3, 3)


def without(beginning: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda found: [found.pop(name) for name in list(found) if name.startswith(beginning)]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
BROKEN: dict[str, tuple[Break, str]] = {
    "index names a pickle": (index("weights.bin"), "only .safetensors"),
    "index leads out": (index("../vae/" + DIFFUSERS), "only .safetensors"),
    "index is absolute": (index("/etc/x.safetensors"), "only .safetensors"),
    "index with backslash": (index("..\\x.safetensors"), "only .safetensors"),
    "index names a number": (index(7), "only .safetensors"),
    "index names an absent file": (index("absent.safetensors"), "is absent"),
    "index places a tensor wrongly": (index("other.safetensors", "no.such"), "lacks it"),
    "fp16 index names a pickle": (index("x.bin", ending="index.fp16.json"), "only .safetensors"),
    "index without a map": (
        both(index("x"), touched("unet", f"{DIFFUSERS}.index.json", "{}")), "no weight_map"),
    "index and one file": (
        touched("unet", f"{DIFFUSERS}.index.json", '{"weight_map": {}}'), "has both"),
    "empty file": (raw("vae", lambda _: b""), "is damaged"),
    "git-lfs pointer": (raw("vae", lambda _: LFS), "git-lfs pointer"),
    "cut in its weights": (raw("text_encoder", lambda data: data[:-5]), "is damaged"),
    "cut in its header": (raw("unet", lambda data: data[:100]), "is damaged"),
    "longer than its header says": (raw("unet", lambda data: data + b"x"), "is damaged"),
    "no tensors": (tensors("unet", dict.clear), "holds no tensors"),
    "unfinished download beside": (touched("unet", f"{DIFFUSERS}.incomplete"), "unfinished"),
    "unfinished download": (
        lambda folder: (folder / "vae" / DIFFUSERS).rename(folder / "vae" / "x.incomplete"),
        "unfinished"),
    "a tensor is missing": (tensors("vae", without("encoder.conv_in")), "lack 2 tensors"),
    "a tensor too many": (
        tensors("unet", lambda found: found.update(extra=torch.ones(1))), "does not use"),
    "another shape": (
        tensors("unet", lambda found: found.update({"conv_in.bias": torch.ones(3)})), "of shape"),
    "inpainting": (both(said("unet", in_channels=9), tensors("unet", widened)), "takes 9 latent"),
    "distilled, without a middle": (tensors("unet", without("mid_block")), "lack .*mid_block"),
    "LoRA beside weights": (touched("text_encoder", "adapter_config.json", "{}"), "an adapter"),
    "adapter weights beside": (touched("unet", "adapter_model.safetensors"), "an adapter"),
    "auto_map": (said("text_encoder", auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "quantised": (said("unet", quantization_config={"quant_method": "x"}), "quantization_config"),
    "kernels from the hub": (
        said("text_encoder", attn_implementation="owner/kernels"), "attn_implementation"),
    "too wide": (said("unet", block_out_channels=[16, 10**9]), "out of bounds"),
    "too deep": (said("text_encoder", num_hidden_layers=100), "asks for 100 blocks"),
    "too many transformers": (
        said("unet", transformer_layers_per_block=10**7), "out of bounds"),
    "many nested transformers": (
        said("unet", layers_per_block=12, transformer_layers_per_block=32), "asks for"),
    "another class": (said("unet", _class_name="UNet3DConditionModel"), "UNet3DConditionModel"),
    "another activation": (said("unet", act_fn="mish"), "act_fn"),
    "class conditions": (said("unet", class_embed_type="timestep"), "class_embed_type"),
    "whitened latents": (said("vae", latents_mean=[0.0, 0, 0, 0]), "latents_mean"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_folder_is_refused_by_check_and_load_alike(kind: str, tmp_path: Path) -> None:
    change, match = BROKEN[kind]
    folder = copied(tmp_path)
    change(folder)
    with pytest.raises(ModelError, match=match) as checked:
        check_model(folder)
    with pytest.raises(ModelError) as loaded:
        StableDiffusion.from_folder(folder)
    assert str(loaded.value) == str(checked.value)
    assert "\n" not in str(checked.value) and len(str(checked.value)) < 600


@pytest.mark.parametrize("kind", ["sd15", "sd21", "toy", "sdxl"])
def test_whole_folders_pass(kind: str) -> None:
    check_model(tiny_folder(kind))
    assert main(["models", "check", str(tiny_folder(kind))]) == 0


def test_the_command_refuses_what_loading_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(tmp_path)
    BROKEN["inpainting"][0](folder)
    assert main(["models", "check", str(folder)]) == 1
    assert "inpainting" in capsys.readouterr().err


def test_shards_are_read_and_counted_in_the_fingerprint(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    plain = load_parts(folder, torch.float32)["unet"].state_dict()
    unet = folder / "unet"
    found = load_file(unet / DIFFUSERS)
    (unet / DIFFUSERS).unlink()
    halves = [dict(list(found.items())[number::2]) for number in range(2)]
    placed: dict[str, str] = {}
    for number, half in enumerate(halves):
        name = f"diffusion_pytorch_model-{number + 1:05}-of-00002.safetensors"
        save_file(half, unet / name)
        placed |= dict.fromkeys(half, name)
    told = {"metadata": {}, "weight_map": placed}
    (unet / f"{DIFFUSERS}.index.json").write_text(json.dumps(told))
    again = load_parts(folder, torch.float32)["unet"].state_dict()
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    before = files_digest(folder)
    halves[1]["conv_in.bias" if "conv_in.bias" in halves[1] else list(halves[1])[0]] += 1
    save_file(halves[1], unet / "diffusion_pytorch_model-00002-of-00002.safetensors")
    assert files_digest(folder) != before


def test_links_stay_in_the_folder_or_in_its_cache(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    file = folder / "unet" / DIFFUSERS
    file.rename(tmp_path / "elsewhere.safetensors")
    file.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ModelError, match="a file outside its folder"):
        check_model(folder)
    repository = tmp_path / "models--owner--name"
    snapshot = Path(shutil.copytree(tiny_folder("sd15"), repository / "snapshots" / "abc"))
    (repository / "blobs").mkdir()
    linked = snapshot / "unet" / DIFFUSERS
    blob = repository / "blobs" / ("0" * 64)
    linked.rename(blob)
    linked.symlink_to(Path("..") / ".." / ".." / "blobs" / blob.name)
    check_model(snapshot)
    # The name of a blob claims a SHA-256; what counts is the content.
    before = files_digest(snapshot)
    assert before == files_digest(tiny_folder("sd15"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x00")
    assert files_digest(snapshot) != before


def test_weights_that_are_not_finite_are_refused_when_they_are_read(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    tensors("vae", lambda found: found["encoder.conv_in.bias"].fill_(torch.nan))(folder)
    with pytest.raises(ModelError, match="encoder.conv_in.bias holds values that are not finite"):
        StableDiffusion.from_folder(folder)


def test_old_names_of_weights_are_understood(tmp_path: Path) -> None:
    """Autoencoders of 2022 say query, key, value and proj_attn; text encoders add positions."""
    folder = copied(tmp_path)
    plain = load_parts(folder, torch.float32)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(found: dict[str, Tensor]) -> None:
        for name in list(found):
            for new, former in names.items():
                if f".{new}." in name:
                    found[name.replace(f".{new}.", f".{former}.")] = found.pop(name)

    tensors("vae", old)(folder)
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    tensors("text_encoder", lambda found: found.update(positions))(folder)
    again = load_parts(folder, torch.float32)
    for part in ("vae", "text_encoder"):
        wanted, found = plain[part].state_dict(), again[part].state_dict()
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)
