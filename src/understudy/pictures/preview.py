"""Small JPEGs of unfinished pictures, as text for events. They carry no recipe and no marks."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

SIDE, MOST = 384, 4  # the longest side in pixels; how many of a batch are shown side by side
QUALITY = 80


def preview(pictures: Tensor) -> str:
    """Pictures "k 3 h w" in [-1, 1], the first of them side by side, as a JPEG in base64."""
    from torch import cat

    from understudy.pictures.tensors import to_pixels

    shown = cat(pictures[:MOST].detach().float().nan_to_num().split(1), dim=3)
    image, stream = Image.fromarray(to_pixels(shown)), io.BytesIO()
    tall = min(1.0, SIDE / image.height)
    if tall < 1:
        image = image.resize((round(image.width * tall), SIDE), Image.Resampling.BILINEAR)
    image.save(stream, format="JPEG", quality=QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
