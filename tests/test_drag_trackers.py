"""Trackers that look at pictures: flows and paths known exactly, and RAFT's door without RAFT."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sliding import SIDE, WAVES, Sliding
from test_stylegan2 import small
from understudy import cli
from understudy.drag import DragSession, drag_steps
from understudy.drag.raft import Raft, raft_tracker
from understudy.drag.region import FeatureView, Grid
from understudy.drag.seeing import Flow, FlowTracker, sampled
from understudy.drag.tracking import Sight, Tracker
from understudy.errors import ExtraMissing, ModelError
from understudy.generators.folder import save_generator
from understudy.settings.drag import DragSettings

PAIRS = [((20.0, 30.0), (26.0, 27.0)), ((40.5, 22.25), (45.0, 20.0))]
POINTS = torch.tensor([[30.0, 20.0], [22.25, 40.5]])  # (y, x)


def slid(picture: Tensor) -> Tensor:
    """How far (y, x) the pattern of `sliding` has slid, read off its picture alone, exactly.

    Its first channel is sin(a (y - sy)), its second sin(b (x - sx) + 1): sine and cosine of the
    shift follow from all samples by least squares.
    """
    found = list[Tensor]()
    for channel, (axis, phase) in enumerate(((0, 0.0), (1, 1.0))):
        values = picture[0, channel].double().mean(dim=1 - axis)
        cos, sin = inverse(channel, axis, phase) @ values
        found.append(-torch.atan2(sin, cos) / WAVES[channel][axis])
    return torch.stack(found).float()


@cache
def inverse(channel: int, axis: int, phase: float) -> Tensor:
    """A channel's samples to its sine and cosine, by least squares."""
    angles = WAVES[channel][axis].double() * torch.arange(SIDE, dtype=torch.float64) + phase
    return torch.linalg.pinv(torch.stack([angles.sin(), angles.cos()], dim=1))


def exact_flow(first: Tensor, second: Tensor) -> Tensor:
    """The same everywhere: (x, y)."""
    way = slid(second) - slid(first)
    return way.flip(0)[None, :, None, None].expand(1, 2, SIDE, SIDE)


def sight(picture: Callable[[], Tensor], memory: object = None) -> Sight:
    look = FeatureView(Grid((64, 64), (64, 64)), torch.zeros(0, 1, 1, 1), torch.zeros(0, 2).long())
    return Sight(look, torch.zeros(0, 1), picture, memory)


def dragged(tracker: Tracker, **changes: Any) -> list[Any]:
    model = Sliding()
    start = model.latents(model.draw_z(0))
    settings = DragSettings.filled({"steps": 60, "r2": 40.0, "learning_rate": 0.4, **changes})
    return list(drag_steps(model, start, PAIRS, settings=settings, tracker=tracker))


def true_points(latent: Tensor) -> Tensor:
    """Where the handles are: the pattern's slide, (x, y)."""
    way = latent[0, :6].mean(dim=0).flip(0)
    return torch.tensor([handle for handle, _ in PAIRS]) + way


# ---------------------------------------------------------------- optical flow


@pytest.mark.parametrize("preset", ["best", "official"])
def test_handles_follow_an_exact_flow(preset: str) -> None:
    """Whole drags by flow: the handles are where the pattern went, and arrive."""
    assert isinstance(exact_flow, Flow) and isinstance(FlowTracker(exact_flow), Tracker)
    steps = dragged(FlowTracker(exact_flow), preset=preset, learning_rate=0.4)
    for step in steps:
        assert (torch.tensor(step.points) - true_points(step.latent)).abs().max() < 0.01
    assert len(steps) > 3 and steps[-1].left[0] < 3 and steps[0].left[0] > 6


