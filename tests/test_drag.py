"""Drags as values: they arrive, hold, stop, go back, are saved; and refuse what makes no sense."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import pictures
from sliding import Sliding
from test_stylegan2 import small
from understudy.drag import DragSession, DragStep, drag, drag_steps
from understudy.drag.engine import Engine
from understudy.drag.film import check_film_name, frames, marked, write_film
from understudy.drag.points import Pair, read_pairs
from understudy.drag.rules import feature_resolutions
from understudy.drag.tracking import FeatureTracker, Sight, Tracker, Tracks
from understudy.errors import ExtraMissing, InputError
from understudy.generators.interface import HeldLatent, ImageGenerator
from understudy.generators.stylegan2.generator import StyleGAN2
from understudy.settings.drag import PRESETS, DragSettings

PAIRS: tuple[Pair, ...] = (((30, 30), (36, 30)), ((40, 20), (40, 26)))


@pytest.fixture(scope="module")
def model() -> StyleGAN2:
    return small(img_resolution=64)


@pytest.fixture(scope="module")
def latent(model: StyleGAN2) -> Tensor:
    return model.latents(model.draw_z(3), truncation=0.7)


def sliding() -> tuple[ImageGenerator, Tensor]:
    """A generator that costs nothing, and a latent of it."""
    model = Sliding()
    return model, model.latents(model.draw_z(0))


def set_to(preset: str = "best", **values: Any) -> DragSettings:
    return DragSettings.filled(
        {"preset": preset, "learning_rate": 0.02, "r2": 24.0, "r1": 8.0, "steps": 12, **values}
    )


def begun(model: ImageGenerator, latent: Tensor, **values: Any) -> DragSession:
    return DragSession.begin(model, latent, PAIRS, settings=set_to(**values))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("space", ["w", "w+"])
def test_every_preset_arrives_where_the_answer_is_known(preset: str, space: str) -> None:
    model = Sliding()
    assert isinstance(model, ImageGenerator)
    assert isinstance(model.held(torch.ones(1), 1), HeldLatent)
    latent = model.latents(model.draw_z(1))
    pairs = (((30, 30), (37, 26)), ((40, 20), (47, 16)))
    settings = set_to(preset, space=space, learning_rate=0.2, steps=80, feature_resolution=64)
    steps = list(drag_steps(model, latent, pairs, settings=settings))
    first, last = steps[0], steps[-1]
    assert torch.equal(first.latent, latent) and first.points == ((30, 30), (40, 20))
    assert last.stop == "reached" and all(step.stop is None for step in steps[:-1])
    assert torch.equal(last.latent[:, 6:], latent[:, 6:])
    slid = (last.latent - latent)[0, :6].mean(dim=0)
    assert (slid - torch.tensor([-4.0, 7.0])).norm() < 2.8  # 2 pixels, and the rounding of tracks
    if space == "w":
        assert all(torch.equal(last.latent[:, 0], last.latent[:, n]) for n in range(6))


def test_best_comes_closer_and_stays() -> None:
    """Told not to stop, `best` settles on its target; the authors' program lets go and wanders."""
    model = Sliding()
    latent = model.latents(model.draw_z(0))

    def strayed(preset: str) -> float:
        values = {"stop_distance": 1e-3, "steps": 60, "stall_steps": 0, "learning_rate": 0.2}
        settings = set_to(preset, feature_resolution=64, **values)
        steps = list(drag_steps(model, latent, [((30, 30), (36, 33))], settings=settings))
        slid = torch.stack([step.latent[0, :6].mean(dim=0) for step in steps[-15:]])
        return float((slid - torch.tensor([3.0, 6.0])).norm(dim=1).max())

    assert strayed("best") < 0.4 < strayed("official")


