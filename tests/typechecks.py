"""How annotations are checked while tests run: an int is a fine float, as every checker has it.

Each function is checked in its first calls of a test. Loops call a function with the same shapes
again and again, and checks of every call took a third of the suite's processor time. The code of
a function's checks is made at its first call: most of an import's time went into functions that
no test of the process calls.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
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


def _limited(typechecker: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    every: Callable[..., Any] | None = None
    test, calls = -1, 0

    def chosen() -> Callable[..., Any]:
        nonlocal every, test, calls
        if test != _test:
            test, calls = _test, 0
        calls += 1
        if calls > CALLS:
            return function
        if every is None:
            every = decorated_by_jaxtyping(function, typechecker=typechecker)
        return every

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
