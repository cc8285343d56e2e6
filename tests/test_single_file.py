"""Single checkpoint files: the same model as the folder they were made of, and nothing run."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import ldm
from cases import few
from tiny import _session, write_tiny
from understudy.errors import ModelError
from understudy.models import registry
from understudy.models.unet.stable_diffusion import StableDiffusion


@cache
def published(kind: str) -> Path:
    folder = _session() / f"published-{kind}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        write_tiny(folder, kind, published=True)
    return folder


def beside_a_tokenizer(tmp_path: Path, kind: str, name: str, **more: Any) -> Path:
    """The single file of a kind, in a folder with a tokenizer."""
    tensors = {key: value.contiguous() for key, value in ldm.single_file(published(kind)).items()}
    shutil.copytree(published(kind) / "tokenizer", tmp_path / "tokenizer", dirs_exist_ok=True)
    file = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(tensors, file, more.get("metadata"))
    else:
        torch.save({"state_dict": tensors, **more}, file)
    return file


@pytest.mark.parametrize(("kind", "name"), [
    ("sd15", "v1.ckpt"), ("sd21", "v2.safetensors"), ("sdxl", "xl.safetensors"),
])  # fmt: skip
def test_a_single_file_is_the_model_of_its_folder(kind: str, name: str, tmp_path: Path) -> None:
    file = beside_a_tokenizer(tmp_path, kind, name)
    model = registry.load(str(file), device="cpu")
    expected = StableDiffusion.from_folder(published(kind))
    assert isinstance(model, StableDiffusion)
    assert model.schedule.prediction == expected.schedule.prediction
    latents = torch.randn(2, 4, 8, 8)
    prompts = ["a photo of a cat", ""]
    pictures = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        text = model.embed(prompts)
        known = expected.embed(prompts)
        for values, wanted in zip(text.trainable, known.trainable, strict=True):
            assert torch.allclose(values, wanted, atol=1e-5)
        noise = model.predict(latents, 501, text)
        assert torch.allclose(noise, expected.predict(latents, 501, text), atol=1e-5)
        assert torch.allclose(model.encode(pictures), expected.encode(pictures), atol=1e-5)
        assert torch.allclose(model.decode(latents), expected.decode(latents), atol=1e-5)
    # The second time nothing is converted: the folder is found again.
    again = registry.find(str(file))
    assert again == registry.find(str(file))
    assert [path for path in again.parent.iterdir() if path.is_dir()] == [again]


@pytest.mark.parametrize(("said", "expected"), [
    ({"metadata": {"modelspec.prediction_type": "epsilon"}}, "epsilon"),
    ({"yaml": 'params:\n  parameterization: "v"'}, "v_prediction"),
    ({"yaml": "params:\n  linear_start: 0.00085"}, "epsilon"),
    ({"global_step": 875_000}, "epsilon"),
    ({}, "v_prediction"),
])  # fmt: skip
def test_what_a_second_generation_file_predicts(
    said: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    from understudy.models.single_file_marks import prediction_of
    from understudy.untrusted.checkpoint_file import read_file

    if "yaml" in said:
        (tmp_path / "v2.yaml").write_text(said.pop("yaml"))
    name = "v2.safetensors" if "metadata" in said else "v2.ckpt"
    file = tmp_path / name
    if "metadata" in said:
        save_file({"x": torch.ones(1)}, file, said["metadata"])
    else:
        torch.save({"state_dict": {"x": torch.ones(1)}, **said}, file)
    assert prediction_of(file, "2", *read_file(file)) == expected


class Canary:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


class Callback:
    """As Lightning left them in published checkpoints."""

    __module__, __qualname__ = "pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"

    def __reduce__(self) -> tuple[Any, ...]:
        return Callback, (), {"best": 3}


def pickled(content: object, path: Path) -> Path:
    """A checkpoint whose pickle names Callback as if it lived in Lightning."""
    torch.save(content, path)
    return path


def test_a_pickle_that_would_run_something_is_refused_and_nothing_runs(here: Path) -> None:
    for content in (Canary(), {"state_dict": {"x": torch.ones(1)}, "more": Canary()}):
        file = pickled(content, here / "evil.ckpt")
        with pytest.raises(ModelError, match="system.*not read because that can run code"):
            registry.load(str(file))
    plain = io.BytesIO()
    pickle.dump(Canary(), plain)
    (here / "old.ckpt").write_bytes(plain.getvalue())
    with pytest.raises(ModelError, match="old.ckpt"):
        registry.load(str(here / "old.ckpt"))
    assert not (here / "canary").exists()


def test_what_lightning_left_behind_is_read_as_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    from types import ModuleType

    from understudy.untrusted.checkpoint_file import Inert, read_file

    names = ["pytorch_lightning", "pytorch_lightning.callbacks", Callback.__module__]
    with monkeypatch.context() as pretended:
        for name in names:
            pretended.setitem(sys.modules, name, ModuleType(name))
        pretended.setattr(sys.modules[names[-1]], "ModelCheckpoint", Callback, raising=False)
        content = {"state_dict": {"x": torch.ones(1)}, "callbacks": {"best": Callback()}}
        file = pickled(content, tmp_path / "old.ckpt")
    found, _ = read_file(file)
    assert torch.equal(found["x"], torch.ones(1))
    assert isinstance(found["callbacks"]["best"], Inert)


def test_files_that_are_no_whole_checkpoint_say_what_they_lack(tmp_path: Path) -> None:
    whole = ldm.single_file(published("sd15"))
    cases = {
        "no model.diffusion_model.* weights": {"lora_unet_x.lora_up.weight": torch.ones(1)},
        "lacks its autoencoder": {k: v for k, v in whole.items() if "first_stage" not in k},
        "lacks its text encoder": {k: v for k, v in whole.items() if "cond_stage" not in k},
        "is incomplete: it has no .*out.2.weight": {
            k: v for k, v in whole.items() if "out.2.weight" not in k
        },
        "XL refiner": {**whole, "conditioner.embedders.0.model.x": torch.ones(1)},
    }
    shutil.copytree(published("sd15") / "tokenizer", tmp_path / "tokenizer")
    for number, (match, tensors) in enumerate(cases.items()):
        file = tmp_path / f"{number}.safetensors"
        save_file({key: value.contiguous() for key, value in tensors.items()}, file)
        with pytest.raises(ModelError, match=match):
            registry.load(str(file))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for name, data in (
        ("a.safetensors", b"\xff" * 100),
        ("b.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        ("c.ckpt", b"PK\x03\x04nonsense"),
        ("d.txt", b"hello"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match=name):
            registry.load(str(tmp_path / name))


def test_models_convert_makes_a_folder_of_ones_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from understudy import cli

    file = beside_a_tokenizer(here, "sd15", "v1.safetensors")
    assert cli.main(["models", "convert", str(file), "--json"]) == 0
    model = registry.load(str(here / "v1"))
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        found = model.predict(latents, 501, model.embed(["a cat"]))
        other = registry.load(str(file))
        assert torch.equal(found, other.predict(latents, 501, other.embed(["a cat"])))
    assert cli.main(["models", "check", str(file)]) == 0
    assert cli.main(["models", "convert", str(file)]) == 1
    assert "holds something already" in capsys.readouterr().err


def test_without_a_tokenizer_it_is_said_where_to_put_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = beside_a_tokenizer(tmp_path, "sd15", "v1.ckpt")
    shutil.rmtree(tmp_path / "tokenizer")
    with pytest.raises(ModelError, match="holds no tokenizer.*to .*/tokenizer"):
        registry.load(str(file))


UNET = "model.diffusion_model."


def nine_channels(found: dict[str, Any]) -> None:
    found[f"{UNET}input_blocks.0.0.weight"] = torch.zeros(64, 9, 3, 3)


ODD = [
    (nine_channels, "takes 9 latent channels.*inpainting"),
    (lambda t: [t.pop(k) for k in list(t) if ".middle_block." in k], "lack .*mid_block"),
    (lambda t: t.pop("first_stage_model.decoder.conv_in.weight"), "decoder.conv_in.weight"),
    (lambda t: t.update({f"{UNET}extra": torch.ones(1)}), "diffusion_model.extra"),
    (lambda t: t.update({"first_stage_model.decoder.extra.weight": torch.ones(1)}),
     "no autoencoder .*decoder.extra.weight"),
    (lambda t: t.update({"cond_stage_model.transformer.extra": torch.ones(1)}),
     "text_encoder .*extra"),
    (lambda t: t.update(ztsnr=torch.empty(0)), "rescale_betas_zero_snr"),
    (lambda t: t[f"{UNET}out.2.bias"].fill_(torch.nan), "conv_out.bias .*not finite"),
    (lambda t: t.update({k: v.to(torch.float8_e4m3fn) for k, v in t.items()}), "F8_E4M3"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "match"), few(ODD, [*ODD[:2], ODD[4], *ODD[6:]]))
def test_convert_and_check_refuse_what_loading_refuses(
    change: Any, match: str, here: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named by the user's file, with nothing left in the cache or at --out."""
    from understudy import cli

    tensors = {k: v.clone().contiguous() for k, v in ldm.single_file(published("sd15")).items()}
    shutil.copytree(published("sd15") / "tokenizer", here / "tokenizer")
    change(tensors)
    save_file(tensors, here / "odd.safetensors")
    with pytest.raises(ModelError, match=match):
        registry.load(str(here / "odd.safetensors"))
    capsys.readouterr()  # what making the model's folder said
    for command in (["convert", "odd.safetensors", "--out", "made"], ["check", "odd.safetensors"]):
        assert cli.main(["models", *command]) == 1
        said = capsys.readouterr().err
        assert "odd.safetensors" in said and "Traceback" not in said and said.count("\n") == 1
    assert not (here / "made").exists()
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_tensors_of_no_part_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Schedules and averaged weights are no news; a network that is not used is."""
    from understudy import cli

    others = {
        "betas": torch.ones(3), "alphas_cumprod": torch.ones(3), "model_ema.decay": torch.ones(1),
        "first_stage_model.loss.logvar": torch.ones(1), "v_pred": torch.empty(0),
        "control_model.a": torch.ones(1), "control_model.b": torch.ones(1),
    }  # fmt: skip
    tensors = {k: v.contiguous() for k, v in ldm.single_file(published("sd15")).items()}
    shutil.copytree(published("sd15") / "tokenizer", here / "tokenizer")
    save_file(tensors | others, here / "odd.safetensors")
    said = "odd.safetensors has tensors that its model does not use; they are ignored: "
    for _ in range(2):  # the second time it is found in the cache
        assert cli.main(["models", "convert", "odd.safetensors", "--out", "made"]) == 0
        assert f"note: {said}control_model (2)." in capsys.readouterr().err
        shutil.rmtree("made")


def test_a_text_encoder_of_the_second_generation_loses_nothing(tmp_path: Path) -> None:
    tensors = {k: v.contiguous() for k, v in ldm.single_file(published("sd21")).items()}
    shutil.copytree(published("sd21") / "tokenizer", tmp_path / "tokenizer")
    tensors["cond_stage_model.model.extra"] = torch.ones(1)
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match=r"no text encoder .*model\.extra"):
        registry.load(str(tmp_path / "odd.safetensors"))
