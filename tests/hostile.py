"""Checkpoints that attack whoever opens them; each would write `canary` if anything in it ran.

for name, make in ATTACKS.items(): data = make(Attack(canary))
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookalikes import Call, Raw, Stored, Style, Word, dump, legacy_storage, tree, zipped

ARGUMENTS = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 4, "img_channels": 3}
ONES = np.ones(4, np.float32)
FIR = (np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64).astype(np.float32)


def smallest() -> dict[str, np.ndarray]:
    """A whole generator of 4 x 4 pixels."""
    shapes: dict[str, tuple[int, ...]] = {
        "mapping.w_avg": (4,),
        "mapping.fc0.weight": (4, 4),
        "mapping.fc0.bias": (4,),
        "synthesis.b4.const": (2, 4, 4),
        "synthesis.b4.conv1.weight": (2, 2, 3, 3),
        "synthesis.b4.conv1.noise_strength": (),
        "synthesis.b4.conv1.bias": (2,),
        "synthesis.b4.conv1.noise_const": (4, 4),
        "synthesis.b4.conv1.affine.weight": (2, 4),
        "synthesis.b4.conv1.affine.bias": (2,),
        "synthesis.b4.torgb.weight": (3, 2, 1, 1),
        "synthesis.b4.torgb.bias": (3,),
        "synthesis.b4.torgb.affine.weight": (2, 4),
        "synthesis.b4.torgb.affine.bias": (2,),
    }
    draw = np.random.RandomState(0)
    return {name: np.asarray(draw.randn(*size), np.float32) for name, size in shapes.items()}


@dataclass(frozen=True)
class Attack:
    """Where the canary would appear, and calls that would make it."""

    canary: Path

    def call(self, name: str = "os system") -> Call:
        """A call of a foreign name with arguments that make the canary."""
        path = str(self.canary)
        code = f"open({path!r}, 'w')"
        arguments: dict[str, tuple[Any, ...]] = {
            "os system": (f"touch {path}",),
            "posix system": (f"touch {path}",),
            "os popen": (f"touch {path}",),
            "subprocess Popen": (("touch", path),),
            "subprocess check_output": (("touch", path),),
            "builtins exec": (code,),
            "builtins eval": (code,),
            "__builtin__ eval": (code,),
            "builtins open": (path, "w"),
            "io open": (path, "w"),
            "builtins __import__": ("os",),
            "pathlib Path.touch": (path,),
            "pty spawn": ("sh",),
            "runpy run_path": (path,),
            "importlib import_module": ("os",),
            "torch load": (path,),
            "torch.jit load": (path,),
            "numpy load": (path,),
            "pickle loads": (b"",),
            "marshal loads": (b"",),
            "types FunctionType": (b"",),
            "ctypes CDLL": (path,),
            "webbrowser open": (path,),
            "shutil rmtree": (str(self.canary.parent),),
            "socket create_connection": (("127.0.0.1", 9),),
            "operator attrgetter": ("__class__",),
            "builtins getattr": ("", "__class__"),
            "codecs decode": (b"", "rot13"),
            "torch_utils.persistence import_hook": (code,),
            "dnnlib.util call_func_by_name": (code,),
            "understudy.files.atomic replacing": (path,),
        }
        return Call(Word(name), arguments[name])

    def pkl(self, poison: Any = None, protocol: int = 4, **lies: Any) -> bytes:
        """A whole file in NVIDIA's layout; poison stands for a number deep inside."""
        made = tree(smallest(), dict(ARGUMENTS), Style(protocol))
        deep = self.part(made, "synthesis", "b4", "conv1").arguments[0]["state"]
        if poison is not None:
            deep["act_gain"] = poison
        made.arguments[0].update(lies)
        return dump({"training_set_kwargs": None, "G_ema": made}, protocol)

    def part(self, made: Call, *names: str) -> Call:
        for name in names:
            made = made.arguments[0]["state"]["_modules"][name]
        return made

    def tensor(self, storage: Any, *view: Any) -> bytes:
        """A file whose first tensor is rebuilt from this storage and view."""
        style = Style()
        made = tree(smallest(), dict(ARGUMENTS), style)
        rebuilt = Call(Word("torch._utils _rebuild_tensor_v2"), (storage, *view))
        self.part(made, "mapping").arguments[0]["state"]["_buffers"]["w_avg"] = rebuilt
        return dump({"G_ema": made})

    def storage(self, data: bytes) -> bytes:
        """A file whose first tensor has this inner stream."""
        loaded = Call(Word("torch.storage _load_from_bytes"), (data,))
        return self.tensor(loaded, 0, (4,), (1,), False, OrderedDict())

    def inner(self, **lies: Any) -> bytes:
        return self.storage(legacy_storage(ONES, **lies))

    def view(self, *view: Any) -> bytes:
        loaded = Call(Word("torch.storage _load_from_bytes"), (legacy_storage(ONES),))
        return self.tensor(loaded, *view, False, OrderedDict())

    def zip(
        self, change: Callable[[zipfile.ZipFile, str], None] | None = None, **how: Any
    ) -> bytes:
        """A PTI archive; change adds to it."""
        style = Style(2, zipped=True, location=how.pop("location", "cpu"))
        whole = zipped(tree(smallest(), dict(ARGUMENTS), style), style, **how)
        if change is None:
            return whole
        stream = io.BytesIO(whole)
        with zipfile.ZipFile(stream, "a") as archive:
            change(archive, archive.namelist()[1])
        return stream.getvalue()

    def rezip(self, change: Callable[[str, bytes], tuple[str, bytes, int] | None]) -> bytes:
        """A PTI archive, each member changed: name, contents, compression; None leaves it out."""
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.zip())) as old, zipfile.ZipFile(stream, "w") as new:
            for name in old.namelist():
                if (kept := change(name, old.read(name))) is not None:
                    new.writestr(kept[0], kept[1], kept[2])
        return stream.getvalue()


