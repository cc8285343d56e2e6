"""PyTorch and NumPy values in a pickle as NumPy arrays: storages, tensors, zip archives.

Three containers: a zip archive (PyTorch 1.6 and later), a legacy stream of five pickles (before),
and such a stream inside a pickle (a module that was pickled). A tensor stays a view, checked
against its storage, until somebody wants its numbers; nothing is read that is not wanted, and no
array is larger than the bytes it was made of. Knows nothing of generators: see `stylegan2_files`.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO, cast

import numpy as np

from understudy.untrusted.numpy_pickles import NUMPY, Array, sizes
from understudy.untrusted.torch_zip import member, members
from understudy.untrusted.unpickling import (
    Call,
    Global,
    Stream,
    Unsafe,
    parts,
    refuse_arguments,
    unpickle,
)

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ByteStorage": np.dtype("u1"),
    "torch BoolStorage": np.dtype("?"),
}
LOCATION = re.compile(r"cpu|cuda(:\d+)?")


@dataclass
class Storage:
    """A flat run of numbers; `read` gives its bytes when they are wanted."""

    dtype: np.dtype[Any]
    count: int
    read: Callable[[], bytes | memoryview] = field(repr=False)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def numbers(self) -> Array:
        data = self.read()
        if len(data) != self.nbytes:
            raise Unsafe(f"a storage of {self.nbytes:,} bytes has {len(data):,}")
        return np.frombuffer(data, self.dtype)


@dataclass(frozen=True)
class View:
    """A tensor: a checked view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.storage.dtype.itemsize

    def array(self) -> Array:
        """Its numbers, contiguous, in memory of their own."""
        flat = self.storage.numbers()[self.offset :]
        steps = [stride * flat.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False).copy("C")


def rebuild_tensor(arguments: tuple[Any, ...]) -> View:
    """`_rebuild_tensor_v2`: a view, refused unless it lies inside its storage."""
    if len(arguments) not in (6, 7) or not isinstance(arguments[0], Storage):
        raise refuse_arguments("torch._utils._rebuild_tensor_v2", arguments)
    storage, (offset,) = arguments[0], sizes((arguments[1],))
    shape, strides = sizes(arguments[2]), sizes(arguments[3])
    if len(shape) != len(strides):
        raise Unsafe("it holds a tensor with sizes and strides of different lengths")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if prod(shape) > 0 and last >= storage.count:
        raise Unsafe("it holds a tensor that reaches beyond its storage")
    if prod(shape) > storage.count or offset > storage.count:
        raise Unsafe("it holds a tensor larger than its storage")
    return View(storage, offset, shape, strides)


def rebuild_parameter(arguments: tuple[Any, ...]) -> View:
    """`_rebuild_parameter`: the tensor it wraps."""
    if len(arguments) != 3 or not isinstance(arguments[0], View):
        raise refuse_arguments("torch._utils._rebuild_parameter", arguments)
    return arguments[0]


def empty_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise refuse_arguments("a dictionary", arguments)
    return {}


def a_set(arguments: tuple[Any, ...]) -> set[Any]:
    values = arguments[0] if len(arguments) == 1 else None
    if not isinstance(values, list) or not all(isinstance(v, str) for v in cast(Any, values)):
        raise refuse_arguments("set", arguments)
    return set(cast(list[str], values))


def encode(arguments: tuple[Any, ...]) -> bytes:
    """`_codecs.encode`: how protocol 2 writes bytes."""
    if len(arguments) != 2 or arguments[1] != "latin1" or not isinstance(arguments[0], str):
        raise refuse_arguments("_codecs.encode", arguments)
    return arguments[0].encode("latin1")


def load_from_bytes(arguments: tuple[Any, ...]) -> Storage:
    """`torch.storage._load_from_bytes`: a legacy stream that holds one storage and no more."""
    if len(arguments) != 1 or not isinstance(arguments[0], bytes):
        raise refuse_arguments("torch.storage._load_from_bytes", arguments)
    stream = io.BytesIO(arguments[0])
    check_legacy_head(stream)
    found: dict[str, Storage] = {}
    made = unpickle(stream, dict.fromkeys(STORAGES), lambda pid: refer(pid, found, 6))
    keys = unpickle(stream, {})
    if not isinstance(made, Storage) or list(found.values()) != [made] or keys != list(found):
        raise Unsafe("it holds a stored tensor of a kind that is not read")
    attach(stream, made)
    if stream.read(1):
        raise Unsafe("it holds bytes behind a stored tensor")
    return made


