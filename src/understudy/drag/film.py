"""Pictures and films of a drag: handles and targets drawn on frames.

Red is where a handle is, blue where it goes, the line its way; what a mask holds is dimmed. Films
are GIF by Pillow, or MP4 by the extra `film`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from understudy.drag.points import Point
from understudy.drag.session import DragSession
from understudy.errors import ExtraMissing, InputError
from understudy.files.atomic import replacing
from understudy.generators.interface import ImageGenerator
from understudy.pictures.photo import Pixels
from understudy.pictures.tensors import to_pixels

HANDLE, TARGET, WAY, RING = (226, 61, 40), (36, 92, 214), (255, 255, 255), (20, 20, 24)
SUPERSAMPLING = 4  # marks are drawn this much larger, then shrunk, so that edges are smooth
DIMMED = 0.45  # what is left of the light where nothing may change
SUFFIXES = (".gif", ".mp4")


def marked(
    pixels: Pixels,
    points: Sequence[Point],
    targets: Sequence[Point],
    mask: Float[Tensor, "1 1 h w"] | None = None,
) -> Pixels:
    """A picture with its handles and targets, (x, y) in its pixels, and the mask's held part."""
    if mask is not None:
        # The fixed part is dimmed, so that the film shows where the edit is allowed.
        light = DIMMED + (1 - DIMMED) * mask[0, 0].float().cpu().numpy()[:, :, None]
        pixels = np.rint(pixels * light).astype(np.uint8)
    height, width = pixels.shape[:2]
    many, radius = SUPERSAMPLING, max(2.0, max(height, width) / 110)
    marks = Image.new("RGBA", (width * many, height * many))
    draw = ImageDraw.Draw(marks)
    for point, target in zip(points, targets, strict=True):
        places = [((x + 0.5) * many, (y + 0.5) * many) for x, y in (point, target)]
        draw.line(places, fill=(*RING, 200), width=round(0.9 * radius * many))
        draw.line(places, fill=(*WAY, 255), width=round(0.45 * radius * many))
    for places, colour in ((targets, TARGET), (points, HANDLE)):
        for x, y in places:
            _dot(draw, ((x + 0.5) * many, (y + 0.5) * many), radius * many, colour)
    small = marks.resize((width, height), Image.Resampling.BOX)
    picture = Image.fromarray(pixels).convert("RGBA")
    return np.asarray(Image.alpha_composite(picture, small).convert("RGB"))


def frames(session: DragSession, generator: ImageGenerator, marks: bool = True) -> Iterator[Pixels]:
    """The kept moments of a drag as pictures, drawn now; nothing is drawn while dragging."""
    targets = [target for _, target in session.pairs]
    for kept in session.kept:
        drawn = to_pixels(
            generator.pictures(session.latent_of(kept.moving_ws).to(generator.device))
        )
        same = len(kept.points) == len(targets)
        yield marked(drawn, kept.points, targets, session.mask) if marks and same else drawn


def write_film(
    path: str | os.PathLike[str], pictures: Iterable[Pixels], frames_a_second: float = 12.0
) -> Path:
    """Write pictures as a film, .gif or .mp4, whole or not at all; the last one stays a while.

    Raises InputError for another suffix or no picture, ExtraMissing for MP4 without `film`.
    """
    file, shown = check_film_name(path), list(pictures)
    if not shown:
        raise InputError(f"A film needs at least one picture; {file.name} was not written.")
    with replacing(file) as temporary:
        if file.suffix.lower() == ".gif":
            _write_gif(temporary, shown, frames_a_second)
        else:
            _write_mp4(temporary, shown, frames_a_second)
    return file


def check_film_name(path: str | os.PathLike[str]) -> Path:
    """Raise InputError unless the name ends in .gif or .mp4, ExtraMissing for .mp4 without it."""
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"A film is written as .gif or .mp4. Got {file.name!r}.")
    if file.suffix.lower() == ".mp4":
        _encoder()
    return file


def _dot(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    radius: float,
    colour: tuple[int, int, int],
) -> None:
    x, y = centre
    for size, fill in ((1.0, RING), (0.85, WAY), (0.62, colour)):
        r = size * radius
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*fill, 255))


def _write_gif(path: Path, pictures: Sequence[Pixels], frames_a_second: float) -> None:
    images = [Image.fromarray(pixels) for pixels in pictures]
    each = round(1000 / frames_a_second)
    durations = [each] * (len(images) - 1) + [max(each, 1200)]
    images[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=durations if len(images) > 1 else durations[0],
        loop=0,
    )


def _write_mp4(path: Path, pictures: Sequence[Pixels], frames_a_second: float) -> None:
    height, width = pictures[0].shape[:2]
    odd = ((0, height % 2), (0, width % 2), (0, 0))  # the codec wants even sides
    writer: Any = _encoder().write_frames(
        str(path),
        (width + width % 2, height + height % 2),
        fps=frames_a_second,
        codec="libx264",
        macro_block_size=1,
        output_params=["-crf", "16", "-f", "mp4"],
    )
    writer.send(None)
    try:
        rest = [pictures[-1]] * round(frames_a_second)
        for pixels in (*pictures, *rest):
            writer.send(np.ascontiguousarray(np.pad(pixels, odd, mode="edge")))
    finally:
        writer.close()


def _encoder() -> Any:
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise ExtraMissing("film", "An MP4 film") from error
