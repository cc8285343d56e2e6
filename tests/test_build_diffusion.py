"""training/build_toybox_diffusion.py in miniature: trains, goes on after a kill, loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from training import autoencoder_training as ae
from training import build_toybox_data as data
from training import build_toybox_diffusion as build
from training import learner as learning
from training import unet_training as unet
from training.diffusion_networks import CHANNELS, new_autoencoder, new_scheduler, new_text_encoder
from training.diffusion_networks import new_unet as shipped_unet
from training.toybox_text import TOKENS, new_tokenizer
from understudy.files.builtin import builtin_folder
from understudy.models.registry import load

SMALL = {"block_out_channels": (16, 16, 16), "attention_head_dim": (1, 1, 1), "norm_num_groups": 4}
PICTURES = 6


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(file, "pt") as found:
        return {name: tuple(found.get_slice(name).get_shape()) for name in found.keys()}


def test_networks_are_those_of_the_shipped_model() -> None:
    """The same configurations, and the same tensors in the files."""
    folder = builtin_folder("toybox")
    assert folder is not None
    with torch.device("meta"):
        parts: dict[str, Any] = {"unet": shipped_unet(), "vae": new_autoencoder(),
                                 "text_encoder": new_text_encoder(new_tokenizer())}  # fmt: skip
    for name, part in parts.items():
        file = next((folder / name).glob("*.safetensors"))
        found = {key: tuple(value.shape) for key, value in part.state_dict().items()}
        prefix = "text_model." if name == "text_encoder" else ""
        wanted = {key.removeprefix(prefix): shape for key, shape in shapes_of(file).items()}
        assert {key.removeprefix(prefix): shape for key, shape in found.items()} == wanted
        config = json.loads((folder / name / "config.json").read_text())
        own = json.loads(part.config.to_json_string() if name == "text_encoder"
                         else part.to_json_string())  # fmt: skip
        trained = {"dtype", "transformers_version", "_diffusers_version", "architectures",
                   "scaling_factor", "_name_or_path"}  # fmt: skip
        differing = {key for key in config if config[key] != own.get(key)} - trained
        assert not differing, (name, differing)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert json.loads(new_scheduler().to_json_string()) == scheduler


def examples() -> unet.Examples:
    draws = torch.Generator().manual_seed(0)
    colours = torch.linspace(2, -2, CHANNELS)[:, None, None]
    latents = colours + 0.3 * torch.randn(2, 4, CHANNELS, 16, 16, generator=draws)
    masks = (torch.rand(4, 1, 16, 16, generator=draws) < 0.3).half()
    ids = torch.randint(256, 700, (4, 8, TOKENS), generator=draws, dtype=torch.int16)
    return unet.Examples(latents, masks, ids, torch.full((TOKENS,), 798))


def losses(learner: learning.Learner, batch: int, part: int) -> list[Tensor]:
    """Of the parts of one fixed batch."""
    shown, alphas = examples(), new_scheduler().alphas_cumprod
    whole = unet.draw(shown, batch, 1.0, len(alphas), torch.Generator().manual_seed(5))
    weights = unet.weights_of(shown)
    return [unet.velocity_loss(learner.model, some, alphas, weights) * len(some.clean) / batch
            for some in whole.split(part)]  # fmt: skip


def test_the_unet_learns_whatever_the_parts_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet, "WARM", 1)
    # Processors with bfloat16 would train in it, and its rounding depends on the parts.
    monkeypatch.setattr(unet, "half_precision", lambda device: None)
    learner = unet.new_unet_learner(1.0, "cpu", SMALL)
    torch.nn.init.normal_(learner.model["unet"].conv_out.weight, std=0.02)
    gradients: list[Tensor] = []
    for part in (8, 3):
        learner.optimizer.zero_grad()
        sum(losses(learner, 8, part), torch.zeros(())).backward()
        gradients.append(learner.model["unet"].conv_in.weight.grad.clone())
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-7) and gradients[0].abs().max() > 1e-4
    with torch.no_grad():
        before = float(sum(losses(learner, 8, 8)))
    shares = learning.by_steps(learner, 12)
    unet.train_unet(learner, examples(), shares, tmp_path / "unet.pt", batch=4, part=4)
    with torch.no_grad():
        assert float(sum(losses(learner, 8, 8))) < 0.95 * before


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for start in (0, 4):
        data.render_chunk((folder, start, 4))
    return folder


def test_rendered_files_hold_pictures_masks_points_and_captions(rendered: Path) -> None:
    found = np.load(data.chunk_file(rendered, 4))
    assert found["pictures"].shape == (4, 128, 128, 3) and found["masks"].max() == 255
    assert found["captions"].shape == (4, 8)
    scene = json.loads(str(found["scenes"][0]))["scene"]
    noun = scene["subjects"][0]["identity"]["class_name"]
    assert noun in str(found["captions"][0, 0])


class Killed(BaseException):
    pass


@pytest.fixture
def made(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the whole command in miniature into a folder of that name, killed at given steps."""
    monkeypatch.setattr(build, "UNET", SMALL)
    monkeypatch.setattr(learning, "SAVE_EVERY", 0.0)  # a checkpoint each step
    take = learning.Learner.take

    def run(name: str, kill_at: tuple[str, int] | None = None, steps: int = 3) -> Path:
        def killing(learner: learning.Learner, *given: Any) -> Tensor:
            kind = "unet" if isinstance(learner.model, torch.nn.ModuleDict) else "autoencoder"
            if kill_at == (kind, learner.step):
                raise Killed
            return take(learner, *given)

        monkeypatch.setattr(learning.Learner, "take", killing)
        return build.run(build.parsed([
            "--out", str(tmp_path / name), "--data", str(rendered), "--steps", str(steps),
            "--pictures", str(PICTURES), "--batch", "4", "--autoencoder-batch", "4",
            "--at-once", "2", "--device", "cpu", "--held-out", "2", "--class-images", "1",
        ]))  # fmt: skip

    return run


