"""StyleGAN3: published sizes, the formulas written out, and what the filters are there for."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import plain_waves
from golden_drag import DragCase, drag_cases
from understudy.errors import ModelError
from understudy.generators.folder import load_generator, save_generator
from understudy.generators.interface import ImageGenerator
from understudy.generators.stylegan3.config import StyleGAN3Config
from understudy.generators.stylegan3.filters import filters, low_pass
from understudy.generators.stylegan3.generator import StyleGAN3
from understudy.generators.stylegan3.layers import FilteredConv
from understudy.generators.windows import Windows

R: dict[str, Any] = {"conv_kernel": 1, "use_radial_filters": True}
PUBLISHED_R: dict[str, Any] = {**R, "channel_base": 65536, "channel_max": 1024}
SMALL = StyleGAN3Config(
    z_dim=16, w_dim=16, img_resolution=64, channel_base=512, channel_max=8, num_layers=8
)
TINY = StyleGAN3Config(
    z_dim=5, w_dim=6, img_resolution=16, channel_base=64, channel_max=4, num_layers=4,
    num_critical=1, margin_size=2,
)  # fmt: skip
QUARTER = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]  # x to y: clockwise as seen
NAMES = {  # of published networks, as programs of many people list them
    "T, 1024": "L0_36_512 L1_36_512 L2_52_512 L3_52_512 L4_84_512 L5_148_512 L6_148_512 "
    "L7_276_323 L8_276_203 L9_532_128 L10_1044_81 L11_1044_51 L12_1044_32 L13_1024_32 L14_1024_3",
    "T, 256": "L0_36_512 L1_36_512 L2_36_512 L3_52_512 L4_52_512 L5_84_512 L6_84_512 L7_148_362 "
    "L8_148_256 L9_148_181 L10_276_128 L11_276_91 L12_276_64 L13_256_64 L14_256_3",
    "R, 1024": "L0_36_1024 L1_36_1024 L2_52_1024 L3_52_1024 L4_84_1024 L5_148_1024 L6_148_1024 "
    "L7_276_645 L8_276_406 L9_532_256 L10_1044_161 L11_1044_102 L12_1044_64 L13_1024_64 "
    "L14_1024_3",
    "R, 256": "L0_36_1024 L1_36_1024 L2_36_1024 L3_52_1024 L4_52_1024 L5_84_1024 L6_84_1024 "
    "L7_148_724 L8_148_512 L9_148_362 L10_276_256 L11_276_181 L12_276_128 L13_256_128 L14_256_3",
}
CONFIGS = {
    "T, 1024": StyleGAN3Config(),
    "T, 256": StyleGAN3Config(img_resolution=256, channel_base=16384),
    "R, 1024": StyleGAN3Config(**PUBLISHED_R),
    "R, 256": StyleGAN3Config(img_resolution=256, **{**PUBLISHED_R, "channel_base": 32768}),
}
# The published T-1024 prints its own geometry: layer, rate, cutoff, half width of what comes out.
PRINTED = """0 16 2 6|1 16 3.1748 4.8252|2 32 5.03968 10.9603|3 32 8 8|4 64 12.6992 19.3008
5 128 20.1587 43.8413|6 128 32 32|7 256 50.7968 77.2032|8 256 80.6349 47.3651|9 512 128 128
10 1024 203.187 308.813|11 1024 322.54 189.46|12 1024 512 118.346|13 1024 512 118.346
14 1024 512 118.346"""
# And the published R-1024 counts: parameters and buffers of a layer, its style's not among them.
COUNTED = """0 1049600 157|1 1049600 157|2 1049600 169|3 1049600 157|4 1049600 169|5 1049600 169
6 1049600 157|7 661125 169|8 262276 157|9 104192 169|10 41377 169|11 16524 157|12 6592 25
13 4160 25|14 195 1"""


@cache
def small(
    config: StyleGAN3Config = SMALL, seed: int = 0, dtype: torch.dtype = torch.float64
) -> StyleGAN3:
    """A random network, its biases and magnitudes such that they show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = StyleGAN3(config, "small", "small")
        for name, tensor in model.named_parameters():
            if name.endswith("bias") or "input.affine" in name:
                tensor.data += 0.2 * torch.randn_like(tensor)
        for name, buffer in model.named_buffers():
            if name.endswith("magnitude_ema"):
                buffer.fill_(0.5 + torch.rand(()))
    return model.eval().requires_grad_(False).compute_in(dtype)


