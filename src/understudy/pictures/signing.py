"""Signed C2PA manifests (Content Credentials), through c2pa-python. Knows nothing of torch.

Nothing is fetched: no time stamp, no remote manifest, no certificate status. Thumbnails are off, so
that no picture of the input travels in the output. Keys: pictures/signing_keys.py.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from understudy._version import __version__
from understudy.errors import ExtraMissing, OutputError, PictureError, sentence
from understudy.files import spec
from understudy.files.reading import first_bytes, parse_json, read_bytes
from understudy.pictures.encode import MIME, encoded
from understudy.pictures.photo import read_photo
from understudy.pictures.signing_keys import Credentials
from understudy.pictures.xmp import COMPOSITE, SOURCE_TYPES

PNG = MIME[".png"]

OFFLINE = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}

MAX_PICTURE = 512 * 2**20  # bytes of a file whose manifest is read


def _object(needed: dict[str, spec.Kind], **optional: spec.Kind) -> spec.Record:
    return spec.Record(needed, optional, others=spec.Data())


# What is read of the C2PA library's JSON. A stranger wrote the manifest.
_WORD = spec.Text(4096)
_ASSERTION = _object({"label": _WORD, "data": spec.Data()})
_MANIFEST = _object(
    {}, assertions=spec.Items(_ASSERTION), signature_info=_object({}, common_name=_WORD)
)
MANIFESTS = _object(
    {}, active_manifest=_WORD, validation_state=_WORD, manifests=spec.Table(_MANIFEST),
    validation_status=spec.Items(_object({"code": _WORD})),
)  # fmt: skip


@dataclass(frozen=True)
class Parent:
    """The photo that a picture was made from, as it goes into a manifest.

    name: of its file. kept: False where the photo has a manifest that the library cannot take in
    (damaged, or of a stranger's making); then its decoded pixels stand for it, without manifest.
    """

    name: str
    mime: str
    data: bytes
    kept: bool = True


@dataclass(frozen=True)
class Claim:
    """What a manifest says of a picture.

    title: name of the file. action: what was done, such as "swap". source_type: of
    `pictures.xmp`. parent: what it was made from, or None.
    """

    title: str
    action: str
    source_type: str
    parent: Parent | None = None


@dataclass(frozen=True)
class Signature:
    """What was found in a file.

    state: "none", "valid" (intact), "invalid" (changed after signing), "unreadable".
    signer: name in the certificate. trusted: whether the certificate is on a trust list.
    problems: C2PA status codes of the failures. source_types: stated by its actions.
    """

    state: str
    signer: str = ""
    trusted: bool = False
    problems: tuple[str, ...] = ()
    source_types: tuple[str, ...] = ()


def available() -> bool:
    """Whether c2pa-python (extra "provenance") is installed."""
    return find_spec("c2pa") is not None


def parent_of(photo: Path, signer: Credentials) -> Parent | None:
    """The photo of a picture; None for a format that C2PA does not know.

    A photo's own manifest is tried out first: a damaged one must not fail a finished job.
    """
    c2pa = _library()
    mime = _photo_mime(photo, c2pa)
    if not mime:
        return None
    parent = Parent(photo.name, mime, read_bytes(photo, most=MAX_PICTURE))
    if inspect(parent.data, mime).state == "none":
        return parent
    try:
        claim = Claim("trial.png", "trial", COMPOSITE, parent)
        _signed(c2pa, encoded(np.zeros((1, 1, 3), np.uint8), ".png", {}, ""), PNG, claim, signer)
    except c2pa.C2paError:
        pixels = read_photo(photo).pixels
        return Parent(photo.name, PNG, encoded(pixels, ".png", {}, ""), kept=False)
    return parent


def signed(data: bytes, mime: str, claim: Claim, signer: Credentials) -> bytes:
    """The file with a manifest: about 3 KB more. A photo's own manifest is kept as ingredient.

    Raises ExtraMissing without c2pa-python, OutputError if signing fails.
    """
    c2pa = _library()
    try:
        return _signed(c2pa, data, mime, claim, signer)
    except c2pa.C2paError as error:
        reason = sentence(error, 200)
        raise OutputError(f"The C2PA manifest cannot be signed: {reason} Or --c2pa off.") from None


def _signed(c2pa: Any, data: bytes, mime: str, claim: Claim, signer: Credentials) -> bytes:
    manifest: dict[str, Any] = {
        "title": claim.title,
        "claim_generator_info": [{"name": "understudy", "version": __version__}],
    }
    agent = {"name": "understudy", "version": __version__}
    if claim.parent:
        kind = SOURCE_TYPES + claim.source_type
        done = {"action": "c2pa.edited", "softwareAgent": agent, "digitalSourceType": kind}
        done["parameters"] = {"description": claim.action}
        manifest["assertions"] = [{"label": "c2pa.actions.v2", "data": {"actions": [done]}}]
    builder = c2pa.Builder(manifest, c2pa.Context.from_dict(OFFLINE))
    if claim.parent:
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        told = {"title": claim.parent.name, "relationship": "parentOf"}
        builder.add_ingredient(told, claim.parent.mime, io.BytesIO(claim.parent.data))
    else:
        sources = {member.name: member for member in c2pa.C2paDigitalSourceType}
        name = "".join(f"_{c}" if c.isupper() else c for c in claim.source_type).upper()
        builder.set_intent(c2pa.C2paBuilderIntent.CREATE, sources[name])
    signing = c2pa.C2paSigningAlg[signer.algorithm]
    info = c2pa.C2paSignerInfo(signing, signer.certificates, signer.key, None)
    result = io.BytesIO()
    builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(data), result)
    return result.getvalue()


def inspect(data: bytes, mime: str) -> Signature:
    """What the manifest of a file says, and whether the file is as it was signed."""
    c2pa = _library()
    try:
        reader = c2pa.Reader(mime, io.BytesIO(data), context=c2pa.Context.from_dict(OFFLINE))
        told = parse_json(reader.json(), "The C2PA manifest", error=PictureError)
    except c2pa.C2paError as error:
        text = " ".join(str(error).split())
        if "ManifestNotFound" in text:
            return Signature("none")
        return Signature("unreadable", problems=(text[:200],))
    try:
        MANIFESTS.check(told, "the C2PA manifest")
    except spec.Unfit as problem:
        return Signature("unreadable", problems=(str(problem),))
    active = told.get("manifests", {}).get(told.get("active_manifest"), {})
    codes = tuple(status["code"] for status in told.get("validation_status", []))
    problems = tuple(code for code in codes if code != "signingCredential.untrusted")
    actions: list[Any] = []
    for assertion in active.get("assertions", []):
        data = assertion["data"]
        listed = data.get("actions") if isinstance(data, dict) else None
        if assertion["label"].startswith("c2pa.actions") and isinstance(listed, list):
            actions += listed
    kinds = (
        str(action.get("digitalSourceType", "")) for action in actions if isinstance(action, dict)
    )
    return Signature(
        state="valid" if told.get("validation_state") in ("Valid", "Trusted") else "invalid",
        signer=str(active.get("signature_info", {}).get("common_name", "")),
        trusted=told.get("validation_state") == "Trusted",
        problems=problems,
        source_types=tuple(kind.removeprefix(SOURCE_TYPES) for kind in kinds if kind),
    )


def _library() -> Any:
    try:
        import c2pa
    except ImportError:
        raise ExtraMissing("provenance", "C2PA manifests") from None
    return c2pa


def _photo_mime(photo: Path, c2pa: Any) -> str:
    """The type of the photo's file where c2pa can read it; empty otherwise."""
    head = first_bytes(photo, 16, error=PictureError)
    starts = {
        b"\xff\xd8": "image/jpeg",
        b"\x89PNG": "image/png",
        b"II*\0": "image/tiff",
        b"MM\0*": "image/tiff",
        b"GIF8": "image/gif",
    }
    found = next((mime for start, mime in starts.items() if head.startswith(start)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        found = "image/webp"
    if head[4:8] == b"ftyp":
        found = "image/avif" if head[8:11] == b"avi" else "image/heic"
    return found if found in c2pa.Builder.get_supported_mime_types() else ""