def test_windows_and_whole_maps_drag_alike(
    model: StyleGAN2, latent: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> list[DragStep]:
        return list(
            drag_steps(model, latent, PAIRS[:1], settings=set_to("official", r2=8.0, steps=6))
        )

    windows = run()
    monkeypatch.setattr("understudy.generators.stylegan2.held.StyleGAN2Held._plan", lambda *_: [])
    whole = run()
    assert [step.points for step in windows] == [step.points for step in whole]
    assert (windows[-1].latent - whole[-1].latent).abs().max() < 1e-5


def test_nothing_is_moved_where_all_is_there(model: StyleGAN2, latent: Tensor) -> None:
    still = tuple((handle, handle) for handle, _ in PAIRS)
    (step,) = drag_steps(model, latent, still, settings=set_to())
    assert step.stop == "reached" and max(step.left) < 1e-3
    assert torch.equal(step.session.latent, latent)


def test_a_mask_holds(model: StyleGAN2, latent: Tensor) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 16:44, 20:50] = 1
    before = model.pictures(latent)

    def outside(weight: float) -> float:
        settings = set_to(mask_weight=weight, steps=8, stall_steps=0, learning_rate=0.01)
        done = drag(model, latent, PAIRS, mask=mask, settings=settings)
        return float(((model.pictures(done.latent) - before).abs() * (1 - mask)).mean())

    assert outside(300.0) < 0.5 * outside(0.0)


def test_what_a_handle_is_to_look_like_depends_on_a_mask(model: StyleGAN2, latent: Tensor) -> None:
    movable = torch.zeros(1, 1, 64, 64)
    movable[:, :, 10:50, 10:50] = 1
    for mask, same, other in ((None, "original", "current"), (movable, "current", "original")):
        ends = {
            reference: drag(
                model, latent, PAIRS, mask=mask, settings=set_to(steps=4, reference=reference)
            ).latent
            for reference in ("auto", same, other)
        }
        assert torch.equal(ends["auto"], ends[same])
        assert not torch.equal(ends["auto"], ends[other])


def test_a_small_fixed_part_is_looked_at_alone(model: StyleGAN2, latent: Tensor) -> None:
    """The same drag, whether the box of cells under the mask or the whole map is computed."""
    mask = torch.ones(1, 1, 64, 64)
    mask[:, :, 24:34, 22:31] = 0
    settings = set_to(steps=4, reference="original")
    one = Engine.made(model, latent, settings, mask)
    assert one.fixed is not None and not one.fixed.whole
    everywhere = replace(one.fixed, box=(0, 0, *one.fixed.cells))
    other = replace(one, fixed=everywhere)
    points, targets = torch.tensor([[30.0, 28.0]]), torch.tensor([[30.0, 33.0]])
    states = [engine.begin(points, targets) for engine in (one, other)]
    for _ in range(4):
        looks = [engine.step(state) for engine, state in zip((one, other), states, strict=True)]
        states = [state for _, state in looks]
        assert abs(looks[0][0].mask - looks[1][0].mask) < 1e-6
    assert (states[0].moving_ws - states[1].moving_ws).abs().max() < 1e-4


def test_reasons_to_stop() -> None:
    model, latent = sliding()
    far: tuple[Pair, ...] = (((25, 25), (60, 60)),)
    for values, reason in (
        ({"steps": 3}, "cap"),
        ({"steps": 50, "stall_steps": 4, "learning_rate": 0.0}, "stalled"),
        ({"stop_distance": 100.0}, "reached"),
    ):
        steps = list(drag_steps(model, latent, far, settings=set_to(**values)))
        assert steps[-1].stop == reason
        assert steps[-1].session.stop == reason
    assert len(list(drag_steps(model, latent, far, settings=set_to(steps=3)))) == 4
    running = drag_steps(model, latent, far, settings=set_to(steps=3))
    step = next(running)
    running.close()
    assert step.session.stop == "stopped"


def test_stopped_and_going_on_is_one_drag() -> None:
    model, latent = sliding()
    settings = set_to("official", steps=8, stop_distance=0.1)
    *_, whole = drag_steps(model, latent, PAIRS, settings=settings)
    running = drag_steps(model, latent, PAIRS, settings=settings)
    for _ in range(4):
        step = next(running)
    again = step.session.with_settings(replace(settings, steps=4))
    *_, resumed = again.run(model)
    assert whole.points == resumed.points
    assert torch.equal(whole.latent, resumed.latent)


def test_undo_redo_and_points_added_mid_way() -> None:
    model, latent = sliding()
    session = begun(model, latent, steps=3)
    with pytest.raises(InputError, match="nothing to undo"):
        session.undo()
    done = last_of(session.run(model)).session
    more = done.with_pairs((*done.pairs, ((10, 10), (12, 12))))
    assert len(more.pairs) == 3 and torch.equal(more.latent, done.latent)
    assert more.pairs[:2] == done.pairs
    further = last_of(more.run(model)).session
    assert len(further.pairs) == 3
    back = further.undo().undo()
    assert back.pairs == done.pairs and torch.equal(back.latent, done.latent)
    assert torch.equal(back.undo().latent, latent)
    forth = back.redo().redo()
    assert torch.equal(forth.latent, further.latent) and forth.pairs == further.pairs
    with pytest.raises(InputError, match="nothing to redo"):
        forth.redo()
    assert not last_of(back.run(model)).session.future


