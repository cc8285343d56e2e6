"""project: going on, latents on disk, aligned faces, and bad input through the command."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import pictures
from understudy import cli
from understudy.errors import ExtraMissing, InputError, ModelError, OutputError, UnderstudyError
from understudy.generators.folder import load_generator, save_generator
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.pictures.photo import read_photo
from understudy.pictures.recipe import read_recipe
from understudy.project import Latent, ProjectProgress, project, project_steps
from understudy.project.align import crop_square, cut, face_square, find_face
from understudy.project.pivotal_tuning import Tuned, tuning_steps
from understudy.settings.project import ProjectSettings
from understudy.vision.distance import Perceptual, shrunk
from understudy.vision.perceptual import Lpips, RecogniserFeatures, measure

TINY = StyleGAN2Config(
    z_dim=8, w_dim=8, img_resolution=16, mapping_layers=2, channel_base=64, channel_max=8
)
QUICK = ProjectSettings(steps=4, tune_steps=4, samples=8, keep_every=2, seed=3)


class Colours:
    """Pictures compared as they are."""

    name = "colours"

    def features(self, pictures: Tensor) -> tuple[Tensor, ...]:
        return (pictures,)

    def distance(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> Tensor:
        return (ours[0] - theirs[0]).square().mean(dim=(1, 2, 3))


def tiny(seed: int = 0) -> StyleGAN2:
    """A random generator with noise that shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = StyleGAN2(TINY, "tiny", f"tiny {seed}")
        for name, tensor in model.named_parameters():
            if name.endswith("noise_strength"):
                tensor.data += 0.1
    return model.eval().requires_grad_(False)


def photo(seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(1, 3, 4, 4, generator=draw) * 2 - 1, size=16, mode="bilinear")


@pytest.fixture
def folder(here: Path) -> Path:
    model = tiny()
    return save_generator(here / "tiny", TINY, model.state_dict())


# ---------------------------------------------------------------- the verb


@pytest.mark.parametrize("space", ["w", "w+"])
def test_project_draws_the_photo_better_and_leaves_the_generator(space: str) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = dataclasses.replace(QUICK, space=space, steps=30, tune_steps=40, tune_rate=3e-3)
    steps = list(project_steps(model, photo(), Colours(), settings))
    first, last = steps[0], steps[-1]
    assert last.latent is not None and last.psnr > first.psnr + 3
    ws = last.latent.ws
    assert ws.shape == (1, model.num_ws, model.w_dim)
    assert (ws == ws[:, :1]).all() == (space == "w")
    assert [step.phase for step in steps] == ["project"] * 30 + ["tune"] * 40 + ["done"]
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())
    # What is kept draws what the last step measured, and only the synthesis network changed.
    drawn = last.latent.tuned(model).pictures(ws)
    assert last.latent.record["psnr"] == last.psnr
    assert (drawn.clamp(-1, 1) - photo()).square().mean() < 4 / 10 ** (last.psnr / 10) * 1.001
    assert all(name.startswith("synthesis.") for name in last.latent.changes)


def test_equal_calls_give_equal_latents() -> None:
    ours, again = (project(tiny(), photo(), Colours(), QUICK) for _ in range(2))
    assert torch.equal(ours.ws, again.ws)
    assert ours.tuned_fingerprint == again.tuned_fingerprint


