"""Provenance of results: written with every picture, read by `understudy verify`.

Marks, in the order in which they are applied: an invisible watermark in the pixels (the first 32
bits of the recipe's SHA-256), the recipe and the IPTC digital source type (XMP), a signed C2PA
manifest over the whole file. Metadata of the input (EXIF, GPS) is never copied.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from understudy.errors import ExtraMissing, InputError, PictureError, one_line
from understudy.files.atomic import replacing
from understudy.files.reading import read_bytes
from understudy.pictures import signing, watermark, xmp
from understudy.pictures.encode import MIME, check_result_name, encoded
from understudy.pictures.photo import Pixels, check_is_file, read_photo, texts
from understudy.pictures.recipe import KEY, Recipe
from understudy.pictures.signing_keys import credentials
from understudy.settings.marks import MarkSettings


@dataclass(frozen=True)
class Origin:
    """How a picture came to be.

    source_type: of `pictures.xmp`. photo: the file that was changed, or None.
    keeps_photo: its pixels are the photo's, bit for bit, outside the change.
    """

    source_type: str = xmp.GENERATED
    photo: Path | None = None
    keeps_photo: bool = False


@dataclass(frozen=True)
class Marks:
    """What the marks of a file say.

    recipe: None where there is none. number: the watermark's, None where there is none.
    findings: contradictions between the marks; empty where the file is as it was written.
    """

    recipe: Recipe | None
    source_type: str | None
    signature: signing.Signature | None
    number: int | None
    findings: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether the file carries a mark at all."""
        signed = self.signature is not None and self.signature.state != "none"
        return bool(self.recipe or self.source_type or signed or self.number is not None)


def write_result(
    path: str | os.PathLike[str],
    pixels: Pixels,
    recipe: Recipe,
    origin: Origin,
    settings: MarkSettings | None = None,
) -> Path:
    """Write a result as PNG, JPEG or WebP with its marks, whole or not at all.

    What was applied, and why a mark was not, is recorded in the recipe ("marks" of its arguments).
    Raises InputError for another suffix, OutputError where it cannot be written or signed,
    ExtraMissing for c2pa "on" without the extra.
    """
    settings = settings or MarkSettings()
    file = check_result_name(path)
    signs = settings.c2pa != "off" and signing.available()
    if settings.c2pa == "on" and not signs:
        raise ExtraMissing("provenance", "--c2pa on")
    if settings.sign_key and not signs:
        raise InputError(
            "--sign-key needs C2PA: install the extra 'provenance', and leave out --c2pa off."
        )
    reason = _unmarked(pixels, origin, settings)
    unsigned = "off" if settings.c2pa == "off" else "not installed"
    said = {
        "watermark": reason or "embedded",
        "c2pa": "signed" if signs else unsigned,
        "consent": settings.consent,
    }
    signer = credentials(settings.sign_key) if signs else None
    parent = signing.parent_of(origin.photo, signer) if signer and origin.photo else None
    if parent is not None and not parent.kept:
        said["photo_c2pa"] = "left out: it is damaged"
    recipe = dataclasses.replace(recipe, arguments={**recipe.arguments, "marks": said})
    if not reason:
        pixels = watermark.embed(pixels, number_of(recipe))
    suffix = file.suffix.lower()
    packet = xmp.packet(origin.source_type, "" if suffix == ".png" else recipe.to_json())
    data = encoded(pixels, suffix, recipe.to_text(), packet)
    if signer:
        claim = signing.Claim(file.name, recipe.command, origin.source_type, parent)
        data = signing.signed(data, MIME[suffix], claim, signer)
    with replacing(file) as temporary:
        temporary.write_bytes(data)
    return file


def number_of(recipe: Recipe) -> int:
    """The watermark's number for a recipe: the first 32 bits of its JSON's SHA-256."""
    return int.from_bytes(hashlib.sha256(recipe.to_json().encode()).digest()[:4], "big")


def read_marks(path: str | os.PathLike[str]) -> Marks:
    """All marks of a picture and what does not fit together. Raises PictureError for no picture."""
    file = Path(path)
    check_is_file(file)
    pixels = read_photo(file).pixels
    text, packet = texts(file)
    found: list[str] = []
    recipe = _recipe(text.get(KEY) or xmp.recipe_text(packet), found)
    source_type = xmp.source_type(packet)
    signature = None
    mime = MIME.get(file.suffix.lower())
    if signing.available() and mime:
        signature = signing.inspect(read_bytes(file, most=signing.MAX_PICTURE), mime)
    number = watermark.read(pixels) if watermark.markable(pixels) else None
    found += _contradictions(recipe, source_type, signature, number)
    return Marks(recipe, source_type, signature, number, tuple(map(one_line, found)))


def _unmarked(pixels: Pixels, origin: Origin, settings: MarkSettings) -> str:
    """Why no watermark is embedded; empty if one is."""
    if settings.watermark == "off":
        return "off"
    if not watermark.markable(pixels):
        return f"off: a side has fewer than {watermark.SIDE} pixels"
    if settings.watermark == "auto" and origin.keeps_photo:
        return "off: the photo's own pixels are kept"
    return ""


def _recipe(text: str | None, found: list[str]) -> Recipe | None:
    if text is None:
        return None
    try:
        return Recipe.from_json(text)
    except PictureError as error:
        found.append(str(error))
        return None


def _contradictions(
    recipe: Recipe | None,
    source_type: str | None,
    signature: signing.Signature | None,
    number: int | None,
) -> list[str]:
    found: list[str] = []
    said = recipe.arguments.get("marks", {}) if recipe else {}
    said = said if isinstance(said, dict) else {}
    state = signature.state if signature else None
    if signature and state in ("invalid", "unreadable"):
        found.append(f"C2PA: the file was changed after signing ({', '.join(signature.problems)})")
    if said.get("c2pa") == "signed" and state == "none":
        found.append("C2PA: the recipe says the file was signed, but it has no manifest")
    if recipe and said.get("watermark") == "embedded":
        if number is None:
            found.append("watermark: the recipe says one was embedded, but there is none")
        elif number != number_of(recipe):
            found.append(
                "watermark: it belongs to another recipe, so recipe or pixels were changed"
            )
    elif recipe and number is not None:
        found.append("watermark: there is one, but the recipe says there is none")
    if recipe and said and source_type is None:
        found.append("digital source type: it was removed")
    stated = signature.source_types if signature else ()
    if source_type and stated and source_type not in stated:
        found.append(f"digital source type: {source_type} in XMP, {stated[-1]} in the manifest")
    if recipe is None and number is not None:
        found.append("recipe: the pixels have this program's watermark, but there is no recipe")
    return found