def foreign(name: str) -> Callable[[Attack], bytes]:
    return lambda attack: dump(attack.call(name))


def foreign_text(attack: Attack) -> bytes:
    return dump(Call(Word("\x1b]0;owned\x07 \x1b[2J"), ()))


def number(code: Raw | bytes) -> Callable[[Attack], bytes]:
    """Instructions in the place of a number deep inside a whole file."""
    return lambda attack: attack.pkl(Raw(code) if isinstance(code, bytes) else code)


def dtype(*arguments: Any, state: Any) -> Callable[[Attack], bytes]:
    word = Word("numpy._core.multiarray scalar")
    made = Call(Word("numpy dtype"), arguments, state)
    return lambda attack: attack.pkl(Call(word, (made, bytes(8))))


def array(start: tuple[Any, ...], shape: Any, data: Any) -> Callable[[Attack], bytes]:
    style = Style()
    word = Word("numpy._core.multiarray _reconstruct")
    return lambda attack: attack.pkl(Call(word, start, (1, shape, style.dtype("f8"), False, data)))


def wide(levels: int) -> list[Any]:
    """A list of ten references to a list of ten references ..."""
    made: list[Any] = []
    for _ in range(levels):
        made = [made] * 10
    return made


def looped(attack: Attack) -> bytes:
    """A module that holds itself: its table and itself are kept, then put into one another."""
    made = tree(smallest(), dict(ARGUMENTS), Style())
    attack.part(made, "synthesis").arguments[0]["state"]["_modules"] = Raw(b"}r\x00\x40\x00\x00")
    keep = Raw(b"r\x01\x40\x00\x00X\x01\x00\x00\x00x")  # the generator, then a key
    join = Raw(b"j\x00\x40\x00\x00X\x01\x00\x00\x00bj\x01\x40\x00\x00s")
    return dump({"G_ema": made, keep: join})


def branching(attack: Attack) -> bytes:
    """Modules that hold the next one ten times over, nine levels deep."""
    style = Style()
    made = tree(smallest(), dict(ARGUMENTS), style)
    part = attack.part(made, "mapping")
    for _ in range(9):
        tables = {"_parameters": {}, "_buffers": {}, "_modules": {f"m{i}": part for i in range(10)}}
        part = style.module("Part", {**tables, "_non_persistent_buffers_set": set()})
    made.arguments[0]["state"]["_modules"]["mapping"] = part
    return dump({"G_ema": made})


