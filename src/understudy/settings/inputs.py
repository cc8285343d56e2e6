"""The inputs of the verbs: photos, prompts, places. Declared once for command line, jobs, recipes.

An input differs from a setting: no preset and no model gives it a value. Free of torch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from understudy.settings.marks import CONSENT
from understudy.settings.run import DTYPES

NEEDED: Any = dataclasses.MISSING
REGION = (
    "Part of the photo to edit: auto (around the mask or the subject), full, or X,Y,W,H in pixels. "
    "The result has the photo's size."
)
MOST_GROWTH = 512  # pixels that --grow-mask may add
LATENT, INVERSION = ".latent.safetensors", ".inversion.safetensors"


def given(
    help: str,
    default: Any = NEEDED,
    *,
    names: str = "",
    positional: bool = False,
    values: tuple[str, ...] = (),
    at_least: int | None = None,
    at_most: int | None = None,
    shown: str = "",
) -> Any:
    """One input and its help.

    Args:
        default: NEEDED where the input must be given.
        names: spelling of the option, "--marks/--no-marks"; "" for the usual one.
        positional: an argument of the command instead of an option.
        values: what it may be, for the help; the verb checks it.
        shown: text in the place of the default in the help.
    """
    about = {"help": help, "names": names, "positional": positional, "values": values}
    about |= {"at_least": at_least, "at_most": at_most, "shown": shown}
    if isinstance(default, list):
        return dataclasses.field(default_factory=list[str], metadata=about)
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Base of the inputs of a verb."""

    def to_dict(self) -> dict[str, Any]:
        """The inputs by name, in the order of declaration."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoInputs(Inputs):
    """A photo, or the picture of a seed, with the prompt that describes it."""

    photo: Path | None = given("The photo.", None, positional=True)
    prompt: str = given("Prompt that describes the photo, subjects included.")
    seed: int | None = given("Use the picture of this seed instead of a photo.", None, at_least=0)
    region: str = given(REGION, "auto")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskInputs(Inputs):
    """Where a photo may change."""

    mask: Path | None = given(
        "Mask of the same size as the photo; white may change. A mask that ends at the old "
        "subject's outline needs --grow-mask.",
        None,
    )
    grow_mask: int | None = given(
        "Pixels of the photo to add on every side of --mask, as room for another shape.",
        None,
        at_least=0,
        at_most=MOST_GROWTH,
        shown="0",
    )
    select: list[str] = given(
        "Region that may change, instead of a mask: a word of the prompt, a point X,Y on the "
        "subject, or a box X,Y,W,H around it, in pixels. May be repeated.",
        [],
    )
    sam: Path | None = given("Folder of a SAM 2 model that draws the mask of --select.", None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwapInputs(MaskInputs, PhotoInputs):
    """Inputs of `swap`."""

    region: str = given(
        "Part of the photo to edit: auto (around the mask or the subjects), each (one swap after "
        "the other, each around its own subject), full, or X,Y,W,H in pixels. The result has the "
        "photo's size.",
        "auto",
    )
    swap: list[str] = given(
        "WORD=CONCEPT, like cat=rex: replace this word's subject with the concept. cat#2=rex means "
        "the second cat only. May be repeated."
    )
    photos: Path | None = given("Photos of the concept, to score results with.", None)
    out: Path = given("The picture to write: .png, .jpg or .webp.", Path("swapped.png"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepInputs(SwapInputs):
    """Inputs of `sweep`."""

    region: str = given(REGION, "auto")
    vary: list[str] = given(
        "NAME=V1,V2,.. of self-output, self-map, cross-map; once for a row, twice for a grid "
        "(rows, then columns). Without it: self-output by cross-map.",
        [],
    )
    out: Path = given("The picture to write: .png, .jpg or .webp.", Path("sweep.png"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainInputs(PhotoInputs):
    """Inputs of `explain`."""

    swap: list[str] = given("WORD=CONCEPT: also draw the region that this swap may change.", [])
    out: Path = given("The picture to write: .png, .jpg or .webp.", Path("explained.png"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditInputs(MaskInputs):
    """Inputs of `edit`."""

    photo: Path = given("The photo.", positional=True)
    prompt: str = given("Prompt that describes the photo.")
    to: list[str] = given(
        "Prompt of the result, or the instruction of --method instruct; may be repeated."
    )
    reference: list[Path] = given(
        "instruct: a further picture that --to speaks of; may be repeated.", []
    )
    concept: list[str] = given(
        "Concept to apply, by name or folder; use {name} in --to. May be repeated.", []
    )
    reweight: list[str] = given(
        "WORD=2.0: factor on the attention to a word of --to. May be repeated.", []
    )
    window: list[str] = given(
        "WORD=0.4 or WORD=0.1:0.4: share of the steps in which it uses the source's attention.", []
    )
    blend: str | None = given(
        "WORD or OLD=NEW: limit the change to the region of these words.", None
    )
    preserve: list[str] = given("With --blend: words whose region must not change.", [])
    region: str = given(REGION, "auto")
    seed: int | None = given(
        "hiper: start from the noise of this seed instead of the photo's.", None
    )
    out: Path = given("The picture to write: .png, .jpg or .webp.", Path("edited.png"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertInputs(Inputs):
    """Inputs of `invert`."""

    photo: Path = given("The photo to invert.", positional=True)
    prompt: str = given("Prompt that describes the photo.")
    out: Path | None = given("File to write.", None, shown=f"PHOTO{INVERSION}")
    concept: list[str] = given("Concept to apply while inverting; may be repeated.", [])
    region: str = given("Part of the photo: full, or X,Y,W,H in pixels.", "full")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateInputs(Inputs):
    """Inputs of `generate`."""

    prompt: str = given('Like "a photo of {rex} in the snow".', positional=True)
    out: Path = given("A folder, or a .png, .jpg or .webp for one picture.", Path("out"))
    concept: list[str] = given("Concept, by name or folder; may be repeated.", [])
    count: int = given("Number of pictures.", 1)
    init: Path | None = given("Photo to start from, with noise added; see --strength.", None)
    seed: int = given("Seed of the first picture; each further one adds 1.", 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnInputs(Inputs):
    """Inputs of `learn`."""

    photos: Path = given("A folder with 3 to 5 photos of the subject.", positional=True)
    name: str = given("Name in prompts: {rex}.")
    class_noun: str | None = given(
        "Class noun, like cat or mug.", None, names="--class", shown="proposed by CLIP"
    )
    clip_model: str | None = given(
        "Folder or hub id of a CLIP model: proposes the class noun, scores previews.", None
    )
    dino_model: str | None = given(
        "Folder or hub id of a DINO model: scores the identity of previews.", None
    )
    out: Path | None = given("Folder to write.", None, shown="concepts/NAME")
    identifier: str | None = given("Identifier to use, a rare word.", None, shown="chosen")
    masks: Path | None = given(
        "Folder of masks named like the photos; white is the subject. Without it, NAME.mask.png "
        "beside a photo is its mask.",
        None,
    )
    class_images: list[str] = given(
        "Folder of class images, used instead of images that the model draws. With "
        "NOUN=, for the class of a subject of --also; may be repeated.",
        [],
        values=("[NOUN=]FOLDER",),
    )
    also: list[str] = given(
        "NAME:CLASS:PHOTOS of another subject to learn in the same concept; may be repeated.", []
    )
    after: list[str] = given("An earlier concept to preserve while learning; may be repeated.", [])
    consent: str = given(
        "Recorded consent of the people in the photos.", CONSENT[0], values=CONSENT
    )
    resume: bool = given("Continue a stopped run.", False, names="--resume")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectInputs(Inputs):
    """Inputs of `project`."""

    photo: Path = given("The photo to project.", positional=True)
    generator: str = given("toybox-gan, or a generator's folder.", "toybox-gan")
    out: Path | None = given("File to write.", None, shown=f"PHOTO{LATENT}")
    picture: Path | None = given("Also write the picture of the latent.", None)
    crop: str = given('Part of the photo: "x0,y0,x1,y1".', "")
    eyes: str = given('To align a face: "x,y; x,y", left and right.', "")
    mouth: str = given('The corners of its mouth: "x,y; x,y".', "")
    landmarks: Path | None = given("dlib's 68-point model, to align a face automatically.", None)
    measure: str = given("Perceptual distance: recogniser or lpips.", "recogniser")
    fresh: bool = given(
        "Start from the beginning instead of continuing a stopped run.", False, names="--fresh"
    )
    device: str = given("Where to run: auto, cpu, cuda, cuda:1 or mps.", "auto")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DragInputs(Inputs):
    """Inputs of `drag`."""

    generator: str = given("toybox-gan, or a generator's folder.", "toybox-gan")
    points: str = given('Handles and targets in pixels: "64,80>64,95; 40,60>38,50".', "")
    seed: int | None = given("Seed of the picture to drag.", None)
    latent: Path | None = given("A projected photo (file of `project`), instead of a seed.", None)
    session: Path | None = given("A saved drag to continue.", None)
    into: Path | None = given(
        "The photo that --latent was made from; the change is pasted into it.", None
    )
    other_latent: list[Path] = given(
        "With --into: another projected subject of the photo; may be repeated, each with "
        "--other-points.",
        [],
    )
    other_points: list[str] = given(
        "Handles and targets in the picture of that latent, as in --points; may be repeated.", []
    )
    mask: Path | None = given("Mask of the same size; white may change.", None)
    out: Path = given("The picture to write: .png, .jpg or .webp.", Path("dragged.png"))
    film: Path | None = given("Also write a film: .gif or .mp4.", None)
    marks: bool = given("Draw handles and targets in the film.", True, names="--marks/--no-marks")
    save: Path | None = given("Also save the drag, to continue later with --session.", None)
    also: str = given("Apply the same edit to other seeds, like 4,5,6.", "")
    tracker: str = given("How handles are tracked.", "features", values=("features", "raft"))
    tracker_weights: Path | None = given(
        "Weights file for --tracker raft (torchvision's raft_large).", None
    )
    device: str = given("Where to run: auto, cpu, cuda, cuda:1 or mps.", "auto")
    dtype: str = given("Precision of the high-resolution blocks.", "float32", values=DTYPES)
