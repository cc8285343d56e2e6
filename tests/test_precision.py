"""Half precision is used only where the hardware computes it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from test_learn import learnt
from tiny import tiny_model
from understudy.files.tensors import load_tensors, save_tensors
from understudy.jobs.execution import tf32
from understudy.models import precision
from understudy.models.unet import stable_diffusion
from understudy.models.unet.denoiser import Denoiser
from understudy.settings import LearnSettings

CPU = torch.device("cpu")


def answering(supported: bool) -> SimpleNamespace:
    query: Callable[[], bool] = lambda: supported  # noqa: E731
    return SimpleNamespace(mkldnn=SimpleNamespace(_is_mkldnn_bf16_supported=query))


@pytest.mark.parametrize("supported, name", [(True, "bfloat16"), (False, "float32")])
def test_auto_follows_the_cpu(monkeypatch: pytest.MonkeyPatch, supported: bool, name: str) -> None:
    monkeypatch.setattr(torch, "ops", answering(supported))
    assert precision.suited_precision(CPU) == name
    dtype = torch.bfloat16 if supported else None
    assert precision.half_precision(CPU) is dtype


def test_a_gpu_learns_in_float32() -> None:
    """Measured: autocast to bfloat16 is slower, because it casts every weight."""
    assert precision.suited_precision(torch.device("cuda")) == "float32"


@pytest.mark.parametrize("device, allowed", [("cuda", True), ("cuda", False), ("cpu", True)])
def test_products_are_rounded_inside_the_block_only(device: str, allowed: bool) -> None:
    """Also after an error: PyTorch's switches are those of the whole process."""

    def switches() -> tuple[Any, Any]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = switches()
    with pytest.raises(KeyboardInterrupt), tf32(torch.device(device), allowed):
        assert switches() == ((True, True) if (device, allowed) == ("cuda", True) else before)
        raise KeyboardInterrupt
    assert switches() == before


def test_a_layout_with_channels_last_changes_no_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A U-Net on a GPU has it: equal pictures, an equal fingerprint and equal saved weights."""
    plain = tiny_model()
    monkeypatch.setattr(stable_diffusion, "Denoiser", partial(Denoiser, channels_last=True))
    model = tiny_model()
    weights = [value for value in model.unet.parameters() if value.ndim == 4 and value.shape[1] > 1]
    assert any(not value.is_contiguous() for value in weights)
    assert model.fingerprint == plain.fingerprint
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, right = (
            one.predict(x, 500, one.embed(["a cat", "a dog"])) for one in (model, plain)
        )
    assert found.is_contiguous()
    assert torch.allclose(found, right, atol=1e-5)
    save_tensors(tmp_path / "unet.safetensors", model.unet.state_dict())
    kept, _ = load_tensors(tmp_path / "unet.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in plain.unet.state_dict().items())


def test_a_cpu_limited_to_avx2_computes_in_float32() -> None:
    code = (
        "import torch; from understudy.models.precision import suited_precision as s;"
        "print(s(torch.device('cpu')))"
    )
    limited = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    ran = subprocess.run([sys.executable, "-c", code], env=limited, capture_output=True, text=True)
    assert ran.stdout.strip() == "float32", ran.stderr


def test_toybox_learns_in_what_suits_and_a_given_precision_is_kept() -> None:
    assert LearnSettings.filled({}, "toybox").precision == "auto"
    assert LearnSettings.filled({"precision": "bfloat16"}, "toybox").precision == "bfloat16"


@pytest.mark.parametrize("suited", ["float32", "bfloat16"])
def test_auto_learns_as_the_precision_it_stands_for(
    monkeypatch: pytest.MonkeyPatch, suited: str
) -> None:
    def choose(device: torch.device) -> str:
        return suited

    monkeypatch.setattr(sys.modules["understudy.learn.learn"], "suited_precision", choose)
    auto = dict(learnt(tiny_model(), precision="auto").tensors)
    named = dict(learnt(tiny_model(), precision=suited).tensors)
    assert all(torch.equal(auto[key], named[key]) for key in named)
