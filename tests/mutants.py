"""Seeded mutants of files, and the check that a loader survives them.

A mutant differs from a good file by random bytes, by a changed value of its JSON, or by a changed
entry of its safetensors header. A loader survives it when it gives a value that can be used, or
raises an error of the project in one printable line, within SECONDS.
"""

from __future__ import annotations

import copy
import json
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.errors import UnderstudyError

SECONDS = 5  # for one mutant
# Mutants a loader: in CI, of a network; of all else; behind the marker `slow`.
FEW, COUNT, MANY = 150, 500, 5_000
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 64, 65_536, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e-300,
    1e308, float("nan"), float("inf"), float("-inf"), "", "x", "1", "nan", "a" * 5_000,
    "\x1b[2J\x07", "new\nline", "\u202e\u2028\x00", "../../etc/passwd", "/dev/zero", "\ud800",
    [], [[]], [1, 2, 3], ["x"], {}, {"x": 1}, [[1, 2], [3, 4]], [None], [0.5, -1],
)  # fmt: skip
DTYPES = "BOOL U8 I8 I16 I32 I64 F16 BF16 F32 F64 U64 F8_E4M3 F8_E5M2 F4 C64 X99".split()


@dataclass
class Tally:
    """What came of the mutants of one loader."""

    loaded: int = 0
    refused: int = 0


class Hang(BaseException):
    """A mutant took longer than SECONDS. Not an Exception, so that no loader catches it."""


def survive(
    load: Callable[[], object], kinds: tuple[type[UnderstudyError], ...], name: str, tally: Tally
) -> None:
    """Call `load` on a mutant. AssertionError, naming it, unless it survives."""

    def expired(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        load()
        tally.loaded += 1
    except kinds as error:
        message = str(error)
        assert message.isprintable() and len(message) < 3_000, f"{name}: {message!r}"
        tally.refused += 1
    except Hang:
        raise AssertionError(f"{name}: more than {SECONDS} seconds") from None
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated_bytes(data: bytes, draw: random.Random) -> bytes:
    """Some bytes changed, removed, repeated or inserted, or the end cut off."""
    changed = bytearray(data)
    if draw.random() < 0.15:
        return data[: draw.randrange(len(data))]
    for _ in range(draw.choice((1, 1, 1, 2, 5, 20))):
        if not changed:
            break
        # Most of a tensor file is tensors: look at its beginning more often.
        end = len(changed) if draw.random() < 0.4 else min(len(changed), 1_000)
        at, there, length = draw.randrange(end), draw.randrange(end), draw.randrange(1, 9)
        what = draw.choice((b"", bytes(changed[there : there + length]), draw.randbytes(length)))
        changed[at : at + draw.choice((0, length))] = what
    return bytes(changed)


def mutated_json(value: Any, draw: random.Random) -> Any:
    """A copy of a JSON value with one or a few of its places changed."""
    whole = [copy.deepcopy(value)]
    for _ in range(draw.choice((1, 1, 1, 1, 2, 3))):
        _change(whole, draw)
    return whole[0]


def as_text(value: Any) -> str:
    """JSON of a mutant, which may hold NaN, infinity and lone surrogates."""
    return json.dumps(value)


def mutated_tensors(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file with a changed header, changed notes, or odd numbers among the tensors."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    names = [name for name in header if name != "__metadata__"]
    name = draw.choice(names)
    kind = draw.randrange(10)
    if kind == 0:
        del header[name]
    elif kind == 1:
        other = draw.choice([*names, "x", "ws", "../a", "a\x1b[2J", "", "past.1.front", "tail"])
        header[other] = header.pop(name)
    elif kind == 2:
        header[name]["dtype"] = draw.choice(DTYPES)
    elif kind == 3:
        shape = header[name]["shape"]
        options = [shape[::-1], [1, *shape], shape[1:], [], [0], [2**62, 4], [-1], [*shape, 1]]
        header[name]["shape"] = draw.choice(options)
    elif kind == 4:  # NaN, infinity or a huge number in the tensor
        first, last = header[name]["data_offsets"]
        odd = draw.choice((b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f", b"\x00\x7e\x00\x7e"))
        at = first + 4 * draw.randrange(max(1, (last - first) // 4))
        body[at : at + 4] = odd[: last - at]
    elif kind in (5, 6, 7, 8) and header.get("__metadata__"):
        _change_note(header["__metadata__"], draw)
    else:
        header = mutated_json(header, draw)
    text = as_text(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(body)


def _change_note(notes: dict[str, str], draw: random.Random) -> None:
    """One note changed; one that is JSON text is changed inside."""
    name = draw.choice(sorted(notes, key=len)[-2:])
    try:
        inner = json.loads(notes[name])
    except ValueError:
        inner = None
    if isinstance(inner, dict) and draw.random() < 0.9:
        notes[name] = as_text(mutated_json(inner, draw))
    else:
        notes[name] = draw.choice(("", "{", "[]", "null", "1", "[" * 100, "\x1b[2J", "NaN"))


def _change(whole: list[Any], draw: random.Random) -> None:
    """Change one place below `whole[0]`: another value, removed, added, doubled, or renamed."""
    holders: list[tuple[Any, Any]] = []
    _collect(whole, holders)
    holder, key = draw.choice(holders)
    kind = draw.random()
    if kind < 0.55 or holder is whole:
        value = draw.choice(ODD)
        number = holder[key]
        if isinstance(number, int | float) and not isinstance(number, bool) and draw.random() < 0.5:
            value = draw.choice((number + 1, number - 1, -number, number * 1000, float(number)))
        holder[key] = copy.deepcopy(value)
    elif kind < 0.75:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(draw.choice((holder[key], *ODD))))
    elif kind < 0.9:
        holder[draw.choice(("x", "format", "\x1b[2J", "", "__class__"))] = draw.choice(ODD)
    else:
        holder[draw.choice(("x", "", str(key) + "s"))] = holder.pop(key)


def _collect(holder: Any, found: list[tuple[Any, Any]]) -> None:
    for key in holder if isinstance(holder, dict) else range(len(holder)):
        found.append((holder, key))
        if isinstance(holder[key], dict | list):
            _collect(holder[key], found)


def mutants(
    file: Path, count: int, seed: int, kinds: tuple[Callable[[bytes, random.Random], bytes], ...]
) -> list[tuple[str, bytes]]:
    """`count` mutants of a file, each with a name that says how to make it again."""
    whole, found = file.read_bytes(), list[tuple[str, bytes]]()
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        change = kinds[number % len(kinds)]
        found.append((f"mutant {number} of {file.name} ({change.__name__})", change(whole, draw)))
    return found


def json_file(data: bytes, draw: random.Random) -> bytes:
    """A JSON file with a changed value."""
    return as_text(mutated_json(json.loads(data), draw)).encode()


def json_lines(data: bytes, draw: random.Random) -> bytes:
    """A file of JSON lines with a changed line."""
    lines = data.decode().split("\n")
    at = draw.randrange(len(lines) - 1)
    lines[at] = as_text(mutated_json(json.loads(lines[at]), draw))
    return "\n".join(lines).encode()
