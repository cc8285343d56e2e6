"""StyleGAN2: recorded networks, windows and held layers against the whole, folders and refusals."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from golden_drag import DragCase, drag_cases
from understudy.errors import ModelError
from understudy.generators.folder import load_generator, save_generator
from understudy.generators.interface import ImageGenerator
from understudy.generators.stylegan2.config import StyleGAN2Config
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.generators.windows import Windows

SMALL = StyleGAN2Config(
    z_dim=16, w_dim=16, img_resolution=64, mapping_layers=2, channel_base=512, channel_max=16
)


def small(seed: int = 0, **changes: object) -> StyleGAN2:
    """A random network with noise that shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = StyleGAN2(replace(SMALL, **changes), "small", "small")  # type: ignore[arg-type]
        for name, tensor in model.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                tensor.data += 0.2 * torch.randn_like(tensor)
    return model.eval().requires_grad_(False)


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert (found - wanted).abs().max().item() <= tolerance


@drag_cases("a_generator")
def test_golden_generator(case: DragCase) -> None:
    model, gold = case.network(), case.arrays()
    for name, found in matching(gold, r"ws_psi([\d.]+?)(?:_cutoff(\d+))?(_zerolabel)?"):
        labels = None if found[3] else gold.get("label")
        cutoff = int(found[2]) if found[2] else None
        ws = model.latents(gold["z"], labels, truncation=float(found[1]), cutoff=cutoff)
        close(ws, gold[name], 2e-5)
    drawn = case.get("z_seed")
    if drawn is not None and len(gold["z"]) == 1:
        assert torch.equal(model.draw_z(drawn), gold["z"])
    for _, found in matching(gold, r"(image_noise_(none|const)_psi([\d.]+?))(?:\.stride\d+)?"):
        ws = gold[f"ws_psi{found[3]}"]
        strided(gold, found[1], model.pictures(ws, noise=found[2]), 2e-5)
    net, ws = model.synthesis, gold["ws_psi0.7"][:1]
    final = model.pictures(ws)
    middle = model.feature_resolutions[len(model.feature_resolutions) // 2]
    for resolution in model.feature_resolutions:
        partway = net.begin(ws, resolution, net.plain(ws, "const"))
        if matching(gold, rf"feat\.b{resolution}(\.stride\d+)?"):
            strided(gold, f"feat.b{resolution}", partway.features, 5e-5)
        if f"feat_stats.b{resolution}" in gold:
            wanted = gold[f"feat_stats.b{resolution}"]
            torch.testing.assert_close(summary(partway.features), wanted, rtol=2e-6, atol=5e-2)
        if partway.rgb is not None and matching(gold, rf"img\.b{resolution}(\.stride\d+)?"):
            strided(gold, f"img.b{resolution}", partway.rgb, 2e-5)
        if resolution == middle:
            going_on = net.go_on(ws, partway, net.plain(ws, "const")).rgb
            assert going_on is not None and torch.equal(going_on, final)
    for name, _ in matching(gold, r"img_uint8\.b\d+"):
        levels = (final[0] * 127.5 + 128).clamp(0, 255).to(torch.uint8)
        apart = (levels.permute(1, 2, 0).int() - gold[name].int()).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 1e-3


def matching(gold: dict[str, Tensor], pattern: str) -> list[tuple[str, re.Match[str]]]:
    """The recorded arrays whose name matches wholly."""
    found = ((name, re.fullmatch(pattern, name)) for name in gold)
    return [(name, match) for name, match in found if match]


def summary(features: Tensor) -> Tensor:
    """Sum, sum of squares, minimum, maximum."""
    f = features.double()
    return torch.stack([f.sum(), f.square().sum(), f.min(), f.max()])


@drag_cases("b_rosinality")
def test_golden_rosinality(case: DragCase) -> None:
    model, gold = case.network(case.settings["same_weights_as"]), case.arrays()
    for name, found in matching(gold, r"image_psi([\d.]+?)(_zero_noise)?"):
        ws = model.latents(gold["z"], truncation=float(found[1]))
        if f"latents_psi{found[1]}" in gold:
            close(ws, gold[f"latents_psi{found[1]}"], 2e-5)
        drawn = model.pictures(ws, noise="none" if found[2] else "const")
        close(drawn, gold[name], 2e-5)
    assert matching(gold, r"image_psi.*")


def strided(gold: dict[str, Tensor], name: str, found: Tensor, tolerance: float) -> None:
    """Compare with a recorded array, which may hold every s-th row and column alone."""
    (key,) = [k for k in gold if k == name or k.startswith(f"{name}.stride")]
    stride = int(key.partition(".stride")[2] or 1)
    close(found[: len(gold[key]), :, ::stride, ::stride], gold[key], tolerance)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("changes", [{}, {"use_noise": False, "conv_clamp": 0.5}])
def test_held_is_the_whole(architecture: str, changes: dict[str, object]) -> None:
    model = small(architecture=architecture, **changes)
    assert isinstance(model, ImageGenerator)
    ws = model.latents(model.draw_z(3))
    held = model.held(ws, 6)
    net = model.synthesis
    for resolution in model.feature_resolutions:
        whole = net.begin(ws, resolution, net.plain(ws, "const")).features
        close(held.features(ws[:, :6], resolution), whole, 1e-5)
    other = ws[:, :6] + 0.1
    for moving_ws in (ws[:, :6], other):  # after a walk to 64, without one, and after one to 16
        close(held.picture(moving_ws), model.pictures(held.ws(moving_ws)), 1e-5)
        held.features(other, 16)
        close(held.picture(other), model.pictures(held.ws(other)), 1e-5)


@pytest.mark.parametrize("changes", [{}, {"start": (4, 2)}, {"architecture": "resnet"}])
@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_windows_are_cut_out_of_the_whole(changes: dict[str, object], resolution: int) -> None:
    model = small(**changes)
    ws = model.latents(model.draw_z(1))
    held, moving_ws = model.held(ws, 6), ws[:, :6].clone().requires_grad_()
    height, width = model.feature_size(resolution)
    places = [(0, 0), (-2, 3), (height - 5, width - 3), (3, 2), (height // 2, width // 2 - 1)]
    for count in (1, 2, 5):
        windows = Windows(tuple(places[-count:]), (5, 4))
        found = held.features(moving_ws, resolution, windows)
        wide = torch.nn.functional.pad(held.features(moving_ws, resolution), (9, 9, 9, 9))
        pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
        cut = torch.cat([wide[:, :, 9 + y : 14 + y, 9 + x : 13 + x] for y, x in places[-count:]])
        close(found.detach(), cut.detach(), 2e-6)
        slopes = [torch.autograd.grad((one * pull).sum(), moving_ws)[0] for one in (found, cut)]
        close(slopes[0], slopes[1], 1e-5 * float(slopes[1].abs().max()))


def test_a_window_costs_what_it_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[int] = []
    real = torch.nn.functional.conv2d

    def counting(x: Tensor, weight: Tensor, *rest: object, **named: object) -> Tensor:
        cells.append(x.shape[0] * x[0, 0].numel() if weight.shape[2:] == (3, 3) else 0)
        return real(x, weight, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "conv2d", counting)
    model = small(img_resolution=256, channel_base=4096)
    held = model.held(model.latents(model.draw_z(0)), 6)
    held.features(torch.zeros(1, 6, 16), 128)
    whole = sum(cells)
    cells.clear()
    held.features(torch.zeros(1, 6, 16), 128, Windows(((60, 60),), (11, 11)))
    assert sum(cells) < whole / 20


def test_batches_and_random_noise_change_nothing() -> None:
    model = small()
    ws = model.latents(torch.cat([model.draw_z(1), model.draw_z(2)]))
    both = model.pictures(ws)
    close(both[1:], model.pictures(ws[1:]), 1e-5)
    drawn = [
        model.pictures(ws, noise="random", randomness=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_half_precision_is_near(dtype: torch.dtype, tolerance: float) -> None:
    model = small()
    ws = model.latents(model.draw_z(1))
    whole = model.pictures(ws)
    model.compute_in(dtype)
    assert model.dtype == dtype and model.pictures(ws).dtype == torch.float32
    assert (model.pictures(ws) - whole).std() < tolerance * whole.std()
    held = model.held(ws, 6)
    assert (held.picture(ws[:, :6]) - whole).std() < tolerance * whole.std()
    assert held.features(ws[:, :6], 32).dtype == torch.float32


def test_double_precision_agrees() -> None:
    single, double = small(), small().compute_in(torch.float64)
    ws = single.latents(single.draw_z(1))
    assert double.pictures(ws).dtype == torch.float64
    close(double.pictures(ws).float(), single.pictures(ws), 1e-5)


def test_rectangles() -> None:
    model = small(start=(4, 2))
    assert model.picture_size == (64, 32)
    assert model.pictures(model.latents(model.draw_z(0))).shape == (1, 3, 64, 32)
    assert small(start=(3, 5)).picture_size == (48, 80)


def test_folders_keep_a_generator(tmp_path: Path) -> None:
    model = small()
    folder = save_generator(tmp_path / "one", model.config, model.state_dict(), {"from": "a test"})
    loaded = load_generator(folder, device="cpu")
    ws = model.latents(model.draw_z(0))
    assert torch.equal(loaded.pictures(ws), model.pictures(ws))
    assert not any(p.requires_grad for p in loaded.parameters())
    halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
    other = load_generator(save_generator(tmp_path / "two", model.config, halves), device="cpu")
    assert other.fingerprint != loaded.fingerprint != ""
    assert other.mapping.w_avg.dtype == torch.float32
    weights = load_file(folder / "generator.safetensors")
    assert weights.keys() == model.state_dict().keys()


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    model = small()
    tensors = dict(model.state_dict())
    with pytest.raises(ModelError, match="not a generator: it has no generator.json"):
        load_generator(tmp_path)
    (tmp_path / "file.pkl").write_bytes(b"x")
    with pytest.raises(ModelError, match="understudy models convert"):
        load_generator(tmp_path / "file.pkl")
    missing = {name: t for name, t in tensors.items() if name != "synthesis.b8.conv0.bias"}
    with pytest.raises(ModelError, match="b8.conv0.bias is of shape .16,. there and missing"):
        save_generator(tmp_path / "bad", model.config, missing)
    with pytest.raises(ModelError, match="synthesis.b64"):
        StyleGAN2.from_tensors(replace(model.config, img_resolution=32), tensors)
    assert not (tmp_path / "bad").exists()
    folder = save_generator(tmp_path / "good", model.config, tensors)
    manifest = json.loads((folder / "generator.json").read_text())
    for change in ({"format": "another"}, {"kind": "dragon"}, {"config": {"teeth": 3}}):
        (folder / "generator.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(ModelError):
            load_generator(folder)
    (folder / "generator.json").write_text(json.dumps(manifest))
    with (folder / "generator.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"abcd")
    with pytest.raises(ModelError, match="does not match its checksum in generator.json"):
        load_generator(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_resolution": 48}, "img_resolution is 4, 8, 16"),
        ({"architecture": "dense"}, "architecture is one of skip, resnet, orig"),
        ({"resample_filter": (1.0, 2.0, 1.0)}, "resample_filter is four taps"),
        ({"mapping_layers": 0}, "mapping_layers is a number from 1"),
        ({"start": (0, 4)}, "start is height and width"),
    ],
)
def test_wrong_sizes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(SMALL, **changes)  # type: ignore[arg-type]


def test_published_arguments_in_both_layouts() -> None:
    shared = {"z_dim": 16, "c_dim": 0, "w_dim": 16, "img_resolution": 64, "img_channels": 3}
    synthesis = {"channel_base": 512, "channel_max": 16, "num_fp16_res": 4, "conv_clamp": 256}
    mapping = {"mapping_kwargs": {"num_layers": 2, "w_avg_beta": 0.995}}
    flat = StyleGAN2Config.from_arguments({**shared, **synthesis, **mapping})
    nested = StyleGAN2Config.from_arguments({**shared, "synthesis_kwargs": synthesis, **mapping})
    assert flat == nested == replace(SMALL, num_fp16_res=4, conv_clamp=256)
    assert StyleGAN2Config.from_dict(json.loads(json.dumps(flat.to_dict()))) == flat
    with pytest.raises(ModelError, match="dlatent"):
        StyleGAN2Config.from_arguments({**shared, "dlatent": 3})
    with pytest.raises(ModelError, match="activation='relu'"):
        StyleGAN2Config.from_arguments({**shared, "mapping_kwargs": {"activation": "relu"}})
