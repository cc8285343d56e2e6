"""Files in the layouts of StyleGAN checkpoints, written instruction by instruction.

A `Word` is a global name, a `Call` what a pickle does with one; `dump` writes them as any program
would, in any protocol, so that layouts of old libraries (and hostile ones) can be made with new.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plain_waves import separable

HARMLESS = "raise SystemExit('source text that nobody may run')\n"
TYPES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte"}
CORES = {"old": "numpy.core.multiarray", "new": "numpy._core.multiarray"}


@dataclass(frozen=True)
class Word:
    """A global name, "module name"."""

    name: str


@dataclass(eq=False)
class Call:
    """A word called with arguments; then items set, then a state."""

    word: Any
    arguments: Any
    state: Any = None
    items: Any = None
    new: bool = False  # NEWOBJ in place of REDUCE


@dataclass(eq=False)
class Stored:
    """A storage that a persistent id refers to."""

    values: np.ndarray
    key: str
    location: str = "cpu"
    claimed: int | None = None


@dataclass(eq=False)
class Raw:
    """Instructions as they are."""

    code: bytes


class Writer(pickle._Pickler):  # type: ignore[name-defined]  # the one in Python has hooks
    """Words, calls and storages as the instructions that unpicklers know."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]
    fields = 5  # of a persistent id

    def persistent_id(self, obj: object) -> object:
        if not isinstance(obj, Stored):
            return None
        count = obj.values.size if obj.claimed is None else obj.claimed
        word = Word(f"torch {TYPES[obj.values.dtype.str[1:]]}Storage")
        view = (None,) if self.fields == 6 else ()
        return ("storage", word, obj.key, obj.location, count, *view)

    def save_word(self, word: Word) -> None:
        module, _, name = word.name.partition(" ")
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.memoize(word)

    def save_call(self, call: Call) -> None:
        self.save(call.word)
        self.save(call.arguments)
        self.write(pickle.NEWOBJ if call.new else pickle.REDUCE)
        self.memoize(call)
        if call.items is not None:
            self._batch_setitems(call.items.items())
        if call.state is not None:
            self.save(call.state)
            self.write(pickle.BUILD)

    def save_raw(self, raw: Raw) -> None:
        self.write(raw.code)

    dispatch[Word], dispatch[Call], dispatch[Raw] = save_word, save_call, save_raw


def dump(value: object, protocol: int = 4, fields: int = 5) -> bytes:
    """The pickle of a value; words that are equal are one object, as they are to a program."""
    stream = io.BytesIO()
    writer = Writer(stream, protocol)
    writer.fields = fields
    writer.dump(value)
    return stream.getvalue()


@dataclass
class Style:
    """How a program of some time writes: protocol, NumPy's spelling, where tensors lie."""

    protocol: int = 4
    numpy: str = "new"
    zipped: bool = False
    location: str = "cpu"
    stored: list[Stored] = field(default_factory=list)
    words: dict[str, Word] = field(default_factory=dict)

    def word(self, name: str) -> Word:
        return self.words.setdefault(name, Word(name))

    def storage(self, values: np.ndarray) -> object:
        flat = np.ascontiguousarray(values).reshape(-1)
        if not self.zipped:
            return Call(self.word("torch.storage _load_from_bytes"), (legacy_storage(flat),))
        self.stored.append(Stored(flat, str(94525939356880 + len(self.stored)), self.location))
        return self.stored[-1]

    def tensor(self, values: np.ndarray, parameter: bool = True) -> Call:
        size = tuple(values.shape)
        stride = tuple(
            int(step) // values.itemsize for step in np.ascontiguousarray(values).strides
        )
        rest = (0, size, stride if size else (), False, OrderedDict())
        made = Call(self.word("torch._utils _rebuild_tensor_v2"), (self.storage(values), *rest))
        if not parameter:
            return made
        word = self.word("torch._utils _rebuild_parameter")
        return Call(word, (made, False, OrderedDict()))

    def dtype(self, code: str) -> Call:
        order = "|" if code == "b1" else "<"
        state = (3, order, None, None, None, -1, -1, 0)
        known = self.words.get(code)
        if known is None:
            known = Call(self.word("numpy dtype"), (code, False, True), state)
            self.words[code] = known  # type: ignore[assignment]
        return known  # type: ignore[return-value]

    def scalar(self, value: float | bool | None, code: str = "f8") -> Call:
        data = np.array(value or 0, dtype=code).tobytes()
        return Call(self.word(f"{CORES[self.numpy]} scalar"), (self.dtype(code), data))

    def array(self, values: np.ndarray) -> Call:
        code = values.dtype.str[1:]
        start = (self.word("numpy ndarray"), (0,), b"b")
        state = (1, values.shape, self.dtype(code), False, np.ascontiguousarray(values).tobytes())
        return Call(self.word(f"{CORES[self.numpy]} _reconstruct"), start, state)

    def easy(self, items: dict[str, Any]) -> Call:
        return Call(self.word("dnnlib.util EasyDict"), (), items=items, new=True)

    def module(self, class_name: str, state: dict[str, Any], source: str = HARMLESS) -> Call:
        meta = {"type": "class", "version": 6, "module_src": source}
        meta |= {"class_name": class_name, "state": state}
        return Call(self.word("torch_utils.persistence _reconstruct_persistent_obj"), (meta,))


