"""Provenance: every mark is written, read back, and a change of any of them is found."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from understudy import toybox
from understudy.cli import main as run
from understudy.errors import ExtraMissing, InputError, PictureError
from understudy.pictures import signing, signing_keys, watermark, xmp
from understudy.pictures.encode import encoded
from understudy.pictures.marks import Origin, number_of, read_marks, write_result
from understudy.pictures.photo import Pixels, read_photo, write_pixels
from understudy.pictures.recipe import KEY, Recipe, ingredient, read_recipe
from understudy.settings.marks import MarkSettings

pytest.importorskip("c2pa")
SUFFIXES = (".png", ".jpg", ".webp")


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return toybox.render(toybox.sample_scene(5), (128, 160)).picture


@pytest.fixture
def photo(tmp_path: Path, pixels: Pixels) -> Path:
    """A JPEG photo with EXIF and a place."""
    exif = Image.Exif()
    exif[0x010E] = "SECRET DESCRIPTION"
    exif.get_ifd(0x8825)[1] = "N"
    file = tmp_path / "photo.jpg"
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file


def recipe_of(photo: Path | None = None) -> Recipe:
    files = (ingredient("photo", photo),) if photo else ()
    return Recipe(
        command="swap",
        arguments={"prompt": 'a <cat> & "dog", 日本'},
        ingredients=files,
        model="toybox",
        seed=3,
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keeps", [False, True])
def test_all_marks_are_written_and_agree(
    tmp_path: Path, pixels: Pixels, photo: Path, suffix: str, keeps: bool
) -> None:
    origin = Origin(xmp.COMPOSITE, photo, keeps_photo=keeps)
    file = write_result(tmp_path / f"out{suffix}", pixels, recipe_of(photo), origin)
    marks = read_marks(file)
    assert marks.findings == () and marks.any
    assert marks.source_type == xmp.COMPOSITE
    assert marks.recipe is not None and marks.recipe == read_recipe(file)
    assert marks.recipe.arguments["prompt"] == 'a <cat> & "dog", 日本'
    assert marks.signature is not None and marks.signature.state == "valid"
    assert marks.signature.signer == "understudy, local key" and not marks.signature.trusted
    assert marks.signature.source_types == (xmp.COMPOSITE,)
    assert marks.number == (None if keeps else number_of(marks.recipe))


def test_kept_photo_pixels_stay_bit_for_bit(tmp_path: Path, pixels: Pixels, photo: Path) -> None:
    origin = Origin(xmp.COMPOSITE, photo, keeps_photo=True)
    file = write_result(tmp_path / "out.png", pixels, recipe_of(photo), origin)
    assert np.array_equal(read_photo(file).pixels, pixels)
    forced = MarkSettings(watermark="on")
    file = write_result(tmp_path / "forced.png", pixels, recipe_of(photo), origin, forced)
    assert not np.array_equal(read_photo(file).pixels, pixels)
    assert read_marks(file).findings == ()


def test_what_is_switched_off_is_recorded(tmp_path: Path, pixels: Pixels) -> None:
    off = MarkSettings(watermark="off", c2pa="off", consent="permission")
    file = write_result(tmp_path / "out.png", pixels, recipe_of(), Origin(), off)
    marks = read_marks(file)
    assert marks.findings == () and marks.number is None
    assert marks.signature is not None and marks.signature.state == "none"
    said = read_recipe(file).arguments["marks"]
    assert said == {"watermark": "off", "c2pa": "off", "consent": "permission"}


def test_a_small_picture_says_why_it_has_no_watermark(tmp_path: Path, pixels: Pixels) -> None:
    file = write_result(tmp_path / "out.png", pixels[:64], recipe_of(), Origin())
    assert "fewer than 128" in read_recipe(file).arguments["marks"]["watermark"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_of_the_input_travels(
    tmp_path: Path, pixels: Pixels, photo: Path, suffix: str
) -> None:
    origin = Origin(xmp.COMPOSITE, photo)
    file = write_result(tmp_path / f"out{suffix}", pixels, recipe_of(photo), origin)
    data = file.read_bytes()
    assert b"SECRET" not in data and str(tmp_path).encode() not in data
    with Image.open(file) as image:
        assert not image.getexif()
    assert data.count(b"JFIF") <= (suffix == ".jpg")  # no thumbnail of the photo


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_manifest_is_small(tmp_path: Path, pixels: Pixels, photo: Path, suffix: str) -> None:
    origin = Origin(xmp.COMPOSITE, photo)
    sizes: list[int] = []
    for switch in ("on", "off"):
        settings = MarkSettings(c2pa=switch)
        file = tmp_path / f"{switch}{suffix}"
        write_result(file, pixels, recipe_of(photo), origin, settings)
        sizes.append(file.stat().st_size)
    assert 1000 < sizes[0] - sizes[1] < 5000  # bytes


def test_a_photos_own_manifest_is_kept(tmp_path: Path, pixels: Pixels) -> None:
    import c2pa

    first = write_result(tmp_path / "first.png", pixels, recipe_of(), Origin())
    origin = Origin(xmp.COMPOSITE, first)
    second = write_result(tmp_path / "second.png", pixels, recipe_of(first), origin)
    told = json.loads(c2pa.Reader("image/png", io.BytesIO(second.read_bytes())).json())
    assert len(told["manifests"]) == 2
    (parent,) = told["manifests"][told["active_manifest"]]["ingredients"]
    assert parent["title"] == "first.png" and parent["active_manifest"] in told["manifests"]
    assert read_marks(second).findings == ()


def with_manifest_cut(file: Path, left: int) -> None:
    """Let a JPEG's manifest end early; the picture stays whole."""
    data = file.read_bytes()
    at = data.index(b"\xff\xeb") + 2  # the length of the segment
    length = int.from_bytes(data[at : at + 2], "big")
    short = (left + 2).to_bytes(2, "big") + data[at + 2 : at + 2 + left]
    file.write_bytes(data[:at] + short + data[at + length :])


