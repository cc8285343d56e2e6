"""NumPy values in a pickle: dtypes, scalars and arrays of five plain kinds, checked."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from understudy.untrusted.unpickling import Call, Global, Standin, Unsafe, parts, refuse_arguments

DTYPES = {code: np.dtype(code) for code in ("<f4", "<f8", "<i4", "<i8", "|b1")}
LARGEST = 2**48  # of a size or a stride
Array = np.ndarray[Any, np.dtype[Any]]


class DType(Standin):
    """A NumPy dtype: one of five, little-endian."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.dtype = np.dtype("V1")

    def build(self, state: object) -> None:
        rest = (None, None, None, -1, -1, 0)
        values = parts(state)
        if len(values) != 8 or values[0] != 3 or values[2:] != rest:
            raise Unsafe("it holds a NumPy dtype with fields, a unit or metadata")
        code = f"{values[1]}{self.code}"
        if code not in DTYPES:
            raise Unsafe("it holds numbers of a NumPy dtype that is not read")
        self.dtype = DTYPES[code]


class NumpyArray(Standin):
    """A NumPy array; its state brings shape, dtype and bytes."""

    def __init__(self) -> None:
        self.value: Array = np.empty(0, np.float32)

    def build(self, state: object) -> None:
        values = parts(state)
        if len(values) != 5 or values[0] != 1 or not isinstance(values[2], DType):
            raise Unsafe("it holds a NumPy array of a kind that is not read")
        shape, dtype, fortran, data = sizes(values[1]), values[2].dtype, values[3], values[4]
        if not isinstance(data, bytes) or len(data) != prod(shape) * dtype.itemsize:
            raise Unsafe("it holds a NumPy array whose shape does not fit its bytes")
        order = "F" if fortran is True else "C"
        self.value = np.frombuffer(data, dtype).reshape(shape, order=order)


def sizes(value: object) -> tuple[int, ...]:
    """A tuple of whole numbers, none negative; Unsafe otherwise."""
    values = parts(value)
    if (
        not isinstance(value, tuple)
        or len(values) > 8
        or not all(type(item) is int and 0 <= item < LARGEST for item in values)
    ):
        raise Unsafe("it holds a size or stride that is not a few whole numbers")
    return values


def numpy_dtype(arguments: tuple[Any, ...]) -> DType:
    if len(arguments) != 3 or not isinstance(arguments[0], str):
        raise refuse_arguments("numpy.dtype", arguments)
    return DType(arguments[0])


def numpy_scalar(arguments: tuple[Any, ...]) -> float | int | bool:
    """One number; the pickle has set its dtype's state by now."""
    fits = len(arguments) == 2 and isinstance(arguments[0], DType)
    if not fits or not isinstance(arguments[1], bytes):
        raise refuse_arguments("numpy's scalar", arguments)
    if len(arguments[1]) != arguments[0].dtype.itemsize or arguments[0].dtype.kind == "V":
        raise Unsafe("it holds a NumPy number whose bytes do not fit its dtype")
    return np.frombuffer(arguments[1], arguments[0].dtype)[0].item()


def numpy_array(arguments: tuple[Any, ...]) -> NumpyArray:
    if arguments != (Global("numpy ndarray"), (0,), b"b"):
        raise refuse_arguments("numpy's _reconstruct", arguments)
    return NumpyArray()


NUMPY: Mapping[str, Call | None] = {
    "numpy dtype": numpy_dtype,
    "numpy ndarray": None,
    **{f"numpy.{core}.multiarray scalar": numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray _reconstruct": numpy_array for core in ("core", "_core")},
}