def test_kept_moments_can_be_gone_back_to() -> None:
    model, latent = sliding()
    done = last_of(begun(model, latent, steps=7, keep_every=3).run(model)).session
    assert [kept.step for kept in done.kept] == [0, 3, 6, 7]
    back = done.at(3)
    assert torch.equal(back.latent, done.latent_of(done.kept[1].moving_ws))
    assert back.pairs[0][0] == done.kept[1].points[0]
    with pytest.raises(InputError, match="Step 4 was not saved. Saved steps: 0, 3, 6, 7"):
        done.at(4)
    again = last_of(back.run(model)).session
    assert [kept.step for kept in again.kept][:2] == [0, 3]


def test_sessions_are_saved_and_go_on(model: StyleGAN2, latent: Tensor, tmp_path: Path) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 10:50, 10:50] = 1
    settings = set_to("official", steps=4, stop_distance=0.1, keep_every=2)
    begin = DragSession.begin(model, latent, PAIRS, mask=mask, settings=settings)
    done = last_of(begin.run(model)).session
    file = done.save(tmp_path / "one.drag")
    loaded = DragSession.load(file)
    assert loaded.settings == done.settings and loaded.pairs == done.pairs
    assert torch.equal(loaded.latent, done.latent) and torch.equal(loaded.start, done.start)
    assert loaded.mask is not None and torch.equal(loaded.mask, mask)
    assert [kept.points for kept in loaded.kept] == [kept.points for kept in done.kept]
    one, other = last_of(done.run(model)), last_of(loaded.run(model))
    assert one.points == other.points
    assert (one.latent - other.latent).abs().max() < 2e-5  # its anchor is looked at anew
    assert torch.equal(loaded.undo().latent, latent)


@pytest.mark.gpu
def test_a_saved_session_goes_on_on_a_gpu(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = small().to("cuda")
    latent = model.latents(model.draw_z(3), truncation=0.7)
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 10:50, 10:50] = 1
    settings = set_to(steps=2)
    done = drag(model, latent, PAIRS, mask=mask, settings=settings)
    loaded = DragSession.load(done.save(tmp_path / "one.drag"))
    again = last_of(loaded.run(model)).session
    assert again.latent.device == model.device
    assert len(list(frames(again, model))) == len(again.kept)
    assert last_of(again.undo().run(model)).stop == "cap"


def test_damaged_sessions_are_refused(model: StyleGAN2, latent: Tensor, tmp_path: Path) -> None:
    good = begun(model, latent).save(tmp_path / "good")
    from safetensors import safe_open

    with safe_open(good, "pt") as file:
        header = file.metadata()
    tensors = load_file(good)
    spoilt = {**tensors, "start": tensors["start"] * torch.nan}
    missing = {name: t for name, t in tensors.items() if name != "state.front"}
    cases: list[tuple[dict[str, Tensor], dict[str, str], str]] = [
        (spoilt, header, "not finite"),
        (missing, header, "state.front"),
        (tensors, {"format": "other"}, "not a valid drag session"),
        (tensors, {**header, "drag": "{"}, "cannot be read"),
        (tensors, {**header, "drag": json.dumps({"states": []})}, "has no 'model'"),
    ]
    for contents, facts, message in cases:
        save_file(contents, tmp_path / "bad", facts)
        with pytest.raises(InputError, match=message) as caught:
            DragSession.load(tmp_path / "bad")
        assert "bad" in str(caught.value)
    (tmp_path / "bad").write_bytes(b"nothing of the kind")
    for name in ("bad", "absent"):
        with pytest.raises(InputError, match=name):
            DragSession.load(tmp_path / name)


def test_the_edit_goes_on_other_seeds() -> None:
    model, latent = sliding()
    done = last_of(begun(model, latent, steps=3).run(model)).session
    other = model.latents(model.draw_z(9), truncation=0.7)
    change = done.latent - latent
    assert torch.equal(done.applied(other, 0.0), other)
    torch.testing.assert_close(done.applied(other, 2.0), other + 2 * change)