@pytest.mark.parametrize("places", [[[10.0, 20.0], [33.3, 7.6], [50.25, 60.9]]])
def test_flow_is_sampled_between_pixels(places: list[list[float]]) -> None:
    """A field that turns and widens the picture is linear, so that bilinear samples are exact."""
    turn = torch.tensor([[0.02, -0.03], [0.03, 0.01]])  # (x, y) flow of (x, y) from the centre
    centre = torch.tensor([31.5, 40.0])
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(64.0), indexing="ij")
    field = torch.einsum("ij,jhw->ihw", turn, torch.stack([x, y]) - centre[:, None, None])[None]
    tracker = FlowTracker(lambda first, second: field)
    points, memory = torch.tensor(places), None
    true = points.flip(1).double()
    picture = torch.zeros(1, 3, 80, 64)
    for step in range(8):
        tracks = tracker.track(sight(lambda: picture, memory), points, 3)
        points, memory = tracks.points, tracks.memory
        if step:
            true = true + (true - centre) @ turn.T.double()
        assert (points.flip(1) - true).abs().max() < 1e-3
        assert not tracks.unsure.any()
    edges = sampled(field, torch.tensor([[0.0, 0.0], [79.0, 63.0], [100.0, -5.0]]))
    torch.testing.assert_close(edges[1], field[0, :, 79, 63])
    torch.testing.assert_close(edges[2], field[0, :, 79, 0])


def test_flow_that_is_no_number_and_flow_out_of_the_picture() -> None:
    field = torch.zeros(1, 2, 16, 16)
    field[:, :, :8], field[:, 0, 8:] = torch.nan, 30.0
    tracker, picture = FlowTracker(lambda first, second: field), torch.zeros(1, 3, 16, 16)
    points = torch.tensor([[2.0, 5.0], [12.0, 5.0]])
    tracks = tracker.track(sight(lambda: picture, picture), points, 3)
    assert tracks.unsure.tolist() == [True, False]
    assert tracks.points.tolist() == [[2.0, 5.0], [12.0, 15.0]]


def test_points_moved_by_hand_begin_anew() -> None:
    """New points, an undo, a saved session: no flow from a picture that they never belonged to."""
    asked = list[float]()

    def counted(first: Tensor, second: Tensor) -> Tensor:
        asked.append(float((slid(second) - slid(first)).norm()))
        return exact_flow(first, second)

    model, tracker = Sliding(), FlowTracker(counted)
    start = model.latents(model.draw_z(0))
    settings = DragSettings.filled({"steps": 4, "r2": 40.0, "learning_rate": 0.4, "keep_every": 1})
    session = DragSession.begin(model, start, PAIRS, settings=settings)
    *_, last = session.run(model, tracker=tracker)
    assert len(asked) == 4 and last.session.state.memory is not None
    moved = last.session.with_pairs([((10.0, 10.0), (20.0, 20.0))])
    first = next(iter(moved.run(model, tracker=tracker)))
    assert len(asked) == 4 and first.points == ((10.0, 10.0),)
    assert all(state.memory is None for state in moved.past)
    assert last.session.at(2).state.memory is None
    going_on = next(iter(last.session.run(model, tracker=tracker)))
    assert (torch.tensor(going_on.points) - torch.tensor(last.points)).abs().max() < 0.01


def test_no_picture_is_drawn_unless_a_tracker_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sliding

    drawn = list[int]()
    whole = sliding.Slid.picture
    monkeypatch.setattr(
        sliding.Slid,
        "picture",
        lambda self, moving_ws: (drawn.append(1), whole(self, moving_ws))[1],
    )
    model = Sliding()
    settings = DragSettings.filled({"steps": 5, "r2": 40.0})
    run = {"settings": settings, "tracker": None}
    list(drag_steps(model, model.latents(model.draw_z(0)), PAIRS, **run))  # type: ignore[arg-type]
    assert not drawn
    run["tracker"] = FlowTracker(exact_flow)
    steps = list(drag_steps(model, model.latents(model.draw_z(0)), PAIRS, **run))  # type: ignore[arg-type]
    assert len(drawn) == len(steps)


# ---------------------------------------------------------------- RAFT


