"""The run-time type checks of the tests: which calls they check, and what these then call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

import typechecks

checked: Any = typechecks.jaxtyped(typechecker=typechecks.checked)


def adding(n: int) -> Callable[[Any], Any]:
    """A new function each time, with the same code."""

    @checked
    def add(x: Float[Tensor, "1 n"]) -> Float[Tensor, "1 n"]:
        return (x + n)[0 if n < 0 else slice(None)]

    return add


def test_functions_with_the_same_code_are_checked_and_called_each_for_itself() -> None:
    ones = torch.ones(1, 2)
    for n in range(typechecks.CALLS - 2):
        assert adding(n)(ones).tolist() == [[n + 1, n + 1]]
    for function, wrong in ((adding(1), ones[0]), (adding(-1), ones)):  # the result is wrong
        with pytest.raises(TypeCheckError):
            function(wrong)
    assert adding(1)(ones[0]).tolist() == [2, 2]  # of a test, the first calls are checked


def test_a_test_checks_again_what_the_one_before_has_called() -> None:
    with pytest.raises(TypeCheckError):
        adding(1)(torch.ones(2))


def test_generators_are_checked_and_stay_generators() -> None:
    @checked
    def steps(count: int) -> Iterator[int]:
        yield from range(count)

    assert list(steps(3)) == [0, 1, 2]
    with pytest.raises(TypeCheckError):
        list(steps("3"))


@runtime_checkable
class HasName(Protocol):
    @property
    def name(self) -> str: ...


class Named:
    @property
    @checked
    def name(self) -> str:
        return "x"


def test_the_check_of_an_argument_may_call_a_checked_function() -> None:
    """Whether an object has a property is found out by reading it."""

    @checked
    def named(one: HasName, name: str) -> str:
        return name

    @checked
    def depth(left: int) -> int:
        return left and depth(left - 1) + 1

    assert named(Named(), name="y") == "y" and depth(5) == 5
