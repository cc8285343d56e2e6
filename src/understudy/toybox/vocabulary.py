"""The words of the toy world: everything that captions and scenes are made of.

Order matters: the position of a word in its tuple is its label for the recogniser.
"""

from __future__ import annotations

ANIMALS = ("cat", "dog", "bear", "rabbit", "pig", "elephant")
BIRDS = ("duck", "penguin")
THINGS = ("car", "mug", "rocket")
CLASSES = (*ANIMALS, *BIRDS, "robot", *THINGS)

COLOURS: dict[str, tuple[float, float, float]] = {  # sRGB in [0, 1]
    "red": (0.86, 0.16, 0.14),
    "orange": (0.96, 0.53, 0.11),
    "yellow": (0.97, 0.84, 0.18),
    "green": (0.24, 0.66, 0.25),
    "blue": (0.16, 0.36, 0.85),
    "purple": (0.52, 0.24, 0.72),
    "pink": (0.97, 0.58, 0.74),
    "brown": (0.47, 0.28, 0.15),
    "white": (0.94, 0.93, 0.90),
    "grey": (0.52, 0.54, 0.57),
    "black": (0.10, 0.10, 0.12),
}

PATTERNS = ("plain", "striped", "spotted", "patched")
ACCESSORIES = ("none", "hat", "scarf", "bow tie", "glasses", "crown")
LIGHTS = ("sunny", "soft", "evening")

LIMBED = ("standing", "sitting", "waving")
FEATHERED = ("standing", "sitting", "flapping")
STANCES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*ANIMALS, "robot"), LIMBED),
    **dict.fromkeys(BIRDS, FEATHERED),
    **dict.fromkeys(THINGS, ("parked",)),
}
ALL_STANCES = ("standing", "sitting", "waving", "flapping", "parked")

BACKGROUNDS: dict[str, str] = {  # name -> how a caption says it
    "meadow": "on a meadow",
    "beach": "on the beach",
    "snow": "in the snow",
    "desert": "in the desert",
    "street": "on a street",
    "wooden floor": "on a wooden floor",
    "checkered floor": "on a checkered floor",
    "night": "at night",
    "forest": "in a forest",
    "sunset": "at sunset",
    "studio": "in a studio",
    "rug": "on a red rug",
}

PROPS = ("ball", "block", "cone", "mushroom", "tree", "star")

POINTS = (
    "nose", "left eye", "right eye", "left ear", "right ear", "crown", "neck",
    "left hand", "right hand", "left foot", "right foot", "tail", "belly", "back",
)  # fmt: skip
"""Key points, shared by all classes so that poses compare across them: a duck's hands are its
wing tips, a car's feet and hands its front and rear wheels, a mug's tail its handle."""

_EARLESS = tuple(p for p in POINTS if "ear" not in p)
KEYPOINTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*ANIMALS, "robot"), POINTS),
    **dict.fromkeys((*BIRDS, *THINGS), _EARLESS),
}

PROPORTIONS = (
    "girth", "head", "ears", "snout", "legs", "limbs", "eyes", "tail",
)  # fmt: skip
"""What varies continuously between two toys of one class, each in [0, 1]."""