def test_a_photo_with_a_damaged_manifest_does_not_fail_the_job(
    tmp_path: Path, pixels: Pixels
) -> None:
    first = write_result(tmp_path / "first.jpg", pixels, recipe_of(), Origin())
    with_manifest_cut(first, 700)
    assert read_marks(first).findings
    second = write_result(
        tmp_path / "second.png", pixels, recipe_of(first), Origin(xmp.COMPOSITE, first)
    )
    assert read_marks(second).findings == ()
    assert read_recipe(second).arguments["marks"]["photo_c2pa"] == "left out: it is damaged"


def test_damaged_manifests_are_told_in_one_line(tmp_path: Path, pixels: Pixels) -> None:
    """Bytes of the manifest are changed, in the three formats; a few are padding."""
    found = 0
    for suffix in SUFFIXES:
        good = write_result(tmp_path / f"good{suffix}", pixels, recipe_of(), Origin()).read_bytes()
        where, bad = good.index(b"c2pa"), tmp_path / f"bad{suffix}"
        for number in range(12):
            draw = random.Random(number)
            data = bytearray(good)
            for _ in range(draw.choice((1, 1, 4, 40))):
                data[where + draw.randrange(2_500)] = draw.randrange(256)
            bad.write_bytes(data)
            try:
                findings = read_marks(bad).findings
            except PictureError as error:  # the change reached the pixels
                findings = (str(error),)
            assert all(line.isprintable() for line in findings), (suffix, number)
            found += bool(findings)
    assert found >= 30  # of 36


def pem_with_another_certificate(config: Path, tmp_path: Path) -> Path:
    key = (config / "understudy/signing.pem").read_bytes().split(b"-----BEGIN CERT")[0]
    file = tmp_path / "mixed.pem"
    file.write_bytes(
        key + b"-----BEGIN CERT" + signing_keys._new_key().split(b"-----BEGIN CERT")[1]
    )
    return file


def test_a_users_own_key_signs(tmp_path: Path, pixels: Pixels) -> None:
    pem = tmp_path / "mine.pem"
    pem.write_bytes(signing_keys._new_key())
    mine = MarkSettings(sign_key=str(pem))
    file = write_result(tmp_path / "out.png", pixels, recipe_of(), Origin(), mine)
    assert read_marks(file).findings == ()