def rows(table: str) -> list[list[float]]:
    return [[float(word) for word in row.split()] for row in table.replace("\n", "|").split("|")]


# ---------------------------------------------------------------- published facts


@pytest.mark.parametrize("name", NAMES)
def test_names_of_published_networks(name: str) -> None:
    assert [plan.name for plan in CONFIGS[name].layers] == NAMES[name].split()
    assert CONFIGS[name].num_ws == 16


def test_the_geometry_that_t_1024_prints() -> None:
    for plan, row in zip(CONFIGS["T, 1024"].layers, rows(PRINTED), strict=True):
        found = [plan.index, plan.rates[1], plan.cutoffs[1], plan.widths[1]]
        assert found == pytest.approx(row, rel=5e-6)
        halved = CONFIGS["T, 1024"].halved(plan.rates[1])
        assert (plan.critical, halved) == (plan.index >= 12, plan.index >= 5)


def test_the_sizes_that_r_1024_counts() -> None:
    with torch.device("meta"):
        model = StyleGAN3(CONFIGS["R, 1024"])
    for plan, row in zip(model.synthesis.plans, rows(COUNTED), strict=True):
        layer = model.synthesis.get_submodule(plan.name)
        own = sum(p.numel() for p in layer.parameters(recurse=False))
        assert [plan.index, own, sum(b.numel() for b in layer.buffers())] == row
    assert sum(p.numel() for p in model.parameters()) == 15093151
    assert sum(b.numel() for b in model.buffers()) == 5600


@drag_cases("f_safe_reader", "*stylegan3t*.json")
def test_the_geometry_of_a_recorded_network(case: DragCase) -> None:
    """What the authors' program keeps in each layer: rates, bands, taps, paddings, shapes."""
    layout = case.settings["generator_layout"]["state"]
    net = layout["_modules"]["items"]["synthesis"]["state"]
    config = StyleGAN3Config.from_arguments({
        name: value.get("value") if isinstance(value, dict) else value
        for name, value in net["_init_kwargs"]["items"].items()
    })  # fmt: skip
    shapes = {name: tuple(size) for name, _, size in case.settings["generator_state_dict_names"]}
    config = replace(config, z_dim=8, c_dim=0)
    found = StyleGAN3(config).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
    for plan in config.layers:
        told = net["_modules"]["items"][plan.name]["state"]
        told = {
            n: v["value"] if isinstance(v, dict) and "value" in v else v for n, v in told.items()
        }
        ours = {
            "in_sampling_rate": plan.rates[0], "out_sampling_rate": plan.rates[1],
            "tmp_sampling_rate": plan.between, "in_cutoff": plan.cutoffs[0],
            "out_cutoff": plan.cutoffs[1], "in_half_width": plan.widths[0],
            "out_half_width": plan.widths[1], "up_factor": plan.up, "up_taps": plan.up_taps,
            "down_factor": plan.down, "down_taps": plan.down_taps, "conv_kernel": plan.kernel,
            "is_torgb": plan.paints, "is_critically_sampled": plan.critical,
            "down_radial": plan.radial,
        }  # fmt: skip
        assert {name: told[name] for name in ours} == pytest.approx(ours, rel=1e-12)
        assert told["padding"] == {"kind": "list", "items": [*plan.padding, *plan.padding]}


# ---------------------------------------------------------------- the formulas, written out


@pytest.mark.parametrize("name", CONFIGS)
def test_filters_are_the_formulas(name: str) -> None:
    """Windowed sinc and jinc by other series than ours; every filter of the published sizes."""
    for plan in CONFIGS[name].layers[:-1]:
        found = filters(plan)
        ends = (("up_filter", plan.up_taps, 0), ("down_filter", plan.down_taps, 1))
        for filter_name, taps, end in ends:
            round_one = end == 1 and name.startswith("R") and plan.index < 12
            make = plain_waves.radial if round_one else plain_waves.separable
            wanted = make(taps, plan.cutoffs[end], 2 * plan.widths[end], plan.between)
            np.testing.assert_allclose(found[filter_name], wanted, rtol=0, atol=3e-8)
            ours = low_pass(taps, plan.cutoffs[end], 2 * plan.widths[end], plan.between, round_one)
            np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-12)