def persistent(pid: Any) -> Callable[[Attack], bytes]:
    """An archive whose first tensor has this persistent id."""

    def make(attack: Attack) -> bytes:
        style = Style(2, zipped=True)
        made = tree(smallest(), dict(ARGUMENTS), style)
        refer = Raw(dump(pid, 2)[2:-1] + pickle.BINPERSID)
        rebuilt = Call(
            Word("torch._utils _rebuild_tensor_v2"), (refer, 0, (4,), (1,), False, OrderedDict())
        )
        attack.part(made, "mapping").arguments[0]["state"]["_buffers"]["w_avg"] = rebuilt
        return zipped(made, style)

    return make


def renamed(new: str) -> Callable[[Attack], bytes]:
    """An archive whose last storage has another name."""
    return lambda attack: attack.zip(lambda archive, name: archive.writestr(new, b"1234"))


def lying_sizes(attack: Attack) -> bytes:
    """The first member's size in front of it differs from the directory's."""
    data = bytearray(attack.zip())
    data[22:26] = struct.pack("<I", 7)
    return bytes(data)


def flagged(attack: Attack) -> bytes:
    data = bytearray(attack.zip())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def changed_storage(attack: Attack) -> bytes:
    """One bit of a storage differs from its checksum."""
    data = bytearray(attack.zip())
    data[data.index(b"PK\x03\x04", 4) - 1] ^= 1
    data[data.index(b"/data/") + 40] ^= 1
    return bytes(data)


def overlapping(attack: Attack) -> bytes:
    """Two entries of the directory mean one member."""
    data = bytearray(attack.zip())
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    data[entries[2] + 42 : entries[2] + 46] = data[entries[1] + 42 : entries[1] + 46]
    return bytes(data)


def deep_dicts(attack: Attack) -> bytes:
    """100,000 dictionaries inside one another, as the generator's arguments."""
    inside = b"}X\x01\x00\x00\x00a" * 100_000 + b"N" + b"s" * 100_000
    made = tree(smallest(), dict(ARGUMENTS), Style())
    made.arguments[0]["state"]["_init_kwargs"] = Raw(inside)
    return dump({"G_ema": made})


PIECES = legacy_storage(ONES)
PID = ("storage", Word("torch FloatStorage"), "94525939356880", "cpu", 4)
GOOD = (3, "<", None, None, None, -1, -1, 0)
ND = (Word("numpy ndarray"), (0,), b"b")
BIG = struct.pack("<Q", 2**40)
NAMES = """os system|posix system|os popen|subprocess Popen|subprocess check_output|builtins exec
builtins eval|__builtin__ eval|builtins open|io open|builtins __import__|pathlib Path.touch
pty spawn
runpy run_path|importlib import_module|torch load|torch.jit load|numpy load|pickle loads
marshal loads|types FunctionType|ctypes CDLL|webbrowser open|shutil rmtree
socket create_connection|operator attrgetter|builtins getattr|codecs decode
torch_utils.persistence import_hook|dnnlib.util call_func_by_name
understudy.files.atomic replacing"""

