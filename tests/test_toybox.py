"""The toy world: values, determinism, right answers, and what the masks and points mean."""

import dataclasses
import json

import numpy as np
import pytest

from understudy import toybox
from understudy.errors import InputError
from understudy.toybox.sample import RESERVED_PAIRS, is_reserved


def lone(class_name: str, **pose: object) -> toybox.Scene:
    identity = toybox.Identity(class_name=class_name, primary="red", secondary="white")
    pose.setdefault("stance", toybox.STANCES[class_name][0])
    return toybox.Scene(
        subjects=(toybox.Figure(identity=identity, pose=toybox.Pose(**pose)),),  # type: ignore[arg-type]
        background=toybox.Background(kind="studio"),
    )


def test_scene_survives_json() -> None:
    for seed in range(40):
        scene = toybox.sample_scene(seed)
        assert toybox.Scene.from_json(scene.to_json()) == scene
        assert "\n" not in scene.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"subjects": 3}', '{"subjects": [{}]}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        toybox.Scene.from_json(text)


def test_unknown_words_are_refused_by_name() -> None:
    record = json.loads(lone("cat").to_json())
    record["background"]["kind"] = "moon"
    with pytest.raises(InputError, match="moon"):
        toybox.Scene.from_json(json.dumps(record))
    record["background"] = {"kind": "studio", "colour": "red"}
    with pytest.raises(InputError, match="colour"):
        toybox.Scene.from_json(json.dumps(record))


def test_same_seed_same_bytes() -> None:
    for seed in (3, 4, 5):
        first, second = (toybox.render(toybox.sample_scene(seed), 64) for _ in range(2))
        assert first.picture.tobytes() == second.picture.tobytes()
        assert first.masks.tobytes() == second.masks.tobytes()
    assert toybox.sample_scene(3) != toybox.sample_scene(4)


def test_captions_are_seeded_and_name_the_class() -> None:
    for seed in range(60):
        scene = toybox.sample_scene(seed)
        text = toybox.caption(scene, seed)
        assert text == toybox.caption(scene, seed)
        assert all(s.identity.class_name in text for s in scene.subjects)
        assert toybox.BACKGROUNDS[scene.background.kind] in toybox.plain_caption(scene)


@pytest.mark.parametrize("class_name", toybox.CLASSES)
def test_every_class_in_every_stance(class_name: str) -> None:
    for stance in toybox.STANCES[class_name]:
        drawn = toybox.render(lone(class_name, stance=stance), 64)
        assert drawn.picture.shape == (64, 64, 3) and drawn.masks.shape == (1, 64, 64)
        assert 0.04 < drawn.masks[0].mean() < 0.5
        points = drawn.keypoints[0]
        assert tuple(points) == toybox.KEYPOINTS[class_name] and len(points) >= 12
        assert sum(point.visible for point in points.values()) >= 5


def test_seen_points_lie_on_the_toy() -> None:
    near = 0
    for seed in range(12):
        scene = toybox.sample_scene(seed, subjects=1, occluded=False)
        drawn = toybox.render(scene, 128)
        for point in drawn.keypoints[0].values():
            if point.visible:
                x, y = int(point.x), int(point.y)
                area = drawn.masks[0][max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
                near += 1
                assert area.max() > 0.4, (seed, point)
    assert near > 60


def test_a_mask_tells_who_is_in_front() -> None:
    front = lone("bear", z=0.0)
    block = toybox.Prop(kind="block", colour="blue", x=0.0, z=0.75, size=0.5)
    hidden = dataclasses.replace(front, props=(block,))
    free, covered = (toybox.render(scene).masks[0] for scene in (front, hidden))
    assert covered.sum() < 0.9 * free.sum()
    assert (covered <= free + 1e-6).all()


def test_left_is_the_toys_own_left() -> None:
    points = toybox.render(lone("cat", stance="sitting")).keypoints[0]
    assert points["left eye"].x > points["right eye"].x  # it looks at us
    assert points["crown"].y < points["nose"].y < points["left foot"].y


def test_recast_changes_the_toy_and_nothing_else() -> None:
    scene = toybox.sample_scene(11, subjects=2)
    other = toybox.sample_identity(5, "robot")
    answer = toybox.recast(scene, 0, other)
    assert answer.subjects[0].identity == other
    assert answer.subjects[1] == scene.subjects[1] and answer.background == scene.background
    before, after = toybox.render(scene).picture, toybox.render(answer).picture
    region = toybox.influence(scene, 0) | toybox.influence(answer, 0)
    changed = np.abs(before.astype(int) - after.astype(int)).max(axis=2) > 6
    assert changed.any() and not (changed & ~region).any()


@pytest.mark.parametrize("class_name", toybox.CLASSES)
def test_recast_finds_a_stance_for_every_class(class_name: str) -> None:
    for other in toybox.CLASSES:
        for stance in toybox.STANCES[other]:
            scene = lone(other, stance=stance)
            answer = toybox.recast(scene, 0, toybox.sample_identity(1, class_name))
            toybox.render(answer, 16, over=1)


def test_repose_moves_what_it_should() -> None:
    scene = lone("dog", yaw=-30.0)
    turned = toybox.repose(scene, 0, yaw=30.0)
    a, b = (toybox.render(s).keypoints[0]["nose"].x for s in (scene, turned))
    assert b > a + 10
    with pytest.raises(InputError, match="yew"):
        toybox.repose(scene, 0, yew=3.0)
    with pytest.raises(InputError, match="number 4"):
        toybox.repose(scene, 4, yaw=3.0)


def test_influence_holds_the_shadow_too() -> None:
    scene = lone("rabbit")
    region, mask = toybox.influence(scene, 0), toybox.render(scene).masks[0]
    assert (region | (mask < 0.75)).all()
    assert region.sum() > 1.15 * (mask > 0.5).sum()


def test_reserved_identities_and_pairs_stay_out_of_training() -> None:
    for seed in range(300):
        scene = toybox.sample_scene(seed, held_out=False)
        for subject in scene.subjects:
            assert not is_reserved(subject.identity)
            assert (subject.identity.class_name, scene.background.kind) not in RESERVED_PAIRS
        assert is_reserved(toybox.sample_identity(seed, held_out=True))


def test_photos_of_a_subject_share_only_the_subject() -> None:
    scenes = toybox.subject_photos(7, 5)
    assert len({scene.subjects[0].identity for scene in scenes}) == 1
    assert len({scene.background.kind for scene in scenes}) == 5
    assert all(len(scene.subjects) == 1 and not scene.props for scene in scenes)


@pytest.mark.parametrize("size", [(40, 72), 33, (128, 16)])
def test_any_size(size: int | tuple[int, int]) -> None:
    height, width = (size, size) if isinstance(size, int) else size
    drawn = toybox.render(toybox.sample_scene(2), size)
    assert drawn.picture.shape == (height, width, 3)


def test_sizes_have_bounds() -> None:
    for size in (0, 15, 4000, (128, 8)):
        with pytest.raises(InputError, match="size"):
            toybox.render(toybox.sample_scene(2), size)


def test_a_stance_the_class_cannot_take_is_refused() -> None:
    with pytest.raises(InputError, match="mug"):
        toybox.render(lone("mug", stance="waving"))