@pytest.mark.slow
def test_a_killed_run_ends_with_equal_weights_and_they_load(made: Any) -> None:
    whole = made("whole")
    for kill_at in (("autoencoder", 2), ("unet", 0), ("unet", 2)):
        with pytest.raises(Killed):
            made("killed", kill_at)
    resumed = made("killed")
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 4
    assert all((whole / path).read_bytes() == (resumed / path).read_bytes() for path in weights)
    folder = builtin_folder("toybox")
    assert folder is not None
    assert files == sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    card = (whole / "README.md").read_text()
    assert "on 6 renders" in card and "3 steps of 4 samples" in card
    model = load(str(whole), device="cpu")
    assert model.latent_channels == CHANNELS and model.picture_size == (128, 128)
    with torch.no_grad():
        picture = model.decode(torch.zeros(1, CHANNELS, 16, 16))
    assert picture.shape == (1, 3, 128, 128) and bool(picture.isfinite().all())


@pytest.mark.slow
def test_the_autoencoder_learns(rendered: Path, tmp_path: Path) -> None:
    """Encoder and decoder, from the linear start; the constant variance stays.

    With the recipe's own warm-up. Adam's first steps move every weight by the learning rate,
    whatever its gradient: one step at the full 1e-3 takes the linear start from 27.4 to 10.5 dB.
    """
    pictures = np.load(data.chunk_file(rendered, 0))["pictures"]
    shown = ae.Pictures(
        torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.full((4, 1, 16, 16), 0.2)
    )
    learner = ae.new_autoencoder_learner(shown.pictures, "cpu")
    started = {name: value.clone() for name, value in learner.model.state_dict().items()}
    flat, masks = shown.pictures.float() / 127.5 - 1, torch.ones(4, 1, 128, 128)
    before = ae.quality(learner.model, flat, masks)
    shares = learning.by_steps(learner, 20)
    ae.train_autoencoder(learner, shown, shares, tmp_path / "ae.pt", batch=4, part=4)
    averaged = ae.averaged_autoencoder(learner.ema)  # what is packed
    assert ae.quality(averaged, flat, masks)["psnr"] > before["psnr"] + 0.5
    moved = {name.split(".")[0] for name, value in learner.model.state_dict().items()
             if not torch.equal(value, started[name])}  # fmt: skip
    assert moved == {"encoder", "decoder", "post_quant_conv"}


def test_time_is_counted_over_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(learning.time, "monotonic", lambda: float(next(clock)))
    learner = learning.Learner(torch.nn.Linear(1, 1), None, spent=25.0)
    assert list(learning.by_time(learner, 50.0)) == [0.5, 0.7, 0.9]
    assert learner.spent == 55.0


GPU = """
import sys
from pathlib import Path
from training import build_toybox_data as data, render_cuda
if __name__ == "__main__":  # the pool's workers import this file
    data.SIZE, render_cuda.check = 16, lambda scenes, size: 0.0
    print(list(data.render_all(Path(sys.argv[1]), 1, 1, wanted="cuda", chunk=1)))
"""


@pytest.mark.slow
def test_the_gpu_renders_what_the_cpu_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In numba's CUDA simulator, which runs the kernel as Python: the files are equal."""
    told = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # fmt: skip
    script, gpu, cpu = tmp_path / "render.py", tmp_path / "gpu", tmp_path / "cpu"
    script.write_text(GPU)
    subprocess.run([sys.executable, script, gpu], env={**os.environ, **told}, check=True)
    monkeypatch.setattr(data, "SIZE", 16)
    cpu.mkdir()
    data.render_chunk((cpu, 0, 1))
    expected = np.load(data.chunk_file(cpu, 0))
    found = np.load(data.chunk_file(gpu, 0))
    assert found.files == expected.files
    for name in expected.files:
        assert np.array_equal(found[name], expected[name], equal_nan=name == "points"), name