ATTACKS: dict[str, Callable[[Attack], bytes]] = {
    **{name: foreign(name) for name in NAMES.replace("\n", "|").split("|")},
    # How a name can be brought in.
    "GLOBAL": lambda a: dump(a.call(), 2),
    "INST": lambda a: b"\x80\x02(X\x01\x00\x00\x00xios\nsystem\n.",
    "INST of a harmless name": lambda a: b"\x80\x02(icollections\nOrderedDict\n.",
    "OBJ": lambda a: b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00xo.",
    "protocol 0": lambda a: b"cos\nsystem\n(S'x'\ntR.",
    "protocol 1": lambda a: b"}q\x00.",
    "protocol 6": lambda a: b"\x80\x06}.",
    "deep inside": lambda a: a.pkl(a.call()),
    "deep inside, protocol 2": lambda a: a.pkl(a.call(), 2),
    "NEWOBJ": lambda a: a.pkl(Call(Word("os system"), ("x",), new=True)),
    "NEWOBJ_EX": number(b"ccollections\nOrderedDict\n)}\x92"),
    "a name called that is a word": number(b"cnumpy\nndarray\n)R"),
    "a value called": number(b"K\x01)R"),
    "a dotted walk": lambda a: a.pkl(Call(Word("collections OrderedDict.fromkeys"), ((),))),
    "a walk to builtins": lambda a: a.pkl(Word("torch.storage _load_from_bytes.__globals__")),
    "another case": lambda a: a.pkl(Call(Word("Collections OrderedDict"), ())),
    "a space behind": lambda a: a.pkl(Call(Word("collections OrderedDict "), ())),
    "a dot behind": lambda a: a.pkl(Call(Word("collections. OrderedDict"), ())),
    "module and name by bytes": number(b"C\x02osC\x06system\x93"),
    "module with a space": number(b"\x8c\x13torch.storage _load\x8c\x01y\x93"),
    "EXT1": number(b"\x82\x01"),
    "EXT2": number(b"\x83\x01\x00"),
    "EXT4": number(b"\x84\x01\x00\x00\x00"),
    "persistent id in a pickle": number(b"K\x01Q"),
    "persistent id as text": number(b"Psecret\n"),
    "out-of-band buffer": number(b"\x97"),
    # Sources.
    "source is bytes": lambda a: a.pkl(module_src=b"x"),
    "source is a call": lambda a: a.pkl(module_src=a.call()),
    "type is function": lambda a: a.pkl(type="function"),
    "persistence version 7": lambda a: a.pkl(version=7),
    "class name is a number": lambda a: a.pkl(class_name=5),
    "state is a list": lambda a: a.pkl(state=[]),
    "meta has more": lambda a: a.pkl(hook="x"),
    "no generator": lambda a: a.pkl(class_name="Discriminator"),
    # Inner streams.
    "inner zip": lambda a: a.storage(b"PK\x03\x04" + bytes(60)),
    "inner tar": lambda a: a.storage(bytes(257) + b"ustar" + bytes(250)),
    "inner call": lambda a: a.inner(object=a.call()),
    "inner storage of a foreign class": lambda a: a.inner(object=Word("os system")),
    "inner stream in an inner stream": lambda a: a.inner(
        object=Call(Word("torch.storage _load_from_bytes"), (PIECES,))
    ),
    "inner tuple": lambda a: a.inner(object=(Stored(ONES, "1"),)),
    "inner count larger than told": lambda a: a.inner(claimed=8),
    "inner count larger than the data": lambda a: a.inner(claimed=8, count=8),
    "inner count negative": lambda a: a.inner(claimed=-1, count=-1),
    "inner count of 2^60": lambda a: a.inner(claimed=2**60, count=2**60),
    "inner bytes left over": lambda a: a.inner(more=b"x"),
    "inner big-endian": lambda a: a.inner(little=False),
    "inner magic": lambda a: a.inner(magic=1),
    "inner version": lambda a: a.inner(version=1000),
    "inner keys": lambda a: a.inner(keys=["1", "2"]),
    "inner cut short": lambda a: a.storage(PIECES[:-3]),
    "inner storage is text": lambda a: a.tensor(
        Call(Word("torch.storage _load_from_bytes"), ("x",)), 0, (4,), (1,), False, OrderedDict()
    ),
    # Views.
    "view past the end": lambda a: a.view(1, (4,), (1,)),
    "view by a wide stride": lambda a: a.view(0, (2, 2), (4, 1)),
    "view with a negative offset": lambda a: a.view(-1, (4,), (1,)),
    "view with a negative stride": lambda a: a.view(3, (4,), (-1,)),
    "view with a negative size": lambda a: a.view(0, (-4,), (1,)),
    "view of different lengths": lambda a: a.view(0, (2, 2), (1,)),
    "view of a million squared": lambda a: a.view(0, (10**6, 10**6), (0, 0)),
    "view by a stride of 2^70": lambda a: a.view(0, (1, 4), (2**70, 1)),
    "view of nothing, far away": lambda a: a.view(0, (0, 2**70), (1, 1)),
    "terminal commands in a name": foreign_text,
    "view by truth": lambda a: a.view(0, (True,), (1,)),
    "view by fractions": lambda a: a.view(0, (4.0,), (1,)),
    "view of no storage": lambda a: a.tensor(5, 0, (4,), (1,), False, OrderedDict()),
    # States.
    "state of a dictionary": number(b"}}X\x09\x00\x00\x00__class__K\x01sb"),
    "state of an ordered dictionary": number(
        b"ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00aK\x01sb"
    ),
    "slot state": number(b"}N}X\x09\x00\x00\x00__class__K\x01s\x86b"),
    "items of a list": number(b"]K\x01K\x02s"),
    "append to a dictionary": number(b"}K\x01a"),
    "add to a list": number(b"](K\x01\x90"),
    "tuple as a key": number(b"})K\x01s"),
    "set of calls": lambda a: a.pkl(Call(Word("builtins set"), ([a.call()],))),
    # NumPy.
    "dtype of objects": dtype("O8", False, True, state=(3, "|", None, None, None, -1, -1, 63)),
    "dtype void": dtype("V8", False, True, state=(3, "|", None, None, None, -1, -1, 0)),
    "dtype of two": dtype("f4,f4", False, True, state=GOOD),
    "dtype of time": dtype("M8[s]", False, True, state=GOOD),
    "dtype big-endian": dtype("f8", False, True, state=(3, ">", None, None, None, -1, -1, 0)),
    "dtype with fields": dtype("f8", False, True, state=(3, "<", None, ("a",), {"a": 1}, 8, 1, 0)),
    "dtype with metadata": dtype("f8", False, True, state=(*GOOD, {"a": 1})),
    "dtype without a state": dtype("f8", False, True, state=None),
    "number too long": lambda a: a.pkl(
        Call(Word("numpy._core.multiarray scalar"), (Style().dtype("f8"), bytes(9)))
    ),
    "array of a class": array((Word("collections OrderedDict"), (0,), b"b"), (1,), bytes(8)),
    "array of a wrong shape": array(ND, (2,), bytes(8)),
    "array of 2^40 numbers": array(ND, (2**40,), bytes(8)),
    "array of objects": array(ND, (1,), ["x"]),
    # Exhaustion.
    "100,000 nested tuples": lambda a: b"\x80\x04)" + b"\x85" * 100_000 + b".",
    "100,000 nested dictionaries": deep_dicts,
    "nested tuple as a key": lambda a: b"\x80\x04})" + b"\x85" * 100_000 + b"K\x01s.",
    "ten to the ninth references": lambda a: dump({"G_ema": wide(9)}),
    "ten to the ninth modules": branching,
    "ten to the ninth arguments": lambda a: dump(
        {"G_ema": tree(smallest(), {**ARGUMENTS, "mapping_kwargs": {"x": wide(9)}}, Style())}
    ),
    "a number of 100 MB": lambda a: (
        b"\x80\x02\x8b" + struct.pack("<I", 10**8) + bytes(10**8) + b"."
    ),
    "bytes of 2^40": lambda a: b"\x80\x04\x8e" + BIG + b"x.",
    "text of 2^40": lambda a: b"\x80\x04\x8d" + BIG + b"x.",
    "frame of 2^40": lambda a: b"\x80\x04\x95" + BIG + b"}.",
    "memo of 2^31": lambda a: b"\x80\x02}r\xff\xff\xff\x7f.",
    "a million instructions": lambda a: b"\x80\x02" + b"N" * 1_000_001 + b".",
    "a memo that was never kept": lambda a: b"\x80\x02h\x05.",
    "an empty stack": lambda a: b"\x80\x02R.",
    "values left over": lambda a: b"\x80\x02K\x01K\x02.",
    "no end": lambda a: b"\x80\x02}",
    # Containers.
    "empty": lambda a: b"",
    "cut in half": lambda a: a.pkl()[: len(a.pkl()) // 2],
    "bytes behind": lambda a: a.pkl() + b"x",
    "text": lambda a: b"I am no checkpoint at all",
    "a picture": lambda a: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "a tar": lambda a: bytes(257) + b"ustar" + bytes(250),
    "a web page": lambda a: b"<!DOCTYPE html><html></html>",
    "zip cut in half": lambda a: a.zip()[: len(a.zip()) // 2],
    "zip of nothing": lambda a: b"PK\x05\x06" + bytes(18),
    "zip with a call": lambda a: a.rezip(
        lambda n, d: (n, dump(a.call(), 2) if n.endswith("data.pkl") else d, 0)
    ),
    "zip with two data.pkl": renamed("other/data.pkl"),
    "zip with a deeper data.pkl": renamed("archive/data/data.pkl"),
    "zip compressed": lambda a: a.rezip(lambda n, d: (n, d, 8)),
    "zip bomb": lambda a: a.rezip(
        lambda n, d: (n, bytes(2**24) if n.endswith("880") else d, 8 * n.endswith("880"))
    ),
    "zip of lying sizes": lying_sizes,
    "zip that is encrypted": flagged,
    "zip of one member twice": overlapping,
    "zip with a long storage": lambda a: a.rezip(lambda n, d: (n, d + b"x" * ("data/" in n), 0)),
    "zip with a short storage": lambda a: a.rezip(
        lambda n, d: (n, d[:-1] if "data/" in n else d, 0)
    ),
    "zip without storages": lambda a: a.rezip(lambda n, d: None if "data/" in n else (n, d, 0)),
    "zip with a changed storage": changed_storage,
    "zip big-endian": lambda a: a.zip(lambda z, n: z.writestr("archive/byteorder", "big")),
    "zip to the parent": renamed("archive/data/../../x"),
    "zip to a drive": renamed("archive/data/C:x"),
    "zip to the root": renamed("/etc/x"),
    "zip with a script": renamed("archive/code/__torch__.py"),
    "zip with a program beside": renamed("archive/run.py"),
    "zip id of four": persistent(PID[:4]),
    "zip id of another kind": persistent(("module", *PID[1:])),
    "zip id of a foreign class": persistent((PID[0], Word("os system"), *PID[2:])),
    "zip id as text": persistent("storage"),
    "zip id with a path": persistent((*PID[:2], "../../etc/passwd", "cpu", 4)),
    "zip id of a missing member": persistent((*PID[:2], "77", "cpu", 4)),
    "zip id on another device": persistent((*PID[:3], "file:///x", 4)),
    "zip id of a negative count": persistent((*PID[:4], -4)),
    # Whole, but no generator.
    "looped": looped,
    "rosinality of text": lambda a: dump({"g_ema": {"style.1.weight": "x"}}),
    "rosinality of strangers": lambda a: dump({"g_ema": {"os.system": Style().tensor(ONES)}}),
    "a state_dict of one": lambda a: dump({"synthesis.b4.const": Style().tensor(ONES)}),
    "an older network": lambda a: dump((Call(Word("dnnlib.tflib.network Network"), ()),) * 3),
    "nothing known": lambda a: dump({"weights": 5}),
}


def twisted(name: str, values: np.ndarray | None) -> Callable[[Attack], bytes]:
    """A whole file, one tensor of which has another shape, or is missing."""

    def make(attack: Attack) -> bytes:
        tensors = smallest()
        tensors.pop(name, None)
        if values is not None:
            tensors[name] = values
        return dump({"G_ema": tree(tensors, dict(ARGUMENTS), Style())})

    return make


MISFITS: dict[str, Callable[[Attack], bytes]] = {
    "a missing bias": twisted("mapping.fc0.bias", None),
    "a bias of another length": twisted("synthesis.b4.conv1.bias", np.ones(3, np.float32)),
    "weights of three axes": twisted("synthesis.b4.conv1.weight", np.ones((2, 2, 3), np.float32)),
    "a tensor too many": twisted("mapping.fc0.bias2", ONES),
}
ATTACKS |= {
    "no start": twisted("synthesis.b4.const", None),
    "a start without sides": twisted("synthesis.b4.const", ONES),
    "another filter": lambda a: dump(
        {
            "G_ema": tree(
                {**smallest(), "synthesis.b4.resample_filter": np.eye(4, dtype=np.float32)},
                dict(ARGUMENTS),
                Style(),
            )
        }
    ),
    "sizes that its weights deny": lambda a: dump(
        {"G_ema": tree(smallest(), {**ARGUMENTS, "w_dim": 512}, Style())}
    ),
    "arguments of strangers": lambda a: dump(
        {"G_ema": tree(smallest(), {**ARGUMENTS, "hook": "x"}, Style())}
    ),
}