@pytest.mark.parametrize("stop_after", [2, 3, 4, 6, 8])
def test_going_on_is_bit_identical(tmp_path: Path, stop_after: int) -> None:
    whole = project(tiny(), photo(), Colours(), QUICK)
    for count, step in enumerate(project_steps(tiny(), photo(), Colours(), QUICK), start=1):
        if step.progress is not None:
            step.progress.save(tmp_path / "note")
        if count == stop_after:
            break
    note = ProjectProgress.load(tmp_path / "note")
    rest = list(project_steps(tiny(), photo(), Colours(), QUICK, progress=note))
    assert len(rest) == 9 - 2 * (stop_after // 2)
    assert rest[-1].latent is not None
    assert torch.equal(rest[-1].latent.ws, whole.ws)
    assert rest[-1].latent.tuned_fingerprint == whole.tuned_fingerprint


def test_progress_of_something_else_is_passed_over(tmp_path: Path) -> None:
    steps = project_steps(tiny(), photo(), Colours(), QUICK)
    note = next(step.progress for step in steps if step.progress)
    for model, picture, how in (
        (tiny(1), photo(), QUICK),
        (tiny(), photo(2), QUICK),
        (tiny(), photo(), dataclasses.replace(QUICK, seed=4)),
    ):
        assert len(list(project_steps(model, picture, Colours(), how, progress=note))) == 9
    assert note is not None
    damaged = dataclasses.replace(note, tensors={"ws": note.tensors["ws"]})
    with pytest.raises(InputError, match="damaged"):
        list(project_steps(tiny(), photo(), Colours(), QUICK, progress=damaged))
    (tmp_path / "note").write_bytes(b"nonsense")
    assert ProjectProgress.load(tmp_path / "note") is None


def test_locality_and_early_stop() -> None:
    near = dataclasses.replace(QUICK, locality=0.1)
    plain = project(tiny(), photo(), Colours(), QUICK)
    held = project(tiny(), photo(), Colours(), near)
    assert plain.tuned_fingerprint != held.tuned_fingerprint
    stopped = list(project_steps(tiny(), photo(), Colours(), dataclasses.replace(QUICK, stop_at=9)))
    assert stopped[-1].latent is not None and not stopped[-1].latent.changes
    assert [step.phase for step in stopped].count("tune") == 1


def test_numbers_that_run_away_are_told() -> None:
    wild = dataclasses.replace(QUICK, tune_rate=1.0, tune_steps=200)
    model = tiny()
    model.synthesis.b16.torgb.weight.data.fill_(float("inf"))  # type: ignore[union-attr]
    with pytest.raises(UnderstudyError, match="lower learning rate"):
        project(model, photo(), Colours(), wild)


@pytest.mark.parametrize(
    "picture", [torch.zeros(1, 3, 8, 8), torch.full((1, 3, 16, 16), torch.nan)]
)
def test_pictures_that_do_not_fit(picture: Tensor) -> None:
    with pytest.raises(InputError, match=r"16 x 16|not finite"):
        project(tiny(), picture, Colours(), QUICK)


# ---------------------------------------------------------------- latents on disk


def test_latent_round_trip(tmp_path: Path) -> None:
    latent = project(tiny(), photo(), Colours(), QUICK)
    again = Latent.load(latent.save(tmp_path / "a.latent.safetensors"))
    assert torch.equal(again.ws, latent.ws) and again.record == latent.record
    assert again.tuned_fingerprint == latent.tuned_fingerprint
    ours, theirs = (one.tuned(tiny()).pictures(one.ws) for one in (latent, again))
    assert torch.equal(ours, theirs)
    with pytest.raises(ModelError, match="belongs to the generator 'tiny'"):
        again.tuned(tiny(1))


def test_latents_that_are_none(tmp_path: Path) -> None:
    latent = project(tiny(), photo(), Colours(), dataclasses.replace(QUICK, tune_steps=0))
    assert latent.tuned(model := tiny()) is model
    file = latent.save(tmp_path / "a.safetensors")
    tensors = load_file(file)
    told = {"generator": "tiny", "fingerprint": "tiny 0", "picture": "x", "record": {}}
    header = {"format": "understudy latent 1", "latent": json.dumps(told)}
    bad: dict[str, tuple[dict[str, Tensor], dict[str, str]]] = {
        "not a valid latent": (tensors, {"format": "other"}),
        "has the shape": ({"ws": torch.zeros(2, 3)}, header),
        "not finite": ({"ws": tensors["ws"] * torch.nan}, header),
        "must be an object": (tensors, {"format": header["format"], "latent": "[]"}),
        "generator must be text": (
            tensors,
            {**header, "latent": json.dumps({**told, "generator": 5})},
        ),
    }
    for reason, (values, text) in bad.items():
        save_file(values, file, text)
        with pytest.raises(InputError, match=reason):
            Latent.load(file)
    file.write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        Latent.load(file)
    with pytest.raises(ModelError, match="does not fit"):
        dataclasses.replace(latent, changes={"os.system": torch.zeros(1)}).tuned(tiny())


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latent = project(tiny(), photo(), Colours(), QUICK)

    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("understudy.files.tensors.save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        latent.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- faces


def test_an_upright_face_gives_an_upright_square() -> None:
    square = face_square((40, 50), (60, 50), (42, 80), (58, 80))
    # Half a side is 1.8 times from eyes to mouth; the centre a tenth of that below the eyes.
    assert square.centre == pytest.approx((50, 53))
    assert square.right == pytest.approx((54, 0)) and square.down == pytest.approx((0, 54))


def test_a_turned_face_gives_the_same_cut(tmp_path: Path) -> None:
    """Turn photo and points by 90 degrees: the cut is that of the upright photo."""
    upright = torch.from_numpy(pictures.gradient(120, 120)).permute(2, 0, 1)[None] / 127.5 - 1
    points = ((50, 50), (70, 52), (52, 74), (68, 76))
    turned = torch.rot90(upright, 1, (2, 3))  # counter-clockwise: (x, y) -> (y, 120 - x)
    there = [(y, 120 - x) for x, y in points]
    ours = cut(upright.float(), face_square(*points), (32, 32))
    theirs = cut(turned.float(), face_square(*there), (32, 32))
    assert (ours - theirs).abs().max() < 1e-3


def test_crop_is_the_part_itself() -> None:
    draw = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    part = cut(draw, crop_square((10, 20, 42, 52), (64, 96)), (32, 32))
    assert torch.allclose(part, draw[:, :, 20:52, 10:42], atol=1e-5)
    half = cut(draw, crop_square((0, 0, 64, 64), (64, 96)), (32, 32))
    assert torch.allclose(half, F.avg_pool2d(draw[:, :, :, :64], 2), atol=1e-5)


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (-1, 0, 30, 30), (0, 0, 97, 30), (30, 30, 0, 0)])
def test_crops_that_are_none(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="A crop is"):
        crop_square(box, (64, 96))


