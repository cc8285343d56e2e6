"""Opens all files that a user names, except pictures: regular, bounded, or one clear error.

Devices, FIFOs, links that never end, names that are too long and folders without permission
raise the caller's error, never an OSError. JSON has a depth and a size limit.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from understudy.errors import InputError, UnderstudyError

MAX_JSON = 16 * 2**20  # bytes
MAX_DEPTH = 64  # lists and objects inside each other
MAX_TENSORS = 64 * 2**30  # bytes of a safetensors file
REASONS = {
    errno.ENOENT: "there is no such file; check the path",
    errno.ENOTDIR: "a part of that path is a file, not a folder; check the path",
    errno.ENAMETOOLONG: "the name is too long; give a name of at most 255 bytes",
    errno.EACCES: "no permission to read it; change the permissions of it or of its folder",
    errno.EPERM: "no permission to read it; change the permissions of it or of its folder",
    errno.ELOOP: "its links lead in a circle; give the file itself",
    errno.EISDIR: "it is a folder; give a file",
}
# A string, whole or cut off (it never backtracks), or one bracket outside strings.
_BRACKET = re.compile(r'"(?:[^"\\]+|\\.)*"?|[\[\]{}]', re.DOTALL)
_HALF = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # of a surrogate pair, or the whole of it
Kind = type[UnderstudyError]


def check_regular(
    path: str | os.PathLike[str], *, most: int = MAX_TENSORS, error: Kind = InputError
) -> Path:
    """Raise `error`, naming the file, unless it is a regular file of at most `most` bytes."""
    file = Path(path)
    try:
        _check(file, os.stat(file), most, error)
        if not os.access(file, os.R_OK):
            raise PermissionError(errno.EACCES, "may not be read")
    except (OSError, ValueError) as problem:
        raise _refusal(file, problem, error) from problem
    return file


def check_place(path: str | os.PathLike[str], *, error: Kind = InputError) -> None:
    """Raise `error` where the system does not even tell whether something is at `path`: a name
    that is too long, a folder without permission, links in a circle. A missing file is fine."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as problem:
        raise _refusal(Path(path), problem, error) from problem


def system_reason(problem: OSError) -> str | None:
    """One line for an error of the system about a file that was given; None for any other."""
    if problem.filename is None or problem.errno not in REASONS:
        return None
    return str(_refusal(Path(os.fsdecode(problem.filename)), problem, InputError))


def read_bytes(
    path: str | os.PathLike[str], *, most: int = MAX_JSON, error: Kind = InputError
) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises `error`, naming the file.

    The file is opened without waiting and checked after opening, so it cannot be exchanged for a
    FIFO or a device in between.
    """
    file = Path(path)
    try:
        with open(_opened(file), "rb") as stream:
            _check(file, os.fstat(stream.fileno()), most, error)
            data = stream.read(most + 1)
    except (OSError, ValueError) as problem:
        raise _refusal(file, problem, error) from problem
    if len(data) > most:
        raise error(f"{file} has more than {most:,} bytes. Give the right file.")
    return data


def read_json(
    path: str | os.PathLike[str], *, most: int = MAX_JSON, error: Kind = InputError
) -> Any:
    """What a JSON file holds. Raises `error`: no regular file, too large, too deep, no JSON."""
    return parse_json(read_bytes(path, most=most, error=error), str(path), most=most, error=error)


def parse_json(
    text: str | bytes, name: str, *, most: int = MAX_JSON, error: Kind = InputError
) -> Any:
    """What JSON text says. Raises `error`, beginning with `name`: too large, too deep, no JSON.

    The depth is counted before parsing, so that the parser's recursion is bounded.
    """
    if len(text) > most:
        raise error(f"{name} has {len(text):,} bytes of JSON; at most {most:,} are read.")
    try:
        plain = text.decode("utf-8") if isinstance(text, bytes) else text
        if _depth(plain) > MAX_DEPTH:
            raise error(f"{name} is nested more than {MAX_DEPTH} levels deep. It was altered.")
        found = json.loads(plain)
        if _HALF.search(plain):  # half a character cannot be written anywhere, nor be hashed
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except (ValueError, RecursionError) as problem:
        if isinstance(problem, UnderstudyError):
            raise
        raise error(f"{name} cannot be read as JSON: {problem}.") from problem


def sha256(
    path: str | os.PathLike[str], *, most: int = MAX_TENSORS, error: Kind = InputError
) -> str:
    """The SHA-256 of a regular file, in hexadecimal. Raises `error`, naming the file."""
    file = Path(path)
    try:
        with open(_opened(file), "rb") as stream:
            _check(file, os.fstat(stream.fileno()), most, error)
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as problem:
        raise _refusal(file, problem, error) from problem


def first_bytes(path: str | os.PathLike[str], count: int, *, error: Kind = InputError) -> bytes:
    """The first bytes of a regular file of any size. Raises `error`, naming the file."""
    file = Path(path)
    try:
        with open(_opened(file), "rb") as stream:
            _check(file, os.fstat(stream.fileno()), MAX_TENSORS, error)
            return stream.read(count)
    except (OSError, ValueError) as problem:
        raise _refusal(file, problem, error) from problem


def as_json(value: Any) -> Any:
    """What a JSON file gives back of a value of ours: lists for tuples, text for keys."""
    return json.loads(json.dumps(value))


def _opened(file: Path) -> int:
    """A descriptor; opening does not wait, as it would for a FIFO."""
    return os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))


def _check(file: Path, found: os.stat_result, most: int, error: Kind) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{file} is not an ordinary file. Give a file on a disk.")
    if found.st_size > most:
        raise error(f"{file} has {found.st_size:,} bytes; at most {most:,} are read.")


def _refusal(file: Path, problem: Exception, error: Kind) -> UnderstudyError:
    if isinstance(problem, UnderstudyError):
        return problem
    number = problem.errno if isinstance(problem, OSError) else None
    reason = REASONS.get(number or 0, str(problem))
    shown = str(file)
    shown = shown if len(shown) < 400 else f"{shown[:200]}...{shown[-40:]}"
    return error(f"{shown} cannot be read: {reason}.")


def _depth(text: str) -> int:
    """How deep lists and objects go; brackets inside strings do not count."""
    deepest = depth = 0
    for found in _BRACKET.finditer(text):
        if found[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in "]}":
            depth -= 1
    return deepest
