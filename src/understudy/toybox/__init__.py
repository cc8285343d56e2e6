"""The procedural toy world, where the right answer is known.

A seed gives a scene; a scene gives its picture, caption, masks and key points; `recast` and
`repose` give the right answers of a swap and of a drag. Needs no torch.
"""

from understudy.toybox.answers import recast, repose
from understudy.toybox.captions import caption, plain_caption
from understudy.toybox.faces import Face, sample_face
from understudy.toybox.portrait import FACE_POINTS, Portrait, portrait
from understudy.toybox.render import KeyPoint, Rendering, influence, render
from understudy.toybox.sample import sample_identity, sample_scene, subject_photos
from understudy.toybox.scene import (
    Background,
    Camera,
    Figure,
    Identity,
    Light,
    Pose,
    Prop,
    Scene,
)
from understudy.toybox.vocabulary import (
    ACCESSORIES,
    ALL_STANCES,
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    KEYPOINTS,
    LIGHTS,
    PATTERNS,
    POINTS,
    PROPS,
    STANCES,
)

__all__ = [
    "ACCESSORIES", "ALL_STANCES", "BACKGROUNDS", "Background", "CLASSES", "COLOURS", "Camera",
    "FACE_POINTS", "Face", "Figure", "Identity",
    "KEYPOINTS", "KeyPoint", "LIGHTS", "Light", "PATTERNS",
    "POINTS", "PROPS", "Portrait", "Pose", "Prop", "Rendering", "STANCES", "Scene",
    "caption", "influence", "plain_caption", "portrait", "recast", "render", "repose",
    "sample_face", "sample_identity", "sample_scene", "subject_photos",
]  # fmt: skip