def test_points_that_make_no_face() -> None:
    for points in (((5, 5),) * 4, ((5, 5), (6, 5), (5, 6), (6, 6)), ((np.nan, 0),) * 4):
        with pytest.raises(InputError, match="do not make a face"):
            face_square(*points)


def test_landmark_model_is_an_extra(tmp_path: Path) -> None:
    with pytest.raises(ExtraMissing, match="understudy\\[faces\\]"):
        find_face(np.zeros((64, 64, 3), np.uint8), tmp_path / "model.dat")


# ---------------------------------------------------------------- what judges likeness


def test_recogniser_features_judge() -> None:
    judge = measure("recogniser")
    assert isinstance(judge, RecogniserFeatures) and isinstance(judge, Perceptual)
    ours, theirs = photo(1), photo(2).requires_grad_()
    a, b = judge.features(ours), judge.features(theirs)
    assert judge.distance(a, a).item() == 0
    apart = judge.distance(b, a)
    apart.sum().backward()
    assert apart.item() > 0 and theirs.grad is not None and bool(theirs.grad.any())


def test_other_measures_are_refused() -> None:
    with pytest.raises(ExtraMissing, match="understudy\\[metrics\\]"):
        Lpips()
    with pytest.raises(InputError, match="recogniser, lpips"):
        measure("taste")


def test_large_pictures_are_looked_at_from_afar() -> None:
    assert shrunk(torch.zeros(1, 3, 512, 256)).shape == (1, 3, 256, 128)
    assert shrunk(torch.ones(1, 3, 64, 64)).shape == (1, 3, 64, 64)


# ---------------------------------------------------------------- the command

HOW = ("--steps", "2", "--tune-steps", "2", "--samples", "8", "--device", "cpu")