CALLS: Mapping[str, Call | None] = {
    "collections OrderedDict": empty_dict,
    "builtins set": a_set,
    "__builtin__ set": a_set,
    "_codecs encode": encode,
    "torch._utils _rebuild_tensor_v2": rebuild_tensor,
    "torch._utils _rebuild_parameter": rebuild_parameter,
    "torch.storage _load_from_bytes": load_from_bytes,
    **NUMPY,
}


def refer(pid: object, found: dict[str, Storage], fields: int) -> Storage:
    """The storage that a persistent id means; one key is one storage. The device is let go."""
    values = parts(pid)
    if len(values) != fields or values[0] != "storage" or values[5:] not in ((), (None,)):
        raise Unsafe("it refers to data in a way that is not read")
    _, name, key, location, count = values[:5]
    dtype = STORAGES.get(name.name) if isinstance(name, Global) else None
    if dtype is None or not isinstance(key, str) or not re.fullmatch("[0-9A-Za-z_]{1,40}", key):
        raise Unsafe("it refers to a storage with an unknown type or key")
    if not isinstance(location, str) or not LOCATION.fullmatch(location):
        raise Unsafe("it refers to a storage on a device other than cpu or cuda")
    sizes((count,))
    known = found.setdefault(key, Storage(dtype, count, lambda: b""))
    if (known.dtype, known.count) != (dtype, count):
        raise Unsafe("it refers to one storage in two ways")
    return known


def check_legacy_head(stream: Stream) -> None:
    """The first three pickles of a legacy stream: magic number, version, byte order."""
    magic, version, system = (unpickle(stream, {}) for _ in range(3))
    if magic != MAGIC or version != VERSION:
        raise Unsafe("it is a PyTorch file of an unknown version")
    if not isinstance(system, dict) or cast(Any, system).get("little_endian") is not True:
        raise Unsafe("it was written by a big-endian machine")


def attach(stream: Stream, storage: Storage) -> None:
    """Take a storage's bytes from a legacy stream: their number, then themselves."""
    head = stream.read(8)
    if len(head) != 8 or struct.unpack("<q", head)[0] != storage.count:
        raise Unsafe("it tells a number of elements that differs from the tensor's")
    data = stream.read(storage.nbytes)
    if len(data) != storage.nbytes:
        raise Unsafe("it is cut short")
    storage.read = lambda: data


def read_legacy(stream: Stream, calls: Mapping[str, Call | None]) -> object:
    """A whole file in the legacy format: head, object, keys, then each storage's numbers."""
    check_legacy_head(stream)
    found: dict[str, Storage] = {}
    names = {**calls, **dict.fromkeys(STORAGES)}
    made = unpickle(stream, names, lambda pid: refer(pid, found, 6))
    keys = unpickle(stream, {})
    if not isinstance(keys, list) or sorted(cast(list[str], keys), key=str) != sorted(found):
        raise Unsafe("its storages are not those that it lists")
    for key in cast(list[str], keys):
        attach(stream, found[key])
    if stream.read(1):
        raise Unsafe("it holds bytes behind its last tensor")
    return made


def read_zip(file: BinaryIO, calls: Mapping[str, Call | None]) -> object:
    """A zip archive of torch.save: the pickle, and one member a storage; nothing is extracted."""
    archive, root = members(file)
    found: dict[str, Storage] = {}

    def reach(pid: object) -> Storage:
        storage = refer(pid, found, 5)
        name = f"{root}/data/{cast(Any, pid)[2]}"
        if name not in archive.NameToInfo:
            raise Unsafe("it refers to a storage that is not in the archive")
        if archive.getinfo(name).file_size != storage.nbytes:
            raise Unsafe(
                f"a storage has {archive.getinfo(name).file_size:,} bytes, not {storage.nbytes:,}"
            )
        storage.read = lambda: member(archive, name)
        return storage

    names = {**calls, **dict.fromkeys(STORAGES)}
    return unpickle(io.BytesIO(member(archive, f"{root}/data.pkl")), names, reach)
