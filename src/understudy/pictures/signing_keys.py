"""Keys that sign pictures: the user's, or a local one with a self-signed certificate.

The local key is made once; readers of what it signs report "intact, signer unknown".
"""

from __future__ import annotations

import datetime
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from understudy.errors import InputError, OutputError, sentence
from understudy.files.atomic import replacing
from understudy.files.reading import read_bytes

MAX_KEY = 1_000_000  # bytes of a PEM file
YEARS = 10  # that the local certificate is valid


@dataclass(frozen=True)
class Credentials:
    """What signs: a certificate chain and a private key, both PEM, and the algorithm's name."""

    certificates: bytes
    key: bytes
    algorithm: str


def credentials(pem: str = "") -> Credentials:
    """Of a PEM file with private key and certificate chain; without one, the local key.

    Raises InputError for a file without both, or of a kind of key that C2PA does not allow.
    """
    if not pem:
        return _local(_config_folder() / "signing.pem")
    return _from_pem(read_bytes(pem, most=MAX_KEY), Path(pem))


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
        raise InputError(f"{file}: C2PA does not allow this kind of key. Expected one of {kinds}.")
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
