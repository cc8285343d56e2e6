"""What each verb takes, declared for forms and checks. Free of torch.

The signatures of the functions in `jobs/` are the truth; reading them would import torch into the
server. A test checks that this table and those signatures say the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from understudy.errors import InputError
from understudy.jobs.request import group_name
from understudy.settings import (
    DemoSettings,
    EditSettings,
    GenerateSettings,
    InvertSettings,
    LearnSettings,
    RunSettings,
    SwapSettings,
)
from understudy.settings.drag import DragSettings
from understudy.settings.inputs import MOST_GROWTH
from understudy.settings.knobs import Settings
from understudy.settings.marks import CONSENT, MarkSettings
from understudy.settings.project import ProjectSettings

# Kinds of inputs. The page sends ids of files and names of concepts, never paths.
PROMPT, TEXT, TEXTS, FLAG, COUNT = "prompt", "text", "texts", "flag", "count"
PICTURE, PICTURES, FILE, CONCEPTS, SWAPS = "picture", "pictures", "file", "concepts", "swaps"
LISTED = "listed"  # files that the verb takes one by one, not as a folder
GENERATOR, NAME, POINTS, CHECKPOINT = "generator", "name", "points", "checkpoint"
HIDDEN = {"sign_key"}  # settings that name files of the server


@dataclass(frozen=True)
class Input:
    """One input of a verb. help: one line for people."""

    name: str
    kind: str
    help: str
    needed: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The input as JSON data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Verb:
    """One verb: groups of settings, inputs, and the places that the server chooses.

    optional: groups that are left out unless the page gives them. places: input -> file name in
    the folder of results; asked: places that are used only when the page says so.
    """

    name: str
    help: str
    groups: tuple[type[Settings], ...]
    inputs: tuple[Input, ...]
    places: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    asked: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    optional: tuple[type[Settings], ...] = ()
    seed: bool = False

    def group(self, name: str) -> type[Settings]:
        """The settings class of a group. Raises InputError."""
        known = {group_name(kind): kind for kind in self.groups}
        if name not in known:
            raise InputError(f"{self.name} has no settings {name!r}. It has: {', '.join(known)}.")
        return known[name]

    @property
    def generator(self) -> bool:
        """Whether the verb uses a generator in place of a diffusion model."""
        return any(one.kind == GENERATOR for one in self.inputs)


_PROMPT = Input("prompt", PROMPT, "describes the photo, subjects included", needed=True)
_PHOTO = Input("photo", PICTURE, "the photo")
_MASK = Input("mask", PICTURE, "white where the photo may change")
_GROW = Input(
    "grow_mask",
    COUNT,
    "pixels of the photo to add on every side of the mask",
    at_least=0,
    at_most=MOST_GROWTH,
)
_SELECT = Input("select", TEXTS, "where it may change: a word, x,y or x,y,width,height in pixels")
_SWAP = Input(
    "swap",
    SWAPS,
    "WORD=CONCEPT: a word of the prompt, and the concept that replaces it",
    needed=True,
)
_REGION = Input("region", TEXT, "auto, full, or x,y,width,height in pixels", default="auto")
_REFERENCES = Input("photos", PICTURES, "photos of the concept, to compare candidates with")
_CONCEPT = Input("concept", CONCEPTS, "concepts that the prompt names")
_GENERATOR = Input("generator", GENERATOR, "the generator", default="toybox-gan")
_RUN = (RunSettings, InvertSettings, MarkSettings)

VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "learn",
            "Learn a subject from a few photos.",
            (LearnSettings, RunSettings),
            (
                Input("photos", PICTURES, "three to five photos of the subject", needed=True),
                Input("name", NAME, "name of the concept, for {name} in prompts", needed=True),
                Input("class_noun", TEXT, "what the subject is, such as dog", needed=True),
                Input("identifier", TEXT, "rare word for the subject in prompts"),
                Input("masks", PICTURES, "masks of the photos, in the same order"),
                Input(
                    "consent",
                    TEXT,
                    "consent of the people in the photos",
                    default=CONSENT[0],
                    choices=CONSENT,
                ),
                Input("after", CONCEPTS, "concepts that are learnt already and stay applied"),
            ),
        ),
        Verb(
            "generate",
            "Draw pictures from a prompt.",
            (GenerateSettings, RunSettings, MarkSettings),
            (
                Input("prompt", PROMPT, "what to draw; {name} for a concept", needed=True),
                _CONCEPT,
                Input("init", PICTURE, "a photo to start from, see strength"),
                Input(
                    "count",
                    COUNT,
                    "number of pictures, of consecutive seeds",
                    default=1,
                    at_least=1,
                    at_most=64,
                ),
            ),
            {"out": "pictures"},
            seed=True,
        ),
        Verb(
            "edit",
            "Change a photo by its words.",
            (EditSettings, *_RUN),
            (
                dataclasses.replace(_PHOTO, needed=True),
                _PROMPT,
                Input("to", TEXTS, "the prompt of the result; one picture for each", needed=True),
                Input("reference", LISTED, "further pictures that an instruction speaks of"),
                _CONCEPT,
                Input("reweight", TEXTS, "WORD=FACTOR: more or less attention to a word"),
                Input("window", TEXTS, "WORD=STEPS: when a word may act"),
                Input("blend", TEXT, "word=word: change only where these words are"),
                Input("preserve", TEXTS, "words whose place stays as it is"),
                _MASK,
                _GROW,
                _SELECT,
                _REGION,
            ),
            {"out": "edited.png"},
            optional=(InvertSettings,),
            seed=True,
        ),
        Verb(
            "swap",
            "Replace a subject of a photo by a concept.",
            (SwapSettings, *_RUN),
            (_PHOTO, _PROMPT, _SWAP, _MASK, _GROW, _SELECT, _REFERENCES, _REGION),
            {"out": "swapped.png"},
            optional=(InvertSettings,),
            seed=True,
        ),
        Verb(
            "sweep",
            "Swap with many step counts at once, as a grid.",
            (SwapSettings, *_RUN),
            (
                _PHOTO,
                _PROMPT,
                _SWAP,
                Input("vary", TEXTS, "at most two of NAME=VALUE,VALUE,..."),
                _MASK,
                _GROW,
                _SELECT,
                _REFERENCES,
                _REGION,
            ),
            {"out": "sweep.png"},
            optional=(InvertSettings,),
            seed=True,
        ),
        Verb(
            "explain",
            "Show what the model attends to, and what a swap would change.",
            (SwapSettings, *_RUN),
            (_PHOTO, _PROMPT, dataclasses.replace(_SWAP, needed=False), _REGION),
            {"out": "explained.png"},
            optional=(InvertSettings,),
            seed=True,
        ),
        Verb(
            "invert",
            "Find what the model can replay of a photo.",
            (InvertSettings, RunSettings),
            (dataclasses.replace(_PHOTO, needed=True), _PROMPT, _CONCEPT, _REGION),
            {"out": "photo.inversion.safetensors"},
        ),
        Verb(
            "project",
            "Find the latent of a generator that draws a photo.",
            (ProjectSettings, MarkSettings),
            (
                dataclasses.replace(_PHOTO, needed=True),
                _GENERATOR,
                Input("crop", TEXT, "x,y,width,height in pixels"),
                Input("eyes", TEXT, "x,y;x,y of the eyes, in pixels"),
                Input("mouth", TEXT, "x,y;x,y of the corners of the mouth, in pixels"),
                Input("measure", TEXT, "perceptual distance", default="recogniser"),
            ),
            {"out": "photo.latent.safetensors", "picture": "projected.png"},
        ),
        Verb(
            "drag",
            "Move points of a generated picture.",
            (DragSettings, MarkSettings),
            (
                _GENERATOR,
                Input("points", POINTS, "x,y>x,y of each handle and its target"),
                Input("latent", FILE, "the latent of a projected photo"),
                Input("session", FILE, "a saved drag"),
                Input("into", PICTURE, "the projected photo, to put the edit back into"),
                Input("other_latent", LISTED, "latents of other projected subjects of that photo"),
                Input("other_points", TEXTS, "x,y>x,y of the points of each of them"),
                _MASK,
                Input("marks", FLAG, "show handles and targets in the film", default=True),
                Input("also", TEXT, "seeds that get the same edit, such as 4,5,6"),
            ),
            {"out": "dragged.png"},
            {"film": "drag.gif", "save": "drag.safetensors"},
            seed=True,
        ),
        Verb(
            "demo",
            "Learn a toy, swap it into a scene, compare with the right answer.",
            (DemoSettings, RunSettings, MarkSettings),
            (),
            {"out": "demo"},
        ),
        Verb(
            "convert",
            "Convert a checkpoint file of the studio's model folders; no code in it is run.",
            (),
            (Input("file", CHECKPOINT, "its name in the list of models", needed=True),),
        ),
    )
}


def verb(name: str) -> Verb:
    """The verb of a name. Raises InputError that lists the verbs."""
    if name not in VERBS:
        raise InputError(f"verb must be one of {', '.join(VERBS)}. Got {name!r}.")
    return VERBS[name]