def test_filters_pass_and_stop() -> None:
    """A radial filter treats every direction alike; a separable one does not."""
    plan = CONFIGS["R, 1024"].layers[6]  # cutoff 32, stopband 64 of a rate of 256
    band = plan.cutoffs[1], 2 * plan.widths[1], plan.between
    alike, square = low_pass(12, *band, radial=True), low_pass(12, *band)
    places = (np.arange(12) - 5.5) / plan.between

    def answer(kernel: Any, frequency: float, angle: float) -> float:
        x, y = frequency * math.cos(angle), frequency * math.sin(angle)
        wave = np.cos(2 * np.pi * (x * places[None, :] + y * places[:, None]))
        return float((kernel * wave).sum())

    for frequency in (8, 24, 32, 48, 64):
        angles = np.linspace(0, math.pi / 4, 7)
        answers = [answer(alike, frequency, turn) for turn in angles]
        others = [answer(np.outer(square, square), frequency, turn) for turn in angles]
        assert np.ptp(answers) < 0.01
        assert frequency < 24 or np.ptp(others) > 3 * np.ptp(answers)
    assert answer(np.outer(square, square), 32, 0) == pytest.approx(0.5, abs=0.01)
    assert answer(alike, 1, 0) > 0.99 and abs(answer(alike, 72, 0)) < 0.005


@pytest.mark.parametrize("kind", [{}, R], ids=["T", "R"])
def test_a_network_is_the_formulas(kind: dict[str, Any]) -> None:
    """z to picture, every layer on the way, against sums over all samples."""
    config = replace(TINY, c_dim=3, **kind)
    model = small(config, seed=3)
    turned = torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, -0.07], [0, 0, 1]], dtype=torch.float64)
    z = model.draw_z(5)
    label = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    tensors = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    tensors["synthesis.input.transform"] = turned.numpy()
    w = plain_waves.mapped(z[0].numpy(), tensors, 2, label[0].numpy())
    ws = model.latents(z, label)
    assert ws.shape == (1, 6, 6)
    np.testing.assert_allclose(ws[0, 3].numpy(), w, rtol=0, atol=1e-12)

    def part(prefix: str) -> dict[str, Any]:
        return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}

    ws = ws + torch.linspace(-0.4, 0.4, 6, dtype=torch.float64)[None, :, None]  # each its own
    each = ws[0].numpy()
    x = plain_waves.waves(each[0], part("synthesis.input."), 20, 16, 2.0)
    model.synthesis.input.transform.copy_(turned)
    try:
        for index, plan in enumerate(config.layers):
            how = {"paints": plan.paints, "factors": (plan.up, plan.down), "size": plan.sizes[1]}
            x = plain_waves.layer(x, each[index + 1], part(f"synthesis.{plan.name}."), how)
            reached = model.synthesis.walk(ws, index).features[0]
            np.testing.assert_allclose(reached.numpy(), x, rtol=0, atol=1e-10)
        drawn = model.pictures(ws)[0]
    finally:
        model.synthesis.input.transform.copy_(torch.eye(3))
    np.testing.assert_allclose(drawn.numpy(), 0.25 * x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["T, 1024", "R, 256"])
def test_layers_keep_places(name: str) -> None:
    """A wave stays where it is through a layer's activation, whatever its rates and margins.

    A wave that is positive everywhere passes the leaky ReLU as it is, but for the gain; so what
    comes out is a wave of the same place, quieter by what the filters take, measured at the places
    of the samples that come out.
    """
    for plan in CONFIGS[name].layers[:10]:
        turns = 2 * math.pi * 0.5 * plan.cutoffs[0]

        def places(size: int, rate: int) -> Tensor:
            return (torch.arange(size, dtype=torch.float64) + 0.5 - size / 2) / rate

        side = plan.sizes[0] + plan.kernel - 1
        row = torch.cos(turns * places(side, plan.rates[0]) - 0.7)
        layer = FilteredConv(replace(plan, channels=(1, 1)), 1, 256.0).double()
        found = layer.activated((4 + row[:, None] + 0 * row)[None, None])[0, 0]
        assert found.shape == (plan.sizes[1], plan.sizes[1])
        inner = slice(8, -8)  # filters read zeros beyond the edges
        at = turns * places(plan.sizes[1], plan.rates[1])[inner]
        waves = torch.stack([torch.ones_like(at), at.cos(), at.sin()], dim=1)
        level, cos, sin = torch.linalg.lstsq(waves, found[inner, inner]).solution.mean(dim=1)
        off = (math.atan2(float(sin), float(cos)) - 0.7) / turns * plan.rates[1]
        assert abs(off) < 0.02, f"{plan.name}: {off} samples off"
        loud = math.hypot(float(cos), float(sin)) / math.sqrt(2)
        assert float(level) == pytest.approx(4 * math.sqrt(2), rel=0.03) and 0.6 < loud < 1.02