def test_project_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pictures.save(Path("face.png"), pictures.gradient(40, 60))
    words = ("project", str(file), "--generator", "tiny", "--crop", "4,4,36,36", *HOW)
    assert cli.main([*words, "--picture", "drawn.png", "--json"]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    latent = Latent.load(told["latent"])
    assert told["latent"] == "face.latent.safetensors" and told["tuned"]
    assert latent.record["measure"] == "recogniser" and latent.record["steps"] == 2
    assert read_photo("drawn.png").size == (16, 16)
    assert read_recipe("drawn.png").model_fingerprint == latent.tuned_fingerprint
    assert not list(Path().glob(".face*"))
    model = load_generator("tiny", device="cpu")
    assert latent.tuned(model).pictures(latent.ws).shape == (1, 3, 16, 16)


def test_progress_is_kept_when_the_result_cannot_be_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OutputError("the disk is full")

    file = pictures.save(Path("face.png"), pictures.gradient(40, 60))
    monkeypatch.setattr(Latent, "save", full)
    assert cli.main(["project", str(file), "--generator", "tiny", *HOW]) == 1
    assert [path.name for path in Path().glob(".face*")] == [".face.latent.safetensors.progress"]


def test_project_goes_on_after_ctrl_c(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pictures.save(Path("face.png"), pictures.gradient(40, 60))
    words = ["project", str(file), "--generator", "tiny", *HOW]
    assert cli.main([*words, "--out", "whole.safetensors"]) == 0

    def interrupted(*arguments: Any, **how: Any) -> Iterator[Tuned]:
        yield next(tuning_steps(*arguments, **how))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["understudy.project.project"], "tuning_steps", interrupted)
        assert cli.main([*words, "--keep-every", "1"]) == 130
    assert [path.name for path in Path().glob(".face*")] == [".face.latent.safetensors.progress"]
    capsys.readouterr()
    assert cli.main(words) == 0
    assert "Projecting" not in capsys.readouterr().err  # only what was missing
    whole, again = Latent.load("whole.safetensors"), Latent.load("face.latent.safetensors")
    assert whole.tuned_fingerprint == again.tuned_fingerprint and torch.equal(whole.ws, again.ws)
    assert not list(Path().glob(".face*"))


BAD: dict[str, tuple[int, tuple[str, ...], str]] = {
    "no photo": (2, ("nowhere.png",), "nowhere.png"),
    "no picture": (2, ("tiny/generator.json",), "generator.json"),
    "no generator": (1, ("face.png", "--generator", "face.png"), "face.png"),
    "a diffusers folder": (1, ("face.png", "--generator", "."), "generator.json"),
    "no numbers": (2, ("face.png", "--crop", "a,b,c,d"), "--crop"),
    "too few numbers": (2, ("face.png", "--eyes", "1,2"), "--eyes"),
    "no mouth": (2, ("face.png", "--eyes", "1,2;3,4"), "--mouth"),
    "crop and eyes": (
        2,
        ("face.png", "--crop", "0,0,9,9", "--eyes", "1,2;3,4"),
        "cannot be combined",
    ),
    "crop outside": (2, ("face.png", "--crop", "0,0,900,900"), "crop"),
    "no landmarks": (2, ("face.png", "--landmarks", "x.dat"), "x.dat"),
    "no extra": (1, ("face.png", "--landmarks", "face.png"), "understudy[faces]"),
    "another measure": (2, ("face.png", "--measure", "taste"), "--measure"),
    "out of another kind": (2, ("face.png", "--out", "a.pt"), ".safetensors"),
    "picture of another kind": (2, ("face.png", "--picture", "a.bmp"), ".png"),
    "no steps": (2, ("face.png", "--steps", "0"), "--steps"),
    "no such space": (2, ("face.png", "--space", "z"), "--space"),
    "nowhere to write": (1, ("face.png", "--out", "face.png/a.safetensors"), "face.png"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    pictures.save(Path("face.png"), pictures.gradient(40, 60))
    before = sorted(Path().rglob("*"))
    code, words, naming = BAD[case]
    generator = () if "--generator" in words else ("--generator", "tiny")
    assert cli.main(["project", *words, *generator, "--device", "cpu"]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and naming in error and "bug" not in error, error
    assert sorted(Path().rglob("*")) == before