def test_wrong_points_latents_and_generators_are_refused(model: StyleGAN2, latent: Tensor) -> None:
    def refused(message: str, pairs: Any = PAIRS, ws: Tensor = latent, **more: Any) -> None:
        with pytest.raises(InputError, match=message):
            list(drag_steps(model, ws, pairs, **{"settings": set_to(), **more}))

    refused(r"target of point 1, \(64, 3\), lies outside.*x goes from 0 to 63", [((3, 3), (64, 3))])
    refused("handle of point 2.*outside", [PAIRS[0], ((-1, 3), (4, 3))])
    refused("handle of point 1.*not a number", [((float("nan"), 3), (4, 3))])
    refused("Points 1 and 2 both start at", [((3, 3), (4, 4)), ((3, 3), (9, 4))])
    refused("at least one handle", [])
    refused("not finite", ws=latent * torch.nan)
    refused("another generator", ws=latent[:, :4])
    refused("mask has 32 x 64 pixels, but the picture has 64 x 64", mask=torch.ones(1, 1, 64, 32))
    refused("black everywhere", mask=torch.zeros(1, 1, 64, 64))
    refused("from 0", mask=torch.full((1, 1, 64, 64), 2.0))
    refused("--layers must be at most 10", settings=set_to(layers=11))
    refused("--feature-resolution must be one of 4, 8", settings=set_to(feature_resolution=100))
    session = begun(model, latent)
    stranger = small(1)
    stranger.fingerprint = "another"
    with pytest.raises(InputError, match="started with the generator"):
        session.run(stranger)
    with pytest.raises(InputError, match="of a drag cannot change"):
        session.with_settings(set_to(space="w"))


def test_strange_but_sensible_drags(model: StyleGAN2, latent: Tensor) -> None:
    twice = (*PAIRS, PAIRS[0])
    assert len(DragSession.begin(model, latent, twice).pairs) == len(PAIRS)
    everything = torch.ones(1, 1, 64, 64)
    one = drag(model, latent, PAIRS, settings=set_to(steps=2))
    other = drag(model, latent, PAIRS, mask=everything, settings=set_to(steps=2))
    assert torch.equal(one.latent, other.latent)
    corners: list[Pair] = [((0, 0), (5, 5)), ((63, 63), (60, 60)), ((0, 63), (2, 61))]
    assert last_of(drag_steps(model, latent, corners, settings=set_to(steps=2))).index == 2


def test_two_hundred_points(model: StyleGAN2, latent: Tensor) -> None:
    many: list[Pair] = [((x, y), (x + 1, y)) for x in range(0, 60, 3) for y in range(0, 60, 6)]
    assert len(many) == 200
    settings = set_to(steps=1, stop_distance=0.5, r1=2.0, r2=8.0)
    step = last_of(drag_steps(model, latent, many, settings=settings))
    assert len(step.points) == 200 and step.index == 1


def test_a_rectangle_is_dragged() -> None:
    model = small(start=(4, 2))
    latent = model.latents(model.draw_z(0), truncation=0.7)
    settings = set_to(steps=6, learning_rate=0.01)
    steps = list(drag_steps(model, latent, [((10, 40), (16, 40))], settings=settings))
    assert steps[-1].left[0] < 5.9
    with pytest.raises(InputError, match="x goes from 0 to 31, y from 0 to 63"):
        DragSession.begin(model, latent, [((32, 3), (3, 3))])


def test_pictures_are_drawn_at_a_cadence(model: StyleGAN2, latent: Tensor) -> None:
    steps = list(drag_steps(model, latent, PAIRS, settings=set_to(steps=5), draw_every=3))
    assert [step.picture is not None for step in steps] == [True, False, False, True, False, True]
    for step in steps:
        if step.picture is not None:
            torch.testing.assert_close(
                step.picture, model.pictures(step.latent), atol=2e-5, rtol=1e-5
            )


def test_any_tracker_will_do(model: StyleGAN2, latent: Tensor) -> None:
    class Believer:
        """Says that all points are where they were told to go, half of the way."""

        def track(self, sight: Sight, points: Tensor, radius: int) -> Tracks:
            assert sight.picture().shape == (1, 3, 64, 64)
            still = torch.zeros(len(points))
            return Tracks(points + 1, still, still.bool())

    assert isinstance(Believer(), Tracker)
    steps = list(drag_steps(model, latent, PAIRS, settings=set_to(steps=3), tracker=Believer()))
    assert [step.points[0] for step in steps[:3]] == [(31, 31), (32, 32), (33, 33)]