class Recorder(nn.Module):
    """Stands for torchvision's network: remembers what it was given; a flow of known numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.given: list[Any] = []

    def forward(self, first: Tensor, second: Tensor, num_flow_updates: int) -> list[Tensor]:
        self.given.append((first, second, num_flow_updates))
        y, x = (torch.arange(float(n)) for n in first.shape[2:])
        flow = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))])[None]
        return [flow * 0, flow + self.weight[0]]


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """A torchvision that makes recorders."""
    made = list[Recorder]()

    def raft_large(*, weights: Any, progress: bool) -> Recorder:
        assert weights is None and not progress
        made.append(Recorder())
        return made[-1]

    module = types.ModuleType("torchvision.models.optical_flow")
    module.raft_large = raft_large  # type: ignore[attr-defined]
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", module)
    return made


@pytest.mark.parametrize("size", [(64, 64), (130, 201), (256, 128)])
def test_raft_is_given_whole_eights_and_its_flow_is_cut_back(size: tuple[int, int]) -> None:
    network = Recorder()
    first = torch.rand(1, 3, *size) * 4 - 2
    flow = Raft(network)(first, first)
    assert flow.shape == (1, 2, *size)
    (given, _, updates) = network.given[0]
    assert updates == 20 and all(side % 8 == 0 and side >= 128 for side in given.shape[2:])
    left, top = (int(flow[0, axis, 0, 0]) for axis in (0, 1))
    inner = given[:, :, top : top + size[0], left : left + size[1]]
    assert torch.equal(inner, first.clamp(-1, 1))
    assert torch.equal(given[:, :, 0, left : left + size[1]], inner[:, :, 0])
    before, behind = top, given.shape[2] - size[0] - top
    assert 0 <= behind - before <= 1


def test_raft_weights(torchvision: list[Recorder], tmp_path: Path) -> None:
    torch.save({"weight": torch.tensor([5.0, 6.0, 7.0])}, tmp_path / "raft.pth")
    tracker = raft_tracker(tmp_path / "raft.pth")
    assert torchvision[0].weight.tolist() == [5, 6, 7] and not torchvision[0].weight.requires_grad
    assert isinstance(tracker.flow, Raft)
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth does not have the weights of torchvision"):
        raft_tracker(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("x")
    with pytest.raises(ModelError, match=r"text\.pth"):
        raft_tracker(tmp_path / "text.pth")


def test_the_command(
    torchvision: list[Recorder], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small()
    save_generator(here / "gan", model.config, model.state_dict())
    torch.save({"weight": torch.zeros(3)}, "raft.pth")
    words = ["drag", "--generator", "gan", "--seed", "3", "--points", "30,30>33,30", "--steps", "2"]
    words += ["--device", "cpu", "--tracker", "raft"]
    assert cli.main([*words, "--tracker-weights", "raft.pth", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(torchvision[0].given) == 2 and told["steps"] == 2
    # The stand-in's flow at a pixel is its place in the widened picture, 32 pixels farther.
    assert told["points"] == [[63.0, 63.0]]
    from understudy.pictures.recipe import read_recipe

    recipe = read_recipe("dragged.png")
    assert recipe.arguments["tracker"] == "raft"
    assert [file.role for file in recipe.ingredients] == ["tracker"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tracker", "eyes"], "--tracker must be features or raft"),
        (["--tracker", "raft"], "needs --tracker-weights"),
        (["--tracker-weights", "raft.pth"], "needs --tracker raft"),
        (["--tracker", "raft", "--tracker-weights", "none.pth"], "no file none.pth"),
    ],
)
def test_what_the_command_refuses(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "raft.pth").write_bytes(b"x")
    assert cli.main(["drag", "--seed", "3", "--points", "1,1>2,2", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_torchvision(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    torch.save({"weight": torch.zeros(3)}, "raft.pth")
    with pytest.raises(ExtraMissing, match=r"understudy\[raft\]"):
        raft_tracker(Path("raft.pth"))
    model = small()
    save_generator(here / "gan", model.config, model.state_dict())
    words = ["--tracker", "raft", "--tracker-weights", "raft.pth", "--device", "cpu"]
    assert (
        cli.main(["drag", "--generator", "gan", "--seed", "3", "--points", "1,1>2,2", *words]) == 1
    )
    assert "pip install 'understudy[raft]'" in capsys.readouterr().err


def test_raft_in_the_table(
    torchvision: list[Recorder], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The method is there if weights are given, and only then."""
    torch.save({"weight": torch.zeros(3)}, "raft.pth")
    for words, there in (([], False), (["--tracker-weights", "raft.pth"], True)):
        assert cli.main(["evaluate", "drag", "--methods", "list", "--json", *words]) == 0
        assert ("raft" in json.loads(capsys.readouterr().out)) is there
