"""A restricted pickle machine that makes plain values only: nothing is imported or called.

A pickle is a program. Python's own unpickler runs it: it imports what the program names and calls
it. This machine reads the same instructions and knows a table of names, each with a function *of
ours* that says what such a call stands for. Any other name ends the reading, with that name in
the message, before anything else happens; so does any instruction that the writers we know of
never use. Lengths are checked against the bytes that are there, and the number of instructions
has a limit. Knows nothing of tensors or files: see `torch_files`.
"""

from __future__ import annotations

import io
import mmap
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from understudy.errors import ModelError

PROTOCOLS = (2, 3, 4, 5)
MAX_OPERATIONS = 1_000_000  # a real file of three networks has less than 100,000
MAX_MESSAGE = 220  # letters
MAX_INTEGER = 64  # bytes; the longest of a real file has ten
KEYS = (str, int, float, bool, bytes, type(None))
Stream = io.BytesIO | mmap.mmap
Call = Callable[[tuple[Any, ...]], object]


class Unsafe(ModelError):
    """Why a file is not read; the message lacks the file's name, which the caller knows.

    A stranger's words in it are cut and lose whatever a terminal would obey.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in message)[:MAX_MESSAGE])


class Foreign(Unsafe):
    """A file of a kind that holds no generator at all, like a picture."""


@dataclass(frozen=True)
class Global:
    """A name in a pickle ("torch FloatStorage"): a word, not the thing it names."""

    name: str


class Standin:
    """What a call of a known name gives, where the pickle sets its state afterwards."""

    def build(self, state: object) -> None:
        """Take the state that follows the call. Raises Unsafe unless it is the one expected."""
        raise Unsafe(
            f"it sets the state of a {type(self).__name__}, which no supported program writes"
        )


def unpickle(
    stream: Stream,
    calls: Mapping[str, Call | None],
    persistent: Callable[[object], object] | None = None,
) -> Any:
    """Read one pickle from where stream stands; stream then stands behind it.

    calls: for each name that may occur ("collections OrderedDict") what a call of it gives, or
    None where it is only mentioned. persistent: what a persistent id stands for. Raises Unsafe.
    """
    machine = _Machine(calls, persistent, _length(stream))
    try:
        for count, (code, argument, position) in enumerate(pickletools.genops(cast(Any, stream))):
            if count == 0 and code.name != "PROTO":
                raise Unsafe("it is not a pickle of protocol 2 or later")
            if count > MAX_OPERATIONS:
                raise Unsafe(f"its pickle has more than {MAX_OPERATIONS:,} instructions")
            if code.name == "STOP":
                return machine.result()
            machine.step(code.name, argument, position or 0)
    except (ValueError, OverflowError, UnicodeError, IndexError) as error:
        if isinstance(error, Unsafe):
            raise
        raise Unsafe(f"its pickle is cut short or damaged ({str(error)[:100]})") from None
    raise Unsafe("its pickle has no end")


def refuse_arguments(name: str, arguments: object) -> Unsafe:
    """The error for a known name that is called in a way no known writer uses."""
    return Unsafe(
        f"it calls {name} with arguments that no supported program writes: {kind(arguments)}"
    )


def kind(value: object) -> str:
    """A word or two for a message: the type, never the contents."""
    if isinstance(value, tuple):
        values = cast(tuple[object, ...], value)
        return "(" + ", ".join(type(item).__name__ for item in values[:8]) + ")"
    return type(value).__name__


def parts(value: object) -> tuple[Any, ...]:
    """The items of a tuple; none for anything else."""
    return cast(tuple[Any, ...], value) if isinstance(value, tuple) else ()


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(
        self,
        calls: Mapping[str, Call | None],
        persistent: Callable[[object], object] | None,
        length: int,
    ) -> None:
        self.calls, self.persistent, self.length = calls, persistent, length
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise Unsafe("its pickle ends with values left over")
        return self.stack[0]

    def step(self, name: str, argument: Any, position: int) -> None:
        """Carry out one instruction."""
        if name in _PUSH:
            self.stack.append(argument)
        elif name in _CONSTANT:
            self.stack.append(_CONSTANT[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name == "FRAME":
            if argument > self.length - position:
                raise Unsafe("its pickle announces more bytes than there are")
        elif name == "PROTO":
            if argument not in PROTOCOLS:
                raise Unsafe(f"its pickle is of protocol {argument}; expected one of {PROTOCOLS}")
        elif name == "INST":
            self.known(argument)
            raise Unsafe("its pickle uses the instruction INST, which no known writer does")
        else:
            raise Unsafe(f"its pickle uses the instruction {name}, which no known writer does")

    def known(self, name: str) -> Global:
        """A name, if it is in the table; this is the only door for names."""
        if name not in self.calls:
            shown = name.replace(" ", ".", 1)
            raise Unsafe(f"it names {shown[:100]}, which is not on the list of allowed names")
        return Global(name)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Unsafe("its pickle takes values that are not there")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Unsafe("its pickle takes values that are not there")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise Unsafe("its pickle closes a list that was not opened")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def call(self) -> None:
        """REDUCE and NEWOBJ: a name and a tuple become what the table says."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise Unsafe(f"it calls a value ({kind(function)}), not a name")
        made = self.calls[function.name]
        if made is None:
            raise Unsafe(f"it calls {function.name.replace(' ', '.')}, which is only a name")
        self.stack.append(made(cast(tuple[Any, ...], arguments)))

    def build(self) -> None:
        """BUILD: only stand-ins of ours take a state; torch's notes on a state_dict are let go."""
        state, made = self.pop(), self.top()
        if isinstance(made, Standin):
            made.build(state)
        elif not (isinstance(made, dict) and isinstance(state, dict) and set(state) <= _NOTES):
            raise Unsafe(f"it sets the state of a {kind(made)}, which no known writer does")

    def remember(self, index: int) -> None:
        if index > MAX_OPERATIONS:
            raise Unsafe(f"its pickle has a memo of {index:,} entries")
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Unsafe("its pickle uses a memo entry that was not set")
        self.stack.append(self.memo[index])

    def pair(self) -> None:
        """STACK_GLOBAL: module and name are text on the stack; no dots are followed."""
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str) or " " in module:
            raise Unsafe(f"it names something by {kind((module, name))}, not by two texts")
        self.stack.append(self.known(f"{module} {name}"))

    def refer(self) -> None:
        if self.persistent is None:
            raise Unsafe("it refers to data outside itself (a persistent id)")
        self.stack.append(self.persistent(self.pop()))

    def extend(self, values: list[Any]) -> None:
        made = self.top()
        if not isinstance(made, list):
            raise Unsafe(f"it appends to a {kind(made)}")
        made.extend(values)

    def add(self, values: list[Any]) -> None:
        made = self.top()
        if not isinstance(made, set):
            raise Unsafe(f"it adds to a {kind(made)}")
        made.update(checked_key(value) for value in values)

    def put(self, values: list[Any]) -> None:
        made = self.top()
        if not isinstance(made, dict) or len(values) % 2:
            raise Unsafe(f"it sets items of a {kind(made)}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            made[checked_key(key)] = value

    def group(self, count: int) -> None:
        self.stack.append(tuple(reversed([self.pop() for _ in range(count)])))

    def whole(self, value: int) -> None:
        if value.bit_length() > 8 * MAX_INTEGER:
            raise Unsafe(f"its pickle holds a whole number of {value.bit_length() // 8:,} bytes")
        self.stack.append(value)


def checked_key(key: object) -> object:
    """A key of a dictionary or an item of a set: plain, so that its hash is quick and shallow."""
    if not isinstance(key, KEYS):
        raise Unsafe(f"it uses a {kind(key)} as a key")
    return key


_NOTES = {"_metadata"}
_PUSH = set(
    "BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_CONSTANT: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": lambda: (),
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.group(1),
    "TUPLE2": lambda m, _: m.group(2),
    "TUPLE3": lambda m, _: m.group(3),
    "LONG1": lambda m, value: m.whole(value),
    "LONG4": lambda m, value: m.whole(value),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "ADDITEMS": lambda m, _: m.add(m.since_mark()),
    "SETITEM": lambda m, _: m.put([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.put(m.since_mark()),
    "BINGET": lambda m, index: m.recall(index),
    "LONG_BINGET": lambda m, index: m.recall(index),
    "BINPUT": lambda m, index: m.remember(index),
    "LONG_BINPUT": lambda m, index: m.remember(index),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "GLOBAL": lambda m, name: m.stack.append(m.known(name)),
    "STACK_GLOBAL": lambda m, _: m.pair(),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.refer(),
}


def _length(stream: Stream) -> int:
    return len(stream) if isinstance(stream, mmap.mmap) else stream.getbuffer().nbytes
