"""Toy faces close up: values, determinism, and what their key points mean."""

import dataclasses

import numpy as np
import pytest

from understudy import toybox
from understudy.errors import InputError
from understudy.toybox.faces import LOOK, PARAMETERS, SHAPE

FRONT = toybox.Face()


def points(**changes: float) -> dict[str, toybox.KeyPoint]:
    return toybox.portrait(dataclasses.replace(FRONT, **changes), 64, over=1).keypoints


def test_a_face_survives_json_and_numbers() -> None:
    for seed in range(20):
        face = toybox.sample_face(seed)
        assert toybox.Face.from_json(face.to_json()) == face
        assert toybox.Face.of(face.numbers()) == face
    assert toybox.sample_face(3) != toybox.sample_face(4)
    assert SHAPE + LOOK == PARAMETERS and "turn" in SHAPE and "fur" in LOOK


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"turn": 2}', '{"nose": 0.5}', '{"turn": "x"}']
)
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        toybox.Face.from_json(text)


def test_equal_faces_give_equal_bytes() -> None:
    first, second = (toybox.portrait(toybox.sample_face(5), 48) for _ in range(2))
    assert first.picture.tobytes() == second.picture.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes() and first.keypoints == second.keypoints
    assert first.picture.shape == (48, 48, 3) and 0.3 < first.mask.mean() < 0.9


def test_every_number_changes_the_picture_a_little() -> None:
    base = toybox.portrait(dataclasses.replace(FRONT, patch=0.7, stripes=0.7), 64).picture
    for name in PARAMETERS:
        changed = {"patch": 0.7, "stripes": 0.7}
        changed[name] = changed.get(name, getattr(FRONT, name)) + 0.15
        other = toybox.portrait(dataclasses.replace(FRONT, **changed), 64).picture
        difference = np.abs(base.astype(int) - other.astype(int)).mean()
        assert 0.005 < difference < 16, name


def test_key_points_move_as_their_names_say() -> None:
    here = points()
    assert len(here) == len(toybox.FACE_POINTS) >= 24
    assert all(0 <= p.x < 64 and -32 <= p.y < 64 for p in here.values())
    assert sum(p.visible for p in here.values()) > 24
    assert here["left eye pupil"].x > here["nose"].x > here["right eye pupil"].x
    assert points(turn=0.9)["nose"].x > here["nose"].x + 3
    assert points(nod=0.9)["nose"].y > here["nose"].y + 1
    assert points(mouth=1.0)["lower lip"].y > here["lower lip"].y + 1
    assert points(smile=1.0)["mouth left"].y < points(smile=0.0)["mouth left"].y - 1
    shut = points(left_eye=0.0)
    assert shut["left eye top"].y > here["left eye top"].y + 2
    assert shut["right eye top"] == here["right eye top"]
    assert points(ear_length=1.0)["left ear tip"].y < here["left ear tip"].y - 2
    assert points(ear_fold=1.0)["left ear tip"].y > here["left ear tip"].y + 4
    assert (
        not points(turn=1.0)["left ear outer"].visible or not points(turn=1.0)["left cheek"].visible
    )


def test_a_size_out_of_bounds_is_refused() -> None:
    with pytest.raises(InputError, match="size must be"):
        toybox.portrait(FRONT, 8)
