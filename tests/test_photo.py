"""The door for untrusted pictures: what passes is right, what does not is refused by name."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

import pictures
from understudy.errors import ExtraMissing, InputError, PictureError, UnderstudyError
from understudy.pictures import folders, photo

ORIENTATIONS = range(1, 9)


def close(a: np.ndarray, b: np.ndarray, levels: float) -> bool:
    return bool(np.abs(a.astype(float) - b.astype(float)).max() <= levels)


def test_pixels_come_back_as_written(tmp_path: Path) -> None:
    pixels = pictures.gradient()
    read = photo.read_photo(pictures.save(tmp_path / "a.png", pixels))
    assert np.array_equal(read.pixels, pixels)
    assert read.size == (48, 64)
    assert read.notes == ()


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".bmp", ".gif"])
def test_common_formats(tmp_path: Path, suffix: str) -> None:
    flat = np.full((32, 40, 3), (200, 100, 50), dtype=np.uint8)
    assert close(photo.read_photo(pictures.save(tmp_path / f"a{suffix}", flat)).pixels, flat, 4)


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = Image.fromarray(pictures.gradient())
    # What a camera stores is the upright picture turned back.
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation > 1 else upright
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        stored.save(path, tiffinfo={0x0112: orientation})
    else:
        pictures.rotated(path, orientation, np.asarray(stored))
    assert np.array_equal(photo.read_photo(path).pixels, np.asarray(upright))


def test_alpha_is_laid_on_white_and_hidden_colour_stays_hidden(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[:16] = (10, 20, 30, 255)
    pixels[16:] = (255, 0, 0, 0)
    read = photo.read_photo(pictures.save(tmp_path / "a.png", pixels))
    assert (read.pixels[:16] == (10, 20, 30)).all()
    assert (read.pixels[16:] == 255).all()
    assert "transparent" in read.notes[0]


def test_transparent_palette(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (0, 0, 32, 16))
    image.save(tmp_path / "a.png", transparency=0)
    read = photo.read_photo(tmp_path / "a.png").pixels
    assert (read[:16] == 255).all() and (read[16:] == (255, 0, 0)).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    read = photo.read_photo(pictures.grey16(tmp_path / f"a{suffix}", 40_000))
    assert (read.pixels == round(40_000 / 65_535 * 255)).all()


def test_float_greys(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 0.25, dtype=np.float32)).save(tmp_path / "a.tif")
    assert (photo.read_photo(tmp_path / "a.tif").pixels == 64).all()
    Image.fromarray(np.full((32, 32), np.nan, dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(PictureError, match="not finite"):
        photo.read_photo(tmp_path / "b.tif")


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P"])
def test_grey_and_palette_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(pictures.gradient()).convert(mode).save(tmp_path / "a.png")
    assert photo.read_photo(tmp_path / "a.png").pixels.shape == (48, 64, 3)


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    flat = Image.new("RGB", (32, 32), (200, 60, 30))
    flat.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    read = photo.read_photo(tmp_path / "a.jpg").pixels
    assert close(read, np.asarray(flat), 6)


def test_icc_profile_is_followed(tmp_path: Path) -> None:
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    wanted = Image.new("RGB", (32, 32), (180, 90, 40))
    in_lab = ImageCms.profileToProfile(wanted, srgb, lab, outputMode="LAB")
    assert in_lab is not None
    in_lab.save(tmp_path / "a.tif", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    assert close(photo.read_photo(tmp_path / "a.tif").pixels, np.asarray(wanted), 2)


def test_broken_icc_profile_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = pictures.save(tmp_path / "a.png", icc_profile=b"not a profile")
    read = photo.read_photo(path)
    assert np.array_equal(read.pixels, pictures.gradient())
    assert "colour profile" in read.notes[0]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_first_of_several_pictures(tmp_path: Path, suffix: str) -> None:
    first, second = (np.full((32, 32, 3), level, dtype=np.uint8) for level in (40, 200))
    path = tmp_path / f"a{suffix}"
    more = [Image.fromarray(second)]
    Image.fromarray(first).save(path, save_all=True, append_images=more)
    read = photo.read_photo(path)
    assert close(read.pixels, first, 3)
    assert "first" in read.notes[0]


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


REFUSED = {
    "missing": (lambda p: p / "nowhere.png", "no file"),
    "empty": (lambda p: written(p / "a.png", b""), "is empty"),
    "text": (lambda p: written(p / "a.png", b"I am no picture"), "not a picture we can read"),
    "html": (lambda p: written(p / "a.jpg", b"<html></html>"), "not a picture we can read"),
    "random": (lambda p: written(p / "a.png", os.urandom(4096)), "not a picture we can read"),
    "svg": (lambda p: written(p / "a.svg", b"<svg xmlns='x'/>"), "not a picture we can read"),
    "eps": (lambda p: written(p / "a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n"), "not a picture we can"),
    "folder": (lambda p: (p / "a.png").mkdir() or p / "a.png", "is a folder"),
    "device": (lambda p: Path("/dev/zero"), "not an ordinary file"),
    "one pixel": (
        lambda p: pictures.save(p / "a.png", np.zeros((1, 1, 3), np.uint8)),
        "1 x 1 pixels",
    ),
    "a line": (
        lambda p: pictures.save(p / "a.png", np.zeros((1, 900, 3), np.uint8)),
        "900 x 1 pixels",
    ),
    "bomb": (lambda p: pictures.bomb(p / "a.png"), "10000 x 10000 pixels"),
    "giant bomb": (lambda p: pictures.bomb(p / "a.png", 60_000), "pixels; at most 64,000,000"),
    "half a jpeg": (lambda p: pictures.truncated(p / "a.jpg"), "truncated"),
    "most of a jpeg": (lambda p: pictures.truncated(p / "a.jpg", 0.95), "truncated"),
    "half a png": (lambda p: pictures.truncated(p / "a.png"), "truncated"),
    "half a webp": (lambda p: pictures.truncated(p / "a.webp"), "a.webp"),
    "half a tiff": (lambda p: pictures.truncated(p / "a.tif"), "a.tif"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(tmp_path: Path, case: str) -> None:
    make, words = REFUSED[case]
    path = make(tmp_path)
    with pytest.raises(PictureError) as caught:
        photo.read_photo(path)
    message = str(caught.value)
    assert words in message and str(path) in message and "\n" not in message
    assert caught.value.exit_code == 2


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="not an ordinary file"):
        photo.read_photo(tmp_path / "pipe.png")


def test_heif_names_its_extra(tmp_path: Path) -> None:
    path = written(tmp_path / "a.heic", b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ExtraMissing, match=r"understudy\[heif\]"):
        photo.read_photo(path)


def test_thousand_mutated_pictures_raise_only_our_errors(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for suffix in (".png", ".jpg", ".webp", ".gif", ".tif"):
        good = pictures.save(tmp_path / f"good{suffix}").read_bytes()
        path = tmp_path / f"bad{suffix}"
        for _ in range(200):
            data = bytearray(good)
            for place in random.integers(0, len(data), random.integers(1, 12)):
                data[place] = random.integers(0, 256)
            path.write_bytes(bytes(data))
            try:
                assert photo.read_photo(path).pixels.dtype == np.uint8
            except UnderstudyError as error:
                assert str(path) in str(error)


def test_folder_lists_pictures_and_says_what_it_left_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png"):
        pictures.save(tmp_path / name)
    (tmp_path / "inner").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    folder = folders.list_folder(tmp_path)
    assert [file.name for file in folder.files] == ["a.JPG", "b.png"]
    assert len(folder.notes) == 3
    assert "inner/" in folder.notes[0] and "notes.txt" in folder.notes[1]
    assert folder.notes[2] == "hidden files were skipped: 1."


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_glance_shows_what_reading_shows(tmp_path: Path, orientation: int) -> None:
    path = pictures.rotated(tmp_path / "a.webp", orientation, pictures.gradient(480, 640))
    whole, small = photo.read_photo(path), photo.glance(path, 64)
    assert small.size == whole.size == ((640, 480) if orientation > 4 else (480, 640))
    assert small.turned == (orientation != 1) and not small.located
    height, width = small.photo.size
    assert min(height, width) == 69  # the seventh part
    shrunk = photo.fit(whole.pixels, (height, width)).astype(int)
    assert np.abs(shrunk - small.photo.pixels).max() <= 4


def test_a_glance_decodes_the_whole_file(tmp_path: Path) -> None:
    path = pictures.truncated(tmp_path / "a.jpg", 0.9)
    with pytest.raises(PictureError, match="truncated"):
        photo.glance(path, 16)


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="holds no picture.*JPEG, .*AVIF, and HEIF"):
        folders.list_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing of the kind")
    with pytest.raises(PictureError, match="Expected one of: JPEG, .*AVIF, and HEIF"):
        photo.read_photo(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    with pytest.raises(PictureError, match="no folder"):
        folders.list_folder(tmp_path / "nowhere")
    with pytest.raises(PictureError, match="is a file"):
        folders.list_folder(pictures.save(tmp_path / "a.png"))


def test_fit_keeps_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((60, 100, 3), dtype=np.uint8)
    pixels[28:33, 48:53] = 255  # a spot in the very middle
    fitted = photo.fit(pixels, (30, 30))
    assert fitted.shape == (30, 30, 3)
    assert fitted[15, 15].min() > 200
    assert photo.fit(pixels, (60, 100)) is pixels


def test_png_is_written_with_text_and_same_bytes(tmp_path: Path) -> None:
    pixels = pictures.gradient()
    path = photo.write_pixels(tmp_path / "deep" / "a.png", pixels, {"key": "über 日本"})
    assert photo.texts(path)[0] == {"key": "über 日本"}
    assert np.array_equal(photo.read_photo(path).pixels, pixels)
    assert photo.png_bytes(pixels, {"key": "x"}) == photo.png_bytes(pixels, {"key": "x"})
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert ImageOps.exif_transpose(image).mode == "RGB"


def test_results_are_png_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a.jpg"):
        photo.write_pixels(tmp_path / "a.jpg", pictures.gradient())
    assert not list(tmp_path.iterdir())
