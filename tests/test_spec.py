"""Declarations of file contents: what fits passes, everything else is one printable line."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from understudy.files import spec

CASES: tuple[tuple[spec.Kind, tuple[Any, ...], tuple[Any, ...]], ...] = (
    (spec.Text(most=3), ("", "abc"), ("abcd", 1, None, b"a", "\ud800")),
    (spec.Text(pattern="[a-z]+"), ("abc",), ("", "Abc", "abc\n")),
    (spec.Text(choices=("a", "b")), ("a",), ("c", "", ["a"])),
    (
        spec.Number(0, 10),
        (0, 10, 2.5),
        (-1, 11, True, "1", math.nan, math.inf, None, 10**5000, [1]),
    ),
    (spec.Number(1, 9, whole=True), (1, 9), (2.0, 0, False, math.nan)),
    (spec.Flag(), (True, False), (0, 1, "true", None)),
    (spec.Maybe(spec.Flag()), (None, True), (1,)),
    (spec.Items(spec.Number(), 1, 2), ([1], (1, 2)), ([], [1, 2, 3], ["a"], {}, "ab")),
    (spec.Table(spec.Number(), "[a-z]"), ({}, {"a": 1}), ({"ab": 1}, {"a": "b"}, [], None)),
    (
        spec.Record({"a": spec.Flag()}, {"b": spec.Number()}),
        ({"a": True}, {"a": True, "b": 1}),
        ({}, {"a": 1}, {"a": True, "b": "x"}, {"a": True, "c": 1}, [], "a"),
    ),
    (spec.Record({}, others=spec.Number()), ({"x": 1}, {}), ({"x": "y"},)),
    (spec.Data(), (None, {"a": [1]}), ()),
    (spec.Scalar(), (None, True, 1, -0.5, "a"), (math.nan, math.inf, [1], {}, 10**400)),
)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_kinds(case: int) -> None:
    kind, good, bad = CASES[case]
    for value in good:
        kind.check(value, "the field")
    for value in bad:
        with pytest.raises(spec.Unfit) as caught:
            kind.check(value, "the field")
        assert str(caught.value).isprintable() and len(str(caught.value)) < 300


PAIR = (
    spec.Tensors(r"start", "1 rows width", needed=True),
    spec.Tensors(r"past\.\d+", "1 rows width"),
    spec.Tensors(r"(.+)\.A", ".rank _"),
    spec.Tensors(r"(.+)\.B", "_ .rank"),
    spec.Tensors(r"ids", "_", ("int64",)),
    spec.Tensors(r"any", "_ ..."),
    spec.Tensors(r"one", ""),
)
GOOD: dict[str, spec.Told] = {
    "start": ("float32", (1, 4, 8)),
    "past.0": ("float16", (1, 4, 8)),
    "x.A": ("float32", (2, 5)),
    "x.B": ("float32", (7, 2)),
    "y.A": ("float32", (3, 5)),
    "y.B": ("float32", (7, 3)),
    "ids": ("int64", (3,)),
    "any": ("float32", (1, 2, 3, 4)),
    "one": ("float32", ()),
}
BAD: tuple[tuple[str, spec.Told], ...] = (
    ("past.0", ("float32", (1, 4, 9))),
    ("past.0", ("float32", (1, 4))),
    ("past.0", ("float32", (2, 4, 8))),
    ("past.x", ("float32", (1, 4, 8))),
    ("x.B", ("float32", (7, 3))),
    ("ids", ("float32", (3,))),
    ("ids", ("int64", (0,))),
    ("any", ("float32", ())),
    ("one", ("float32", (1,))),
    ("start", ("int8", (1, 4, 8))),
    ("b\x1b[2J\n", ("float32", (1,))),
)


def test_headers() -> None:
    spec.check_headers(GOOD, PAIR)
    for name, told in BAD:
        with pytest.raises(spec.Unfit) as caught:
            spec.check_headers({**GOOD, name: told}, PAIR)
        assert str(caught.value).isprintable()
    with pytest.raises(spec.Unfit, match="no tensor 'start'"):
        spec.check_headers({name: told for name, told in GOOD.items() if name != "start"}, PAIR)
    many = {f"past.{n}": ("float32", (1, 1, 1)) for n in range(spec.MAX_TENSORS + 1)}
    with pytest.raises(spec.Unfit, match="at most"):
        spec.check_headers(many, PAIR)


def test_finite() -> None:
    tensors = {"a": torch.ones(3), "ids": torch.tensor([1])}
    spec.check_finite(tensors)
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(spec.Unfit, match="'a' holds numbers that are not finite"):
            spec.check_finite({"a": torch.tensor([1.0, value])})