# ---------------------------------------------------------------- what filters are there for


def decibels(found: Tensor, wanted: Tensor) -> float:
    """Signal to noise: the variance of what is wanted over the mean square of what differs."""
    return 10 * math.log10(float(wanted.var() / ((found - wanted) ** 2).mean().clamp(min=1e-30)))


def moved(model: StyleGAN3, ws: Tensor, motion: list[list[float]]) -> Tensor:
    """The picture that undergoes a motion: places (x, y, 1), the picture's side being 1."""
    held = model.synthesis.input.transform
    held.copy_(torch.linalg.inv(torch.tensor(motion, dtype=torch.float64)))
    try:
        return model.pictures(ws)
    finally:
        held.copy_(torch.eye(3))


def shift_quality(model: StyleGAN3, dx: int, dy: int) -> float:
    """EQ-T (section 2, appendix E.1) of one shift by whole pixels of 64, away from the edges."""
    ws = model.latents(model.draw_z(1))
    found = moved(model, ws, [[1, 0, dx / 64], [0, 1, dy / 64], [0, 0, 1]])
    wanted = torch.roll(model.pictures(ws), (dy, dx), (2, 3))
    return decibels(found[..., 12:-12, 12:-12], wanted[..., 12:-12, 12:-12])


@pytest.mark.parametrize("kind", [{}, R], ids=["T", "R"])
def test_pictures_move_with_the_input(kind: dict[str, Any]) -> None:
    """Translation: shifts of whole pixels, which are fractions of a sample below."""
    model = small(replace(SMALL, **kind))
    found = {shift: shift_quality(model, *shift) for shift in ((1, 0), (3, -2), (0, 7), (4, 8))}
    assert min(found.values()) > 55, found
    assert found[4, 8] > 90, found  # whole samples of the lowest rate: only edges differ


