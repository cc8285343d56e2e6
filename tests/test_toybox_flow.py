"""The built-in flow model: its files in the package, and its whole folder in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from typer.testing import CliRunner

from test_build_flow import folder_bytes, stock_agrees
from understudy.cli.app import app
from understudy.errors import ModelError, OutputError
from understudy.files.atomic import cache_folder
from understudy.files.builtin import builtin_folder
from understudy.files.cache import entries
from understudy.files.reading import sha256
from understudy.jobs.plan import lines_of, needs
from understudy.learn.shipped import shipped_latents
from understudy.models import registry
from understudy.models.check import check_any
from understudy.models.shared_parts import (
    FILE,
    SHARED,
    TEXT_ENCODER,
    VAE,
    has_shared_parts,
    whole_folder,
)
from understudy.models.transformer.model import FlowTransformer
from understudy.settings import RunSettings
from understudy.settings.suits import shows_toys, suits

ROOT = Path(__file__).parent.parent
NAME = "toybox-flow"
# Of the weights as they were trained: SHA-256, and a velocity. New when the model is trained anew.
TRAINED = {
    "text_encoder/model.safetensors": "adfe9c6cc6449868",
    "text_encoder_2/model.safetensors": "34802d482dab42aa",
    "text_encoder_3/model.safetensors": "cffc1198b1d35f40",
    "transformer/diffusion_pytorch_model.safetensors": "9383cd0a64a16be0",
    "vae/diffusion_pytorch_model.safetensors": "d7964eff3da03fb0",
}
VELOCITY = (0.7341, (-0.5059, 0.4669, 1.2348, 0.7267))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole folder, in a cache of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNDERSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        return registry.find(NAME)


def test_the_whole_folder_is_the_trained_one(whole: Path) -> None:
    weights = sorted(whole.glob("*/*.safetensors"))
    found = {one.relative_to(whole).as_posix(): sha256(one)[:16] for one in weights}
    assert found == TRAINED
    assert not has_shared_parts(whole)
    assert check_any(whole, NAME) == {
        "kind": "Stable Diffusion 3", "licence": "Apache-2.0", "train_on": ""
    }  # fmt: skip


def test_it_predicts_what_it_did_when_it_was_trained(whole: Path) -> None:
    model = registry.load(str(whole), device="cpu")
    noise = torch.randn(1, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.predict(
            noise, 0.7, model.embed(["a photo of a pink cat standing on a meadow"])
        )
    size, row = VELOCITY
    assert float(found.square().mean()) == pytest.approx(size, rel=1e-3)
    assert found[0, 0, 8, 4:8].tolist() == pytest.approx(row, abs=2e-3)


def test_diffusers_draws_the_same(whole: Path) -> None:
    model = registry.load(str(whole), device="cpu")
    assert isinstance(model, FlowTransformer)
    assert stock_agrees(model, whole)
    pipeline = StableDiffusion3Pipeline.from_pretrained(whole, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    told = {"num_inference_steps": 1, "output_type": "pt", "height": 128, "width": 128}
    drawn = pipeline("a photo of a cat", **told).images  # 256 rows of T5, its default
    assert drawn.shape == (1, 3, 128, 128) and bool(drawn.isfinite().all())


def test_it_loads_by_name_and_suits_its_name_and_its_folder(whole: Path) -> None:
    model = registry.load(NAME, device="cpu")
    assert (model.name, model.picture_size) == (NAME, (128, 128))
    assert NAME in registry.available()
    assert registry.here(NAME) == registry.find(NAME)
    assert [one.path for one in entries(cache_folder())] == [registry.find(NAME)]
    assert suits(NAME) == suits(str(whole)) and shows_toys(NAME)
    assert suits(NAME)["generate"]["steps"] == 25


def test_class_images_are_those_of_toybox_in_its_own_scale() -> None:
    model, size = registry.load(NAME, device="cpu"), (24, 16, 16)
    found, other = shipped_latents(NAME, "cat", size), shipped_latents("toybox", "cat", size)
    assert found is not None and other is not None
    with torch.no_grad():
        encoded = model.encode(model.decode(found[:2]))
    assert float((encoded - found[:2]).std() / found.std()) < 0.2
    ratio = float((found * other).sum() / other.square().sum())
    assert float((found - ratio * other).abs().max()) < 0.01
    by_path = shipped_latents(str(registry.find(NAME)), "cat", size)
    assert by_path is not None and torch.equal(found, by_path)


def test_the_plan_counts_it_in_its_own_units() -> None:
    line = "\n".join(lines_of(needs(RunSettings(model=NAME), {"steps": 25, "guidance": 3.0})))
    for part in ("Apache-2.0", "transformer 10.7 M", "50 for one pass", "GMAC each"):
        assert part in line


def test_a_word_is_learnt_and_swept_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sweep` must not invert a flow model by null texts, as it does others."""
    monkeypatch.chdir(tmp_path)
    for line in (
        "toybox render --seed 12 --out photo.png",
        "toybox subject --seed 49 --photos 1 --out rex",
        f"learn rex --class dog --name rex --method textual-inversion --steps 1 --model {NAME}",
        "sweep photo.png --prompt cat --swap cat=rex --steps 2 --vary self-output=0,1 "
        f"--out sheet.png --photos rex --model {NAME}",
    ):
        said = CliRunner().invoke(app, line.split())
        assert said.exit_code == 0, said.output
    assert Path("sheet.png").is_file()


def _delete(folder: Path) -> None:
    shutil.rmtree(folder)


def _shorten(folder: Path) -> None:
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _flip(folder: Path) -> None:
    file = folder / TEXT_ENCODER
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def _garble(folder: Path) -> None:
    (folder / TEXT_ENCODER).write_bytes(b"no tensors")


def _drop(folder: Path) -> None:
    (folder / VAE).unlink()


def _replace(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file in its place")


@pytest.mark.parametrize("damage", [_delete, _shorten, _flip, _garble, _drop, _replace])
def test_a_folder_that_was_changed_is_made_again(damage: Callable[[Path], None]) -> None:
    folder = registry.find(NAME)
    before = folder_bytes(folder)
    damage(folder)
    assert registry.find(NAME) == folder
    assert folder_bytes(folder) == before
    assert not [*folder.parent.glob(".*.partial")]


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="toybox-flow .*Cannot write .*UNDERSTUDY_CACHE=FOLDER"):
        registry.find(NAME)


def test_another_toybox_diffusion_is_refused(tmp_path: Path) -> None:
    own, other = builtin_folder(NAME), builtin_folder("toybox")
    assert own is not None and other is not None
    for path in SHARED:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(other / path, tmp_path / path)
    with (tmp_path / VAE).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match="trained with another version of .*vae"):
        whole_folder(NAME, own, tmp_path)


@pytest.mark.slow
def test_the_wheel_holds_it_and_stays_small(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= 85_000_000  # scripts/release has the same limit
    own = builtin_folder(NAME)
    assert own is not None
    inside = {file.relative_to(own).as_posix() for file in own.rglob("*") if file.is_file()}
    place = "understudy/weights/toybox-flow/"
    with zipfile.ZipFile(wheel) as archive:
        held = {one.removeprefix(place) for one in archive.namelist() if one.startswith(place)}
    assert held == inside


def test_the_package_holds_what_toybox_does_not() -> None:
    own = builtin_folder(NAME)
    assert own is not None
    names = {file.relative_to(own).as_posix() for file in own.rglob("*") if file.is_file()}
    assert {FILE, "README.md", "understudy.json", "model_index.json", "vae/config.json"} <= names
    assert not names & {*SHARED}
    assert "Apache-2.0" in (own / "README.md").read_text()
