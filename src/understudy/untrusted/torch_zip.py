"""Checks a PyTorch zip archive before anything is read from it.

PyTorch stores its members uncompressed, each once, below one folder. Whatever differs is refused,
so that no member expands, hides behind another of its name, or means a path.
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
from typing import BinaryIO

from understudy.untrusted.unpickling import Unsafe

NAMES = frozenset(
    "data.pkl version byteorder .format_version .storage_alignment .data/serialization_id".split()
)
DATA = re.compile(r"data/[0-9A-Za-z_]{1,40}")
ROOT = re.compile(r"[\w .+-]{1,200}")
SCRIPTED = re.compile(r"(code/.*|constants\.pkl|constants/.*|model\.json)")
LOCAL = struct.Struct("<4sHHHHHIIIHH")
IN_CENTRAL = 0xFFFFFFFF  # a size that is told elsewhere
ENCRYPTED, LATER = 1, 8  # flags: encrypted; sizes behind the member


def members(file: BinaryIO) -> tuple[zipfile.ZipFile, str]:
    """The archive and its one folder. Raises Unsafe unless it is as PyTorch writes it."""
    try:
        archive = zipfile.ZipFile(file)
        infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise Unsafe(f"its zip archive is damaged or cut short ({error})") from None
    names = [info.filename for info in infos]
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or not ROOT.fullmatch(root := roots.pop()) or root.strip(".") == "":
        raise Unsafe("its zip archive is not one that PyTorch writes (one folder of members)")
    inside = [name[len(root) + 1 :] for name in names]
    if any(SCRIPTED.fullmatch(name) for name in inside):
        raise Unsafe("it is a TorchScript archive, which holds a program; expected weights")
    if "data.pkl" not in inside:
        raise Unsafe("its zip archive holds no data.pkl, so PyTorch did not write it")
    if len(set(names)) != len(names):
        raise Unsafe("its zip archive holds two members of one name")
    for name in inside:
        if name not in NAMES and not DATA.fullmatch(name):
            raise Unsafe(f"its zip archive holds a member that PyTorch never writes: {name[:60]!r}")
    _check_apart(infos, file.seek(0, os.SEEK_END))
    for info in infos:
        _check_plain(info, file)
    if "byteorder" in inside and member(archive, f"{root}/byteorder") != b"little":
        raise Unsafe("it was written by a big-endian machine")
    return archive, root


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The contents of a member. Raises Unsafe where they do not fit their checksum."""
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        raise Unsafe(f"its zip archive is damaged ({error})") from None


def _check_plain(info: zipfile.ZipInfo, file: BinaryIO) -> None:
    """Stored, not encrypted, and told alike in the directory and in front of the member."""
    if info.flag_bits & ENCRYPTED:
        raise Unsafe("its zip archive is encrypted")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise Unsafe("its zip archive is compressed, which PyTorch never does")
    file.seek(info.header_offset)
    head = file.read(LOCAL.size)
    if len(head) != LOCAL.size or head[:4] != b"PK\x03\x04":
        raise Unsafe("its zip archive is damaged")
    _, _, flags, method, *_, packed, size, _, _ = LOCAL.unpack(head)
    told = {info.file_size, IN_CENTRAL} | ({0} if flags & LATER else set())
    if method != zipfile.ZIP_STORED or flags & ENCRYPTED or not {packed, size} <= told:
        raise Unsafe("its zip archive tells the size of a member in two ways")


def _check_apart(infos: list[zipfile.ZipInfo], length: int) -> None:
    """Members do not lie on one another, so together they are no larger than the file."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise Unsafe("its zip archive has members that lie on one another")
        end = info.header_offset + LOCAL.size + info.file_size
    if end > length:
        raise Unsafe("its zip archive is cut short")