def test_broken_filters_are_seen() -> None:
    """The same measure with a filter gone wrong: what it says is not said of everything."""
    whole = shift_quality(small(), 3, -2)

    def broken(name: str, change: Any, config: StyleGAN3Config = SMALL) -> float:
        model = StyleGAN3(config).requires_grad_(False).compute_in(torch.float64)
        model.load_state_dict(
            small().state_dict() if config == SMALL else small(config).state_dict()
        )
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith(name):
                buffer.copy_(change(buffer))
        return shift_quality(model, 3, -2)

    def repeat(taps: Tensor) -> Tensor:  # each sample twice, or four times
        held, half = len(taps) // 6, len(taps) // 2
        made = torch.zeros_like(taps)
        made[half - held // 2 : half + held // 2] = 1 / held
        return made

    def every_other(taps: Tensor) -> Tensor:  # samples taken as they are
        return torch.zeros_like(taps).index_fill(0, torch.tensor([len(taps) // 2]), 1.0)

    assert whole > 60
    assert broken("up_filter", repeat) < whole - 10
    assert broken("down_filter", every_other) < whole - 10
    unfiltered = replace(SMALL, lrelu_upsampling=1)
    assert shift_quality(small(unfiltered), 3, -2) < whole - 15


def test_r_turns_and_t_does_not() -> None:
    """Rotation by a quarter: exact for 1 x 1 kernels with round filters, lost with 3 x 3 ones."""
    found = {}
    for name, kind in (("T", {}), ("R", R)):
        model = small(replace(SMALL, **kind))
        ws = model.latents(model.draw_z(1))
        found[name] = decibels(
            moved(model, ws, QUARTER), torch.rot90(model.pictures(ws), -1, (2, 3))
        )
    assert found["R"] > 200 and found["T"] < 20, found


def test_r_turns_by_any_angle() -> None:
    """Rotation by 30 degrees, against windowed sincs between the picture's own samples."""
    angle = math.radians(30)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]
    found = {}
    for name, kind in (("T", {}), ("R", R)):
        model = small(replace(SMALL, **kind))
        ws = model.latents(model.draw_z(1))
        wanted, known = turned_by_hand(model.pictures(ws)[0], turn)
        found[name] = decibels(moved(model, ws, turn)[0][:, known], wanted[:, known])
    assert found["R"] > 45 and found["T"] < 20, found


def turned_by_hand(picture: Tensor, turn: list[list[float]]) -> tuple[Tensor, Tensor]:
    """The picture (c, n, n) turned, by windowed sincs between its samples; where that is known."""
    side = picture.shape[-1]
    line = (torch.arange(side, dtype=torch.float64) + 0.5 - side / 2) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    back = torch.linalg.inv(torch.tensor(turn, dtype=torch.float64))
    from_x = (back[0, 0] * x + back[0, 1] * y) * side + side / 2 - 0.5
    from_y = (back[1, 0] * x + back[1, 1] * y) * side + side / 2 - 0.5
    samples = torch.arange(side, dtype=torch.float64)

    def weights(at: Tensor) -> Tensor:
        apart = at[..., None] - samples
        return torch.sinc(apart) * (apart.abs() < 8) * torch.sinc(apart / 8)

    out = torch.einsum("hwi,hwj,cij->chw", weights(from_y), weights(from_x), picture)
    known = ((from_x - side / 2).abs() < side / 2 - 10) & (
        (from_y - side / 2).abs() < side / 2 - 10
    )
    return out, known & (x.abs() < 0.36) & (y.abs() < 0.36)


# ---------------------------------------------------------------- the protocol


@pytest.mark.parametrize("kind", [{}, R], ids=["T", "R"])
def test_held_is_the_whole(kind: dict[str, Any]) -> None:
    model = small(replace(SMALL, **kind), 0, torch.float32)
    assert isinstance(model, ImageGenerator)
    assert model.feature_resolutions == (16, 32, 64) and model.num_ws == 10
    ws = model.latents(model.draw_z(3))
    held = model.held(ws, 6)
    other = ws[:, :6] + 0.1
    for resolution, name in ((16, "L1_36_8"), (32, "L3_52_8"), (64, "L7_64_8")):
        found = held.features(other, resolution)
        assert tuple(found.shape[2:]) == model.feature_size(resolution)
        wanted = model.features(held.ws(other), name)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
        for moving_ws in (other, ws[:, :6]):  # from where the walk stopped, and from the start
            drawn = model.pictures(held.ws(moving_ws))
            torch.testing.assert_close(held.picture(moving_ws), drawn, rtol=0, atol=1e-5)
    windows = Windows(((-2, 5), (20, 27)), (7, 9))
    cut = held.features(other, 32, windows)
    wide = torch.nn.functional.pad(held.features(other, 32), (9, 9, 9, 9))[0]
    for one, (top, left) in zip(cut, windows.origins, strict=True):
        assert torch.equal(one, wide[:, top + 9 : top + 16, left + 9 : left + 18])


def test_features_lie_over_the_picture() -> None:
    """What is cut off is the margin: a shift of the picture shifts features by as much.

    Eight pixels of 64 are four cells of 32 and two of 16; and without the cut, the authors'
    program's way, cell 0 would lie ten cells outside the picture.
    """
    model = small()
    ws = model.latents(model.draw_z(1))
    held = model.synthesis.input.transform
    for name, cells in (("L1_36_8", 2), ("L3_52_8", 4), ("L6_84_8", 8), ("L7_64_8", 8)):
        still = model.features(ws, name)
        held.copy_(torch.tensor([[1, 0, -8 / 64], [0, 1, 0], [0, 0, 1]]))
        went = model.features(ws, name)
        held.copy_(torch.eye(3))
        assert still.shape[-1] == {2: 16, 4: 32, 8: 64}[cells]
        edge = still.shape[-1] // 6
        inner = slice(edge, -edge)
        wanted = still.roll(cells, 3)[..., inner, cells + edge : -edge]
        assert decibels(went[..., inner, cells + edge : -edge], wanted) > 50


def test_features_have_the_centre_of_the_picture() -> None:
    """A quarter turn around the picture's centre turns every map of R around its own centre."""
    model = small(replace(SMALL, **R), 0, torch.float32)
    ws = model.latents(model.draw_z(1))
    still = {plan.name: model.features(ws, plan.name) for plan in model.synthesis.plans}
    model.synthesis.input.transform.copy_(torch.tensor(QUARTER).T)
    try:
        for name, features in still.items():
            turned = features.rot90(-1, (2, 3))
            assert decibels(model.features(ws, name), turned) > 100, name
    finally:
        model.synthesis.input.transform.copy_(torch.eye(3))


@pytest.mark.parametrize(("dtype", "near"), [("float32", 100), ("bfloat16", 20), ("float16", 38)])
def test_precisions(dtype: str, near: int) -> None:
    exact = small()
    model = StyleGAN3(SMALL).requires_grad_(False)
    model.load_state_dict(exact.state_dict())
    model.compute_in(getattr(torch, dtype))
    ws = exact.latents(exact.draw_z(1))
    drawn = model.pictures(ws)
    assert drawn.dtype == torch.float32 and str(model.dtype) == f"torch.{dtype}"
    assert decibels(drawn.double(), exact.pictures(ws)) > near
    held, moving_ws = model.held(ws.float(), 6), ws[:, :6].float().requires_grad_()
    held.features(moving_ws, 32).square().mean().backward()
    assert (
        moving_ws.grad is not None
        and bool(moving_ws.grad.isfinite().all())
        and moving_ws.grad.abs().max() > 0
    )


def test_batches_change_nothing() -> None:
    model = small(SMALL, 0, torch.float32)
    ws = torch.cat([model.latents(model.draw_z(seed)) for seed in (1, 2)])
    alone = torch.cat([model.pictures(one[None]) for one in ws])
    torch.testing.assert_close(model.pictures(ws), alone, rtol=0, atol=1e-6)


def test_truncation_and_gradients() -> None:
    model = small()
    model.mapping.w_avg.copy_(torch.linspace(0, 1, 16))
    whole, half = (model.latents(model.draw_z(1), truncation=psi, cutoff=4) for psi in (1.0, 0.5))
    model.mapping.w_avg.zero_()
    wanted = (whole[:, :4] + torch.linspace(0, 1, 16, dtype=torch.float64)) / 2
    torch.testing.assert_close(half[:, :4], wanted)
    assert torch.equal(half[:, 4:], whole[:, 4:])
    ws = whole.clone().requires_grad_()
    pull = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    (model.pictures(ws) * pull).sum().backward()
    step = 1e-6 * torch.randn(ws.shape, generator=torch.Generator().manual_seed(1)).double()
    ends = [(model.pictures(whole + sign * step) * pull).sum() for sign in (1, -1)]
    assert float(ends[0] - ends[1]) / 2 == pytest.approx(float((ws.grad * step).sum()), rel=1e-3)


def test_folders(tmp_path: Any) -> None:
    model = small()
    floats = {name: tensor.float() for name, tensor in model.state_dict().items()}
    folder = save_generator(tmp_path / "one", SMALL, floats)
    loaded = load_generator(folder, device="cpu")
    assert (
        isinstance(loaded, StyleGAN3) and loaded.config == SMALL and len(loaded.fingerprint) == 64
    )
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, floats[name])
    with pytest.raises(ModelError, match=r"L\d_\d+_8"):
        save_generator(tmp_path / "bad", replace(SMALL, conv_kernel=1), floats)


@pytest.mark.parametrize(
    "changes",
    [
        {"img_resolution": 96},
        {"num_critical": 14},
        {"conv_kernel": 5},
        {"first_cutoff": 0},
        {"first_stopband": 1.0},
        {"last_stopband_rel": 1.0},
        {"filter_size": 7},
        {"conv_clamp": "256"},
        {"channel_base": 2**40},
        {"margin_size": -1},
        {"hook": 1},
    ],
)
def test_configurations_that_are_none(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        StyleGAN3Config.from_dict({**SMALL.to_dict(), **changes})
