"""How annotations are checked while tests run: an int is a fine float, as every checker has it.

Each function is checked in its first calls of a test. Loops call a function with the same shapes
again and again, and checks of every call took a third of the suite's processor time.

The checks of a function are made once, at its first call. Most functions are never called in a
process; and a function that another one defines is a new one each time, with the same code.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 3  # of a function in a test

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
decorated_by_jaxtyping = jaxtyping.jaxtyped
_test = 0  # a number for each test


def begin_test() -> None:
    """Let the next calls of every function be checked."""
    global _test
    _test += 1


def install() -> None:
    """Make jaxtyping's import hook, which checks every call, check the first ones of a test."""
    jaxtyping.jaxtyped = jaxtyped


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """Stands for the decorator that the import hook puts on every function and class."""
    return functools.partial(_decorated, typechecker)


def _decorated(typechecker: Any, found: Any) -> Any:
    if inspect.isfunction(found):
        return _limited(typechecker, found)
    if dataclasses.is_dataclass(found) and inspect.isfunction(vars(found).get("__init__")):
        found.__init__ = _limited(typechecker, found.__init__)  # pyright: ignore
        return found
    return decorated_by_jaxtyping(found, typechecker=typechecker)


@dataclass
class _Code:
    """What is known of functions with the same code: calls of a test, and the checked call.

    chosen: has, in each thread, the `function` that is called behind the checks.
    """

    code: CodeType
    test: int = -1
    calls: int = 0
    checked: Callable[..., Any] | None = None
    chosen: threading.local = field(default_factory=threading.local)


_codes: dict[int, _Code] = {}  # by identity: codes of other functions may be equal


def _limited(typechecker: Any, function: Any) -> Callable[..., Any]:
    code = _codes.setdefault(id(function.__code__), _Code(function.__code__))

    def chosen() -> Callable[..., Any]:
        if code.test != _test:
            code.test, code.calls = _test, 0
        code.calls += 1
        if code.calls > CALLS:
            return function
        if code.checked is None:
            passing = _passing_on(function, code.chosen)
            code.checked = decorated_by_jaxtyping(passing, typechecker=typechecker)
        code.chosen.function = function
        return code.checked

    if inspect.isgeneratorfunction(function):
        # A generator function itself, so that torch.no_grad() on it acts as it does without checks.
        @functools.wraps(function)
        def steps(*args: Any, **named: Any) -> Any:
            return (yield from chosen()(*args, **named))

        return steps

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        return chosen()(*args, **named)

    return call


def _passing_on(function: Any, chosen: threading.local) -> Callable[..., Any]:
    """Has the signature and the global names of a function, and calls the one chosen last: of those
    with its code, that is the one whose arguments were checked just before."""

    def call(*args: Any, **named: Any) -> Any:
        return chosen.function(*args, **named)

    names, cells = function.__globals__, call.__closure__
    made = FunctionType(call.__code__, names, function.__name__, None, cells)
    return functools.update_wrapper(made, function)