def legacy_storage(flat: np.ndarray, **lies: Any) -> bytes:
    """The stream that `torch.storage._load_from_bytes` takes; lies replace parts of it."""
    stored = Stored(flat, "94245172058480", claimed=lies.get("claimed"))
    system = {"protocol_version": 1001, "little_endian": lies.get("little", True)}
    system["type_sizes"] = {"short": 2, "int": 4, "long": 4}
    head = (lies.get("magic", 0x1950A86A20F9469CFC6C), lies.get("version", 1001), system)
    parts = [dump(part, 2) for part in head]
    parts += [dump(lies.get("object", stored), 2, 6), dump(lies.get("keys", [stored.key]), 2)]
    count = struct.pack("<q", lies.get("count", flat.size))
    return b"".join([*parts, count, flat.tobytes(), lies.get("more", b"")])


def zipped(value: object, style: Style, root: str = "archive") -> bytes:
    """What torch.save writes: data.pkl, the storages, the version."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", dump(value, 2))
        for stored in style.stored:
            archive.writestr(f"{root}/data/{stored.key}", stored.values.tobytes())
        archive.writestr(f"{root}/version", "3\n")
    return stream.getvalue()


def tree(tensors: Mapping[str, np.ndarray], arguments: dict[str, Any], style: Style) -> Call:
    """A generator's modules from a flat state dictionary, as NVIDIA's files nest them."""
    buffers = "resample_filter noise_const w_avg transform freqs phases magnitude_ema".split()
    buffers += ["up_filter", "down_filter"]

    def build(prefix: str) -> Call:
        inside = {name[len(prefix) :]: v for name, v in tensors.items() if name.startswith(prefix)}
        own = {name: v for name, v in inside.items() if "." not in name}
        below = dict.fromkeys(name.partition(".")[0] for name in inside if "." in name)
        state: dict[str, Any] = {
            "training": False,
            "_parameters": OrderedDict(
                (n, style.tensor(v)) for n, v in own.items() if n not in buffers
            ),
            "_buffers": OrderedDict(
                (n, style.tensor(v, False)) for n, v in own.items() if n in buffers
            ),
            "_non_persistent_buffers_set": set(),
            "_modules": OrderedDict((name, build(f"{prefix}{name}.")) for name in below),
            "act_gain": style.scalar(2**0.5),
        }
        if not prefix:
            kwargs = {n: style.easy(v) if isinstance(v, dict) else v for n, v in arguments.items()}
            state |= {"z_dim": arguments["z_dim"], "_init_args": (), "_init_kwargs": kwargs}
        return style.module("Generator" if not prefix else "Part", state)

    return build("")


def from_layout(layout: Any, style: Style, found: dict[str, np.ndarray], path: str = "") -> Any:
    """The value that a recorded layout describes, filled with numbers; found: its tensors."""
    if not isinstance(layout, dict):
        return layout
    made, kind = {"tuple": tuple, "list": list, "set": set}, layout["kind"]
    if kind in made:
        return made[kind](from_layout(item, style, found, path) for item in layout["items"])
    if kind == "persistent_object":
        return style.module(layout["class_name"], _state(layout["state"], style, found, path))
    if kind == "tensor":
        values = np.random.RandomState(len(found)).randn(*layout["size"])
        if path.endswith("resample_filter"):
            values = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
        found[path] = values = np.asarray(values, np.float32)
        return style.tensor(values, "wrapped_as" in layout)
    if kind == "numpy_scalar":
        return style.scalar(layout["value"], layout["dtype"])
    if kind == "numpy_array":
        shape, code = layout["build_state"]["shape"], layout["build_state"]["dtype"]
        return style.array(np.arange(np.prod(shape), dtype=code).reshape(shape))
    items = {n: from_layout(v, style, found, path) for n, v in layout["items"].items()}
    if kind == "EasyDict":
        return style.easy(items)
    return OrderedDict(items) if kind == "OrderedDict" else items


def _state(
    state: dict[str, Any], style: Style, found: dict[str, np.ndarray], path: str
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    filters = _filters(state)
    for name, value in state.items():
        if name not in ("_parameters", "_buffers", "_modules"):
            made[name] = from_layout(value, style, {}, path)
            continue
        table = OrderedDict() if value["kind"] == "OrderedDict" else {}
        for key, item in value["items"].items():
            if key in filters:
                found[f"{path}.{key}"] = filters[key]
                table[key] = style.tensor(filters[key], False)
                continue
            table[key] = from_layout(item, style, found, f"{path}.{key}".lstrip("."))
        made[name] = table
    return made


def _filters(state: dict[str, Any]) -> dict[str, np.ndarray]:
    """The filters of a StyleGAN3 layer by the numbers that its module keeps."""
    if "tmp_sampling_rate" not in state or state["is_torgb"]:
        return {}
    told = {n: v["value"] if isinstance(v, dict) and "value" in v else v for n, v in state.items()}
    rate, made = told["tmp_sampling_rate"], dict[str, np.ndarray]()
    for name, end in (("up", "in"), ("down", "out")):
        band = told[f"{end}_cutoff"], 2 * told[f"{end}_half_width"]
        taps = separable(told[f"{name}_taps"], *band, rate)
        made[f"{name}_filter"] = taps.astype(np.float32)
    return made


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