def test_keys_that_do_not_fit_are_refused(tmp_path: Path, pixels: Pixels, config: Path) -> None:
    signing_keys._local.cache_clear()
    signing_keys.credentials()  # the local key exists
    bad = tmp_path / "bad.pem"
    bad.write_text("no key")
    for pem, reason in (
        (bad, "PEM"),
        (pem_with_another_certificate(config, tmp_path), "does not belong"),
        (tmp_path / "missing.pem", "no such file"),
    ):
        mine = MarkSettings(sign_key=str(pem))
        with pytest.raises(InputError, match=reason):
            write_result(tmp_path / "out.png", pixels, recipe_of(), Origin(), mine)
    assert not (tmp_path / "out.png").exists()


def test_a_home_that_cannot_be_written_does_not_lose_the_picture(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file" / "inside"))
    file = write_result(tmp_path / "out.png", pixels, recipe_of(), Origin())
    marks = read_marks(file)
    assert marks.signature is not None and marks.signature.state == "valid"


def test_the_local_key_is_private(config: Path) -> None:
    signing_keys._local.cache_clear()
    signing_keys.credentials()
    assert (config / "understudy/signing.pem").stat().st_mode & 0o077 == 0


def test_without_the_extra(tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "find_spec", lambda _: None)
    file = write_result(tmp_path / "out.png", pixels, recipe_of(), Origin())
    assert read_recipe(file).arguments["marks"]["c2pa"] == "not installed"
    assert read_marks(file).findings == ()
    with pytest.raises(ExtraMissing, match="provenance"):
        wanted = MarkSettings(c2pa="on")
        write_result(tmp_path / "out.png", pixels, recipe_of(), Origin(), wanted)


def test_another_suffix_is_refused(tmp_path: Path, pixels: Pixels) -> None:
    with pytest.raises(InputError, match=r"\.png, \.jpg, \.jpeg, \.webp"):
        write_result(tmp_path / "out.bmp", pixels, recipe_of(), Origin())


# Tampering: each takes the file's bytes and writes another file under the same name.


def flip(where: float) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[int(len(data) * where)] ^= 1
        file.write_bytes(bytes(data))

    return change


def repainted(file: Path) -> None:
    """Pixels changed by an editor that keeps text chunks and drops what it does not know."""
    image = Image.open(file)
    text, pixels = dict(image.text), np.array(image)
    pixels[40:60, 40:60] = 0
    save(file, pixels, text)


def save(file: Path, pixels: Pixels, text: dict[str, str]) -> None:
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=info)


def with_text(change: Callable[[dict[str, str]], None]) -> Callable[[Path], None]:
    """Text chunks changed, pixels kept, the manifest lost."""

    def apply(file: Path) -> None:
        image = Image.open(file)
        text = dict(image.text)
        change(text)
        save(file, np.array(image), text)

    return apply


def edit_recipe(old: str, new: str) -> Callable[[dict[str, str]], None]:
    def change(text: dict[str, str]) -> None:
        assert old in text[KEY]
        text[KEY] = text[KEY].replace(old, new)

    return change


def edit_source(text: dict[str, str]) -> None:
    packet = "XML:com.adobe.xmp"
    text[packet] = text[packet].replace(xmp.GENERATED, "digitalCapture")


def other_pixels(file: Path) -> None:
    """Another picture under this one's text."""
    image = Image.open(file)
    save(file, np.array(image)[::-1].copy(), dict(image.text))


