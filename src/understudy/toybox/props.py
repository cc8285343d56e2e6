"""Props: ball, block, cone, mushroom, tree, star."""

from __future__ import annotations

import numpy as np

from understudy.toybox import materials as m
from understudy.toybox.clay import Clay, Frame, turn
from understudy.toybox.scene import Prop


def build(prop: Prop) -> Clay:
    """The prop's shapes; `size` is its height."""
    clay = Clay()
    frame = Frame(np.array([prop.x, 0.0, prop.z]), turn(yaw=prop.yaw), prop.size)
    if prop.kind == "ball":
        clay.ball(frame, (0, 0.5, 0), 0.5, m.PRIMARY)
    elif prop.kind == "block":
        clay.box(frame, (0, 0.5, 0), (0.5, 0.5, 0.5), 0.08, m.PRIMARY)
    elif prop.kind == "cone":
        clay.cylinder(frame, (0, 0.06, 0), 0.48, 0.48, 0.06, 0.03, m.PRIMARY)
        clay.cylinder(frame, (0, 0.55, 0), 0.36, 0.06, 0.45, 0.03, m.PRIMARY)
        clay.cylinder(frame, (0, 0.52, 0), 0.285, 0.215, 0.10, 0.01, m.SECONDARY)
    elif prop.kind == "mushroom":
        clay.bone(frame, (0, 0.1, 0), (0, 0.55, 0), 0.20, 0.15, m.SECONDARY)
        clay.ellipsoid(frame, (0, 0.68, 0), (0.48, 0.32, 0.48), m.PRIMARY)
    elif prop.kind == "tree":
        clay.bone(frame, (0, 0.0, 0), (0, 0.3, 0), 0.08, 0.07, m.SECONDARY)
        for k in range(3):
            low = 0.34 - 0.08 * k
            clay.cylinder(frame, (0, 0.34 + 0.22 * k, 0), low, 0.06, 0.17, 0.03, m.PRIMARY)
    else:
        for k in range(5):
            angle = np.radians(72.0 * k)
            tip = (0.46 * np.sin(angle), 0.48 + 0.46 * np.cos(angle), 0.0)
            clay.bone(frame, (0, 0.48, 0), tip, 0.20, 0.055, m.PRIMARY, smooth=0.08)
    return clay
