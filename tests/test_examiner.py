"""The examiner: its shapes, its file, its training pictures and batches, and its independence."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from test_reading_order import FILES, imports, module
from test_recogniser_training import batch
from training import examiner_data, examiner_training
from training.build_toybox_examiner import save
from training.examiner_data import MEMBERS, PER_FAMILY, members, scenes
from training.examiner_measures import told_apart
from training.held_out import LOOK_ALIKES, look_alikes
from training.recogniser_examples import Batch, vocabulary
from training.recogniser_training import Memory, contrast, marks_of
from understudy.errors import ModelError
from understudy.toybox.sample import is_reserved
from understudy.vision import examiner
from understudy.vision.examiner import ExaminerNetwork, load_scorer
from understudy.vision.recogniser import Recogniser, RecogniserNetwork

SHAPE = {"width": 8, "identity": 6, "queries": 2}
ROOMS = (  # everything that draws, learns or chooses; `evaluate_job` and `demo_job` only score
    "concept generate invert learn transfer swap edit project drag jobs evaluate demo generators "
    "diffusion models attention cli.learn cli.swap cli.sweep cli.edit cli.generate cli.explain"
).split()


@pytest.fixture(scope="module")
def small() -> ExaminerNetwork:
    torch.manual_seed(0)
    return ExaminerNetwork(vocabulary(), **SHAPE).eval()


def pictures(count: int, side: int = 128) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_it_answers_what_the_recogniser_answers(small: ExaminerNetwork) -> None:
    with torch.no_grad():
        ours = small(pictures(2))
        theirs = RecogniserNetwork(vocabulary(), width=8, identity=6).eval()(pictures(2))
    assert {n: x.shape for n, x in ours.items()} == {n: x.shape for n, x in theirs.items()}


def test_small_pictures_of_training_pass(small: ExaminerNetwork) -> None:
    for side in (64, 96):
        given = batch(2)
        given.pictures = pictures(2, side)
        assert small(given.pictures, given.hints())["heat"].shape[-1] == side // 4


def test_saved_weights_load_and_answer_alike(small: ExaminerNetwork, tmp_path: Path) -> None:
    save(small, tmp_path, dict(SHAPE))
    again = examiner.load(tmp_path)
    ours = Recogniser(small).identity(pictures(2))
    torch.testing.assert_close(ours, again.identity(pictures(2)), atol=2e-2, rtol=0)


def test_a_folder_without_an_examiner_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="build_toybox_examiner"):
        examiner.load(tmp_path)


NEEDS = {module(path): imports(ast.parse(path.read_text())) for path in FILES}
SCORERS = {"understudy.evaluate_job", "understudy.demo_job"}


def test_only_what_scores_names_the_examiner() -> None:
    name = "understudy.vision.examiner"
    assert {m for m, needed in NEEDS.items() if name in needed} == SCORERS


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_that_chooses_reaches_the_examiner(room: str) -> None:
    """Imports are followed through every module of the package, those in functions too."""
    start = {name for name in NEEDS if f"{name}.".startswith(f"understudy.{room}.")}
    assert start, f"{room} has no modules: mend the list"
    reached, ahead = set[str](), sorted(start)
    while ahead:
        name = ahead.pop()
        if name not in reached and name != "understudy.cli":  # the list of all commands
            reached.add(name)
            ahead += [other for other in NEEDS[name] if other in NEEDS]
    assert "understudy.vision.examiner" not in reached


def test_a_family_shares_colours_and_pattern_and_is_never_reserved() -> None:
    for family in range(20):
        toy, shape, kind, _ = toys = members(family)
        assert {(t.primary, t.secondary, t.tint, t.pattern) for t in toys} == {
            (toy.primary, toy.secondary, toy.tint, toy.pattern)
        }
        assert shape.class_name == toy.class_name != kind.class_name
        assert shape.proportions != toy.proportions and len(set(toys)) == MEMBERS
        assert not any(map(is_reserved, toys))
    drawn = scenes(3)
    assert len(drawn) == PER_FAMILY and {group // MEMBERS for _, group, _ in drawn} == {3}


def test_look_alikes_differ_in_one_thing() -> None:
    shown = {group: scene.subjects[0].identity for scene, group in look_alikes(2)}
    for toy, shape, kind in (tuple(shown[LOOK_ALIKES * n + k] for k in range(3)) for n in (0, 1)):
        for other in (shape, kind):
            differing = {f for f in vars(toy) if getattr(toy, f) != getattr(other, f)}
            assert differing == {"proportions" if other is shape else "class_name"}


def test_batches_hold_two_views_of_two_toys_of_each_family() -> None:
    groups = torch.arange(4 * 6).repeat_interleave(3)  # six families of four toys, three views
    rows = list(examiner_training.family_batches(groups, torch.Generator().manual_seed(0), 3))
    assert [len(r) for r in rows] == [12, 12]
    assert sorted({int(g) // 4 for r in rows for g in groups[r]}) == list(range(6))
    assert all(set(groups[r].bincount().tolist()) <= {0, 2} for r in rows)


def test_negatives_of_the_same_look_count_most() -> None:
    given = batch(4)
    given.groups = torch.tensor([0, 0, 1, 1])
    marks = marks_of(given, 3)
    z = torch.eye(2).repeat_interleave(2, dim=0)
    loss = contrast(z, marks, Memory(2, 3), temperature=0.5, alike=examiner_training.ALIKE)
    # Two negatives, each counted 4 x 8 times: log(1 + 64 e^-2).
    assert loss.item() == pytest.approx(torch.tensor(1 + 64 * torch.e**-2).log().item(), abs=1e-5)


def test_points_stay_in_pixels_of_the_full_size_when_pictures_shrink() -> None:
    whole, half = batch(4), batch(4)
    whole = examiner_training.augment(whole, torch.Generator().manual_seed(1))
    half = examiner_training.augment(half, torch.Generator().manual_seed(1), 64)
    torch.testing.assert_close(whole.points, half.points, equal_nan=True)
    assert half.pictures.shape[-1] == half.masks.shape[-1] == 64


def test_the_rate_ends_at_nothing_when_the_time_is_up() -> None:
    ticks = iter(range(1000))
    rates: list[float] = []

    class Pupil:
        seed, index, rate, seconds = 0, 0, 1.0, 0.0

        def step(self, batch: object, rate: float) -> dict[str, float]:
            self.index += 1
            rates.append(rate * examiner_training.WARM_UP / min(200, self.index))
            return {}

    class Shown:
        groups = torch.arange(8).repeat_interleave(2)

        def take(self, rows: torch.Tensor) -> Batch:
            return batch(len(rows))

    steps = examiner_training.train_until(
        Pupil(), lambda epoch: Shown(), seconds=20, families=1, clock=lambda: float(next(ticks))
    )  # type: ignore[arg-type]
    assert [s.progress for s in steps] == pytest.approx([n / 20 for n in range(1, 20)])
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.01 < 0.9 < rates[0]


def test_told_apart_of_perfect_and_of_reversed_scores() -> None:
    z = torch.eye(2).repeat_interleave(2, dim=0)
    groups = torch.tensor([0, 0, 1, 1])
    unlike = groups[:, None] != groups
    assert told_apart(z, groups, unlike) == 1


def test_small_pictures_come_first() -> None:
    sides = [examiner_training.side_at(p) for p in (0.0, 0.39, 0.6, 0.9, 1.0)]
    assert sides == [64, 64, 96, 128, 128]


def test_training_seeds_stay_below_the_held_out_ones() -> None:
    most = (10_000_000 - examiner_data.FIRST_SEED) // PER_FAMILY
    assert most >= 300_000


def test_the_scorer_is_the_examiner_where_its_weights_are(
    small: ExaminerNetwork, tmp_path: Path
) -> None:
    assert load_scorer(tmp_path / "none").name == "built-in recogniser"
    save(small, tmp_path, dict(SHAPE))
    assert load_scorer(tmp_path).name == "built-in examiner"
    (tmp_path / examiner.WEIGHTS).write_bytes(b"broken")
    with pytest.raises(ModelError, match="no examiner in"):
        load_scorer(tmp_path)