def appended(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def inserted_chunk(file: Path) -> None:
    """A text chunk added by a program that copies all others, the manifest among them."""
    import struct
    import zlib

    data, body = file.read_bytes(), b"tEXtComment\0hello"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(data[:33] + chunk + data[33:])


def manifest_of_another(file: Path) -> None:
    """The caBX chunk of another signed file in place of this one's."""
    other = file.with_name("other.png")
    pixels = read_photo(file).pixels
    write_result(other, 255 - pixels, replace(recipe_of(), seed=9), Origin())
    ours, theirs = file.read_bytes(), other.read_bytes()
    (a, b), (c, d) = span(ours), span(theirs)
    file.write_bytes(ours[:a] + theirs[c:d] + ours[b:])


def span(data: bytes) -> tuple[int, int]:
    """Where the C2PA chunk of a PNG begins and ends."""
    kind = data.index(b"caBX")
    return kind - 4, kind + 4 + int.from_bytes(data[kind - 4 : kind], "big") + 4


def without_manifest(file: Path) -> None:
    data = file.read_bytes()
    a, b = span(data)
    file.write_bytes(data[:a] + data[b:])


def stripped(file: Path) -> None:
    """Saved anew with nothing but pixels."""
    Image.fromarray(np.array(Image.open(file))).save(file, "PNG")


def cropped(file: Path) -> None:
    image = Image.open(file)
    save(file, np.array(image)[10:, 10:].copy(), dict(image.text))


TAMPERINGS = {
    **{f"one bit at {where:.0%}": flip(where) for where in (0.3, 0.45, 0.6, 0.75, 0.9)},
    "repainted, text kept": repainted,
    "cropped, text kept": cropped,
    "another picture, text kept": other_pixels,
    "recipe: seed": with_text(edit_recipe('"seed": 3', '"seed": 4')),
    "recipe: prompt": with_text(edit_recipe("<cat>", "<cow>")),
    "recipe: model": with_text(edit_recipe('"model": "toybox"', '"model": "other"')),
    "recipe: consent": with_text(edit_recipe("unstated", "permission")),
    "recipe: no watermark": with_text(edit_recipe('"watermark": "embedded"', '"watermark": "off"')),
    "recipe: not signed": with_text(edit_recipe('"c2pa": "signed"', '"c2pa": "off"')),
    "recipe removed": with_text(lambda text: text.pop(KEY)),
    "recipe cut": with_text(lambda text: text.update({KEY: text[KEY][:-20]})),
    "source type: a camera": with_text(edit_source),
    "source type removed": with_text(lambda text: text.pop("XML:com.adobe.xmp")),
    "bytes appended": appended,
    "chunk inserted": inserted_chunk,
    "manifest of another file": manifest_of_another,
    "manifest removed": without_manifest,
    "all metadata removed": stripped,
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found(tmp_path: Path, pixels: Pixels, name: str) -> None:
    file = write_result(tmp_path / "out.png", pixels, recipe_of(), Origin())
    assert read_marks(file).findings == ()
    TAMPERINGS[name](file)
    try:
        assert read_marks(file).findings
    except PictureError:  # no longer a picture: refused, which is found, too
        pass


def test_verify_says_so(tmp_path: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_result(tmp_path / "out.png", pixels, recipe_of(), Origin())
    assert run(["verify", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "unchanged since it was signed" in shown and "signer unknown" in shown
    repainted(file)
    assert run(["verify", str(file), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "changed after it was written" and told["findings"]


def test_verify_of_a_picture_of_others(
    tmp_path: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_pixels(tmp_path / "plain.png", pixels)
    assert run(["verify", str(file)]) == 0
    assert "no marks found" in capsys.readouterr().out


def test_packets_of_others_are_read() -> None:
    element = f"<Iptc4xmpExt:DigitalSourceType>{xmp.SOURCE_TYPES}digitalCapture<"
    assert xmp.source_type(element) == "digitalCapture"
    assert xmp.source_type("<x/>") is None and xmp.recipe_text("<x/>") is None


def test_the_watermark_can_be_read_without_any_metadata(tmp_path: Path, pixels: Pixels) -> None:
    file = write_result(tmp_path / "out.png", pixels, recipe_of(), Origin())
    expected = number_of(read_recipe(file))
    bare = Image.open(io.BytesIO(encoded(read_photo(file).pixels, ".jpg", {}, xmp.packet("x"))))
    assert watermark.read(np.asarray(bare)) == expected


def test_doctor_reports(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == bool(told["problems"])
    assert told["libraries"]["torch"] and told["devices"][0]["name"] == "cpu"
    assert told["models"]["built_in"] == ["toybox", "toybox-flow", "toybox-gan"]
    assert str(Path.home()) not in json.dumps(told) or str(Path.home()) == "/"
