"""Decodes untrusted pictures to upright sRGB pixels, and writes pictures. Nothing else does.

Pixels are uint8 arrays (h, w, 3). Whatever a camera, editor or attacker wrote, a picture that
passes is turned upright (EXIF), in sRGB (ICC, CMYK), opaque (on white), 8 bit, a single frame; a
picture that does not pass is a PictureError that names the file. Knows nothing of torch.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from understudy.errors import ExtraMissing, InputError, PictureError
from understudy.files.atomic import replacing
from understudy.files.reading import check_place
from understudy.pictures.colour import depth_of, load, to_srgb
from understudy.pictures.complete import check_complete, uncovered
from understudy.pictures.guards import check_scans, quiet, unlogged

Pixels = UInt8[np.ndarray, "h w 3"]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
# The same for messages; AVIF and HEIF are told by their first bytes (see `_heif`).
READABLE = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, and HEIF with understudy[heif]"
SUFFIXES = tuple(".jpg .jpeg .png .webp .tif .tiff .bmp .gif .avif .heic .heif".split())
MAX_PIXELS = 64_000_000  # a 50-megapixel telephone passes, a bomb does not
MAX_BYTES = 512 * 1024 * 1024
MIN_SIDE = 16  # pixels
ORIENTATION, GPS = 0x0112, 0x8825  # EXIF tags


@dataclass(frozen=True)
class Photo:
    """A picture that passed the door: its pixels, and notes on what had to be done to it."""

    path: Path
    pixels: Pixels
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, upright."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Glance:
    """A picture decoded whole but kept small: `size` (height, width) is what the file has, upright;
    turned: whether EXIF said it lies on its side; located: whether it says where it was taken."""

    photo: Photo
    size: tuple[int, int]
    turned: bool
    located: bool


def read_photo(path: str | os.PathLike[str]) -> Photo:
    """Open one picture. Raises PictureError: missing, no picture, truncated, too small or large."""
    return _read(Path(path), None).photo


def glance(path: str | os.PathLike[str], side: int) -> Glance:
    """Open one picture as `read_photo` does, some times as quick: sides of at least `side` pixels
    where the file has them, not all it has."""
    return _read(Path(path), side)


def _read(file: Path, side: int | None) -> Glance:
    check_is_file(file)
    with warnings.catch_warnings(), unlogged():
        warnings.simplefilter("ignore")  # strangers' files do not write on our terminal
        try:
            with _opened(file) as image:
                return _through_the_door(file, image, side)
        except (PictureError, ExtraMissing):
            raise
        except MemoryError:
            raise PictureError(
                f"{file} needs more memory than there is. Make it smaller."
            ) from None
        except Exception as error:  # Pillow's plugins raise whatever a bad file makes them raise
            reason = " ".join(str(error).split())[:120]
            raise PictureError(
                f"{file} is damaged or truncated ({reason}). Save it again."
            ) from error


def fit(pixels: Pixels, size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Scale (Lanczos) and crop the centre so that the picture has `size` (height, width)."""
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels)
    fitted = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def shortest_side(pixels: Pixels, side: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Scaled (bicubic) so that the shorter side has `side` pixels, the longer rounded down."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = (side * width // short, side * height // short)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def png_bytes(pixels: Pixels, text: Mapping[str, str] | None = None) -> bytes:
    """The picture as a PNG file, with `text` in iTXt chunks; the same input, the same bytes."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", pnginfo=info)
    return stream.getvalue()


def write_pixels(
    path: str | os.PathLike[str], pixels: Pixels, text: Mapping[str, str] | None = None
) -> Path:
    """Write a PNG whole or not at all. Raises InputError for another suffix, OutputError."""
    file = check_png_name(path)
    data = png_bytes(pixels, text)
    with replacing(file) as temporary:
        temporary.write_bytes(data)
    return file


def check_png_name(path: str | os.PathLike[str]) -> Path:
    """Raise InputError unless the name ends in .png: only PNG keeps pixels and recipe."""
    file = Path(path)
    if file.suffix.lower() != ".png":
        raise InputError(f"A result is written as PNG. Got {file.name!r}; end it in .png.")
    return file


def texts(path: str | os.PathLike[str]) -> tuple[dict[str, str], str]:
    """The text chunks of a PNG, and the XMP packet of any picture; empty where there is none."""
    file = Path(path)
    check_is_file(file)
    with warnings.catch_warnings(), unlogged():
        warnings.simplefilter("ignore")
        try:
            with _opened(file) as image:
                found = {str(k): str(v) for k, v in getattr(image, "text", {}).items()}
                packet = image.info.get("xmp") or found.get("XML:com.adobe.xmp", "")
        except PictureError:
            raise
        except Exception as error:
            raise PictureError(f"{file} is damaged ({error}). Its text cannot be read.") from error
    return found, packet.decode(errors="replace") if isinstance(packet, bytes) else str(packet)


def check_is_file(file: Path) -> None:
    """Raise PictureError, naming `file`, unless it is an ordinary file that could be a picture."""
    check_place(file, error=PictureError)
    if not file.exists():
        raise PictureError(f"There is no file {file}. Check the path.")
    if file.is_dir():
        raise PictureError(f"{file} is a folder. Give a picture file.")
    if not file.is_file():
        raise PictureError(f"{file} is not an ordinary file. Give a picture file.")
    if not os.access(file, os.R_OK):
        raise PictureError(f"{file} may not be read. Change its permissions.")
    size = file.stat().st_size
    if size == 0:
        raise PictureError(f"{file} is empty. Give a picture file.")
    if size > MAX_BYTES:
        limit = MAX_BYTES // 2**20
        raise PictureError(f"{file} has {size // 2**20} MB; at most {limit} are read. Shrink it.")


def _opened(file: Path) -> Image.Image:
    """Open without decoding, so that a size can be refused first."""
    formats = (*FORMATS, *_heif(file))
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise PictureError(
            f"{file} is not a picture we can read. Expected one of: {READABLE}."
        ) from None
    except Image.DecompressionBombError:
        raise PictureError(_too_large(file, "far more")) from None


def _heif(file: Path) -> tuple[str, ...]:
    """Allow HEIF for files that are HEIF, if the extra is there to read them."""
    with file.open("rb") as stream:
        head = stream.read(12)
    if head[4:8] != b"ftyp":
        return ()
    if head[8:11] == b"avi":
        return ("AVIF",)
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ExtraMissing("heif", f"{file} (HEIF)") from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _through_the_door(file: Path, image: Image.Image, side: int | None) -> Glance:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(_too_large(file, f"{width} x {height}"))
    if min(width, height) < MIN_SIDE:
        raise PictureError(
            f"{file} has {width} x {height} pixels. A side needs at least {MIN_SIDE}."
        )
    if image.format in ("JPEG", "MPO"):
        check_scans(file, width * height)
    check_complete(file, image)
    notes: list[str] = []
    if getattr(image, "is_animated", False):
        image.seek(0)
        notes.append(f"{file.name} holds several pictures; the first one is used.")
    if uncovered(image):
        notes.append(
            f"{file.name}: its first frame is smaller than the picture; the rest is background."
        )
    if side is not None:
        image.draft(None, (side, side))  # a JPEG is decoded whole, to fewer pixels
    depth = depth_of(image)
    with quiet(image.format):
        load(image)
    exif = image.getexif()
    upright = ImageOps.exif_transpose(image)
    if side is not None and upright.mode in ("RGB", "RGBA", "L"):
        upright = upright.reduce(max(1, min(upright.size) // side))
    if upright.has_transparency_data:
        notes.append(f"{file.name} is partly transparent; it was placed on white.")
    profile = image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes | None) else b"none"  # a TIFF may say a number
    pixels = to_srgb(upright, profile, notes, depth)
    lies = exif.get(ORIENTATION, 1) in (5, 6, 7, 8)
    size = (width, height) if lies else (height, width)
    turned, located = exif.get(ORIENTATION, 1) != 1, bool(exif.get_ifd(GPS))
    return Glance(Photo(file, pixels, tuple(notes)), size, turned, located)


def _too_large(file: Path, came: str) -> str:
    return f"{file} has {came} pixels; at most {MAX_PIXELS:,} are read. Make it smaller."