def test_tracking_between_pixels_finds_the_place() -> None:
    """On a smooth map moved by a fraction of a pixel, the slopes find the fraction."""
    from test_drag_engine import Maps
    from understudy.drag.region import Grid, look

    def bumps(dy: float, dx: float) -> Tensor:
        y, x = torch.meshgrid(torch.arange(64.0) - dy, torch.arange(64.0) - dx, indexing="ij")
        return torch.stack([(y / 7).sin(), (x / 9).sin(), ((x + y) / 8).cos()])[None]

    grid, points = Grid((64, 64), (64, 64)), torch.tensor([[30.0, 28.0]])
    first = look(Maps(bumps(0, 0)), torch.zeros(1, 1, 1), 1, grid, points, 9)
    references = first.sample(points[:, None])[:, 0]
    moved = look(Maps(bumps(2.3, -1.6)), torch.zeros(1, 1, 1), 1, grid, points, 9)
    sight = Sight(moved, references, lambda: torch.zeros(1, 3, 1, 1))
    found = FeatureTracker(subpixel=True).track(sight, points, 6)
    assert (found.points - torch.tensor([[32.3, 26.4]])).abs().max() < 0.05
    lost = FeatureTracker(doubt=1e-3).track(sight, points, 1)
    assert bool(lost.unsure.all())


def test_points_as_text() -> None:
    assert read_pairs("64,80>64,95; 40.5 , 60 > 38,50;") == (
        ((64, 80), (64, 95)),
        ((40.5, 60), (38, 50)),
    )
    assert read_pairs(" ") == ()
    for wrong in ("64,80", "64,80>95", "a,b>c,d", "1,2>3,4,5"):
        with pytest.raises(InputError, match="--points must be like"):
            read_pairs(wrong)


def test_marks_are_where_the_points_are() -> None:
    grey = np.full((60, 90, 3), 128, np.uint8)
    shown = marked(grey, [(20, 30)], [(70, 40)])
    assert shown.shape == grey.shape and (grey == 128).all()
    red, blue = shown[30, 20].astype(int), shown[40, 70].astype(int)
    assert red[0] > red[2] + 80 and blue[2] > blue[0] + 80
    assert (shown[5:20] == 128).all()
    mask = torch.zeros(1, 1, 60, 90)
    mask[:, :, :, 45:] = 1
    dimmed = marked(grey, [], [], mask)
    assert dimmed[0, 0, 0] < 100 and dimmed[0, 80, 0] == 128


def test_films(model: StyleGAN2, latent: Tensor, tmp_path: Path) -> None:
    done = last_of(begun(model, latent, steps=6, keep_every=2).run(model)).session
    bare, drawn = (list(frames(done, model, marks)) for marks in (False, True))
    assert len(bare) == len(done.kept) == 4
    assert all((one != other).any() for one, other in zip(bare, drawn, strict=True))
    file = write_film(tmp_path / "film.gif", drawn)
    with Image.open(file) as film:
        assert film.n_frames == 4 and film.size == (64, 64)
        shown = np.asarray(film.convert("RGB")).astype(int)
    assert np.abs(shown - drawn[0]).mean() < 12  # 256 colours
    with pytest.raises(InputError, match=r"\.gif or \.mp4"):
        check_film_name("film.avi")
    with pytest.raises(InputError, match="at least one picture"):
        write_film(tmp_path / "none.gif", [])


def test_mp4_needs_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'understudy\[film\]'"):
        check_film_name("film.mp4")


def test_mp4(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    shown = [pictures.gradient(31, 41) for _ in range(3)]
    assert write_film(tmp_path / "film.mp4", shown).stat().st_size > 500


def last_of(steps: Any) -> DragStep:
    return deque(steps, maxlen=1).pop()


@pytest.mark.parametrize(
    "preset, largest, wanted",
    [("official", 128, 128), ("mirrored", 128, 128), ("official", 512, 128), ("best", 128, 64)]
    + [("official", 64, 32), ("best", 512, 128)],
)
def test_official_reads_features_of_128_whatever_the_size(
    preset: str, largest: int, wanted: int
) -> None:
    """The authors' program takes feature index 5; networks below 128 pixels have none."""
    generator = small(img_resolution=largest)
    assert feature_resolutions(generator, set_to(preset)) == (wanted, wanted)
