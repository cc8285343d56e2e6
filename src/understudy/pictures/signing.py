"""Signed C2PA manifests (Content Credentials), through c2pa-python. Knows nothing of torch.

Nothing is fetched: no time stamp, no remote manifest, no certificate status. Thumbnails are off, so
that no picture of the input travels in the output. Without a key of the user's, a local key with a
self-signed certificate is made once; readers then report "intact, signer unknown".
"""

from __future__ import annotations

import datetime
import io
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from understudy._version import __version__
from understudy.errors import ExtraMissing, InputError, OutputError, PictureError, sentence
from understudy.files import spec
from understudy.files.atomic import replacing
from understudy.files.reading import first_bytes, parse_json, read_bytes
from understudy.pictures.xmp import SOURCE_TYPES

MAX_KEY = 1_000_000  # bytes of a PEM file
YEARS = 10  # that the local certificate is valid
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
class Credentials:
    """What signs: a certificate chain and a private key, both PEM, and the algorithm's name."""

    certificates: bytes
    key: bytes
    algorithm: str


@dataclass(frozen=True)
class Claim:
    """What a manifest says of a picture.

    title: name of the file. action: what was done, such as "swap". source_type: of
    `pictures.xmp`. photo: the file it was made from, or None.
    """

    title: str
    action: str
    source_type: str
    photo: Path | None = None


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


def credentials(pem: str = "") -> Credentials:
    """Of a PEM file with private key and certificate chain; without one, the local key.

    Raises InputError for a file without both, or of a kind of key that C2PA does not allow.
    """
    if not pem:
        return _local(_config_folder() / "signing.pem")
    return _from_pem(read_bytes(pem, most=MAX_KEY), Path(pem))


def signed(data: bytes, mime: str, claim: Claim, signer: Credentials) -> bytes:
    """The file with a manifest: about 3 KB more. A photo's own manifest is kept as ingredient.

    Raises ExtraMissing without c2pa-python, OutputError if signing fails.
    """
    c2pa = _library()
    manifest: dict[str, Any] = {
        "title": claim.title,
        "claim_generator_info": [{"name": "understudy", "version": __version__}],
    }
    agent = {"name": "understudy", "version": __version__}
    kind = SOURCE_TYPES + claim.source_type
    photo_mime = _photo_mime(claim.photo, c2pa)
    if photo_mime:
        done = {"action": "c2pa.edited", "softwareAgent": agent, "digitalSourceType": kind}
        done["parameters"] = {"description": claim.action}
        manifest["assertions"] = [{"label": "c2pa.actions.v2", "data": {"actions": [done]}}]
    try:
        builder = c2pa.Builder(manifest, c2pa.Context.from_dict(OFFLINE))
        if claim.photo is not None and photo_mime:
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            parent = {"title": claim.photo.name, "relationship": "parentOf"}
            builder.add_ingredient(
                parent, photo_mime, io.BytesIO(read_bytes(claim.photo, most=MAX_PICTURE))
            )
        else:
            sources = {member.name: member for member in c2pa.C2paDigitalSourceType}
            name = "".join(f"_{c}" if c.isupper() else c for c in claim.source_type).upper()
            builder.set_intent(c2pa.C2paBuilderIntent.CREATE, sources[name])
        signing = c2pa.C2paSigningAlg[signer.algorithm]
        info = c2pa.C2paSignerInfo(signing, signer.certificates, signer.key, None)
        result = io.BytesIO()
        builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(data), result)
    except c2pa.C2paError as error:
        reason = sentence(error, 200)
        raise OutputError(f"The C2PA manifest cannot be signed: {reason} Or --c2pa off.") from None
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


def _photo_mime(photo: Path | None, c2pa: Any) -> str:
    """The type of the photo's file where c2pa can read it; empty otherwise."""
    if photo is None:
        return ""
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


def _from_pem(data: bytes, file: Path) -> Credentials:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    wanted = f"{file} needs a private key without a password and its certificate chain, as PEM"
    try:
        key = serialization.load_pem_private_key(data, password=None)
        chain = x509.load_pem_x509_certificates(data)
    except (ValueError, TypeError) as error:
        raise InputError(f"{wanted}. Got: {sentence(error, 120)}") from None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = {256: "ES256", 384: "ES384", 521: "ES512"}.get(key.curve.key_size, "")
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "PS256" if key.key_size >= 2048 else ""
    else:
        algorithm = "ED25519" if isinstance(key, ed25519.Ed25519PrivateKey) else ""
    if not algorithm:
        kinds = "EC P-256, P-384, P-521, RSA of 2048 bits or more, Ed25519"
        raise InputError(f"{file}: C2PA does not allow this kind of key. Wanted one of {kinds}.")
    if chain[0].public_key() != key.public_key():
        raise InputError(f"{file}: the first certificate does not belong to the private key.")
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(b"".join(one.public_bytes(pem) for one in chain), plain, algorithm)


@cache
def _local(file: Path) -> Credentials:
    """The key of this installation, made when it is first needed; readable by its owner alone.

    Where it cannot be kept (a read-only or full home), a key for this process alone signs.
    """
    if file.exists():
        return _from_pem(read_bytes(file, most=MAX_KEY), file)
    pem = _new_key()
    with suppress(OutputError), replacing(file) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes(pem)
    return _from_pem(pem, file)


def _new_key() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "understudy"),
            x509.NameAttribute(NameOID.COMMON_NAME, "understudy, local key"),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    usage = {
        name: name == "digital_signature"
        for name in "digital_signature content_commitment key_encipherment data_encipherment "
        "key_agreement key_cert_sign crl_sign encipher_only decipher_only".split()
    }
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return plain + certificate.public_bytes(pem)


def _config_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "understudy"
