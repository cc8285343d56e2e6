"""StyleGAN generators in the files that people have, recognised by content, as arrays and a config.

NVIDIA's .pkl (stylegan2-ada and stylegan3; StyleGAN-Human's and PTI's copies), whole modules saved
by torch.save, rosinality's .pt, and the pickles of the TensorFlow era. The names are NVIDIA's
PyTorch names afterwards. Nothing in a file is run: see `unpickling`. Knows nothing of networks.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, cast

from understudy.generators.stylegan2.names import from_rosinality, from_tensorflow
from understudy.untrusted.numpy_pickles import Array, NumpyArray
from understudy.untrusted.torch_files import (
    CALLS,
    MAGIC,
    View,
    empty_dict,
    read_legacy,
    read_zip,
)
from understudy.untrusted.unpickling import (
    Call,
    Foreign,
    Standin,
    Unsafe,
    kind,
    refuse_arguments,
    unpickle,
)

META = {"type", "version", "module_src", "class_name", "state"}
PERSISTENCE = 6  # the version that every released file has
MAX_MODULES, MAX_DEPTH = 2000, 12
MAX_PLAIN, MAX_TEXT = 2000, 200  # values in a generator's arguments, and letters of a text
HEADS = {
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"RIFF": "a picture (WebP)",
    b"GIF8": "a picture (GIF)",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<": "a web page",
}


@dataclass(frozen=True)
class PickledModule:
    """A module of NVIDIA's persistence layer: its class's name and its attributes, no code."""

    class_name: str
    state: Mapping[str, Any]


class PickledNetwork(Standin):
    """A network of the TensorFlow era; its state brings the variables."""

    def __init__(self) -> None:
        self.state: Mapping[str, Any] = {}

    def build(self, state: object) -> None:
        if not isinstance(state, dict) or "variables" not in state:
            raise Unsafe("it holds a TensorFlow network without variables")
        self.state = {k: v for k, v in cast(Any, state).items() if k != "build_module_src"}


class Options(Standin):
    """The command line that rosinality's training keeps beside its weights; let go."""

    def build(self, state: object) -> None:
        if not isinstance(state, dict):
            raise Unsafe("its options are not a dictionary")


@dataclass(frozen=True)
class Found:
    """A generator in a file: what wrote it, its tensors under NVIDIA's names, its arguments.

    arguments: what the generator was made with, as JSON, where the file tells; else empty.
    """

    written_by: str
    tensors: Mapping[str, Array]
    arguments: Mapping[str, Any]


def module(arguments: tuple[Any, ...]) -> PickledModule:
    """`_reconstruct_persistent_obj`: keep name and state, drop the source text unread."""
    meta = arguments[0] if len(arguments) == 1 else None
    if not isinstance(meta, dict) or set(cast(Any, meta)) != META:
        raise refuse_arguments("torch_utils.persistence._reconstruct_persistent_obj", arguments)
    known = cast(dict[str, Any], meta)
    if known["type"] != "class" or not isinstance(known["module_src"], str):
        raise Unsafe("it holds an object whose source is not a class written as text")
    if known["version"] != PERSISTENCE:
        raise Unsafe(f"it holds an object of another persistence version than {PERSISTENCE}")
    if not isinstance(known["class_name"], str) or not isinstance(known["state"], dict):
        raise Unsafe("it holds an object without a class name or without attributes")
    return PickledModule(known["class_name"], known["state"])


def no_arguments(made: type[Standin]) -> Call:
    """A call without arguments that gives a new stand-in."""

    def call(arguments: tuple[Any, ...]) -> Standin:
        if arguments:
            raise refuse_arguments(made.__name__, arguments)
        return made()

    return call


NAMES: Mapping[str, Call | None] = {
    **CALLS,
    "torch_utils.persistence _reconstruct_persistent_obj": module,
    "dnnlib.util EasyDict": empty_dict,
    "dnnlib.tflib.network Network": no_arguments(PickledNetwork),
    "argparse Namespace": no_arguments(Options),
}


def find_generator(path: Path) -> Found:
    """The averaged generator in a file. Raises Unsafe for anything else, however hostile."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise Foreign("it is empty") from None
        with data:
            return _found(*_contents(file, data))


def _contents(file: BinaryIO, data: mmap.mmap) -> tuple[object, str]:
    """What a file holds, and in which container."""
    head = data[:64]
    if head[:4] == b"PK\x03\x04":
        return read_zip(file, NAMES), "torch.save"
    for start, what in HEADS.items():
        if head.startswith(start):
            raise Foreign(f"it is {what}; expected a generator's .pkl or .pt")
    if data[257:262] == b"ustar":
        raise Unsafe("it is a tar archive, as PyTorch wrote before 2017; save it again")
    if head[8:9] == b"{":
        raise Unsafe("it is a safetensors file, which needs no conversion")
    if head[:1] != b"\x80":
        raise Foreign("it is neither a pickle nor a PyTorch archive")
    contents = unpickle(data, NAMES)
    if contents == MAGIC and type(contents) is int:
        data.seek(0)
        return read_legacy(data, NAMES), "torch.save"
    if data.read(1):
        raise Unsafe("it holds bytes behind its pickle")
    return contents, "pickle"


def _found(contents: Any, container: str) -> Found:
    """The generator among the contents, whichever program wrote them."""
    if isinstance(contents, PickledModule):
        return _from_module(contents, f"a module ({container})")
    if isinstance(contents, tuple | list) and any(isinstance(n, PickledNetwork) for n in contents):
        return _from_networks(list(cast(list[Any], contents)))
    if not isinstance(contents, dict):
        raise Unsafe(f"it holds a {kind(contents)}, not a generator")
    for key in ("G_ema", "G"):
        if isinstance(contents.get(key), PickledModule):
            return _from_module(contents[key], f"NVIDIA's pickle, {key}")
    if isinstance(contents.get("g_ema"), dict):
        tensors = _views(contents["g_ema"])
        average = contents.get("latent_avg")
        if isinstance(average, View):
            tensors["latent_avg"] = average.array()
        return Found("rosinality's stylegan2-pytorch", from_rosinality(tensors), {})
    if any(str(name).startswith("synthesis.") for name in cast(Any, contents)):
        return Found(f"a state_dict ({container})", _views(contents), {})
    keys = ", ".join(sorted(str(key)[:20] for key in cast(Any, contents))[:8])
    raise Unsafe(f"it holds no generator: expected G_ema or g_ema, got {keys or 'nothing'}")


def _views(named: dict[Any, Any]) -> dict[str, Array]:
    """The tensors of a state_dict."""
    for name, value in named.items():
        if not isinstance(name, str) or not isinstance(value, View):
            raise Unsafe(f"its state_dict holds a {kind(value)} among the tensors")
    _check_total(list(named.values()))
    return {name: view.array() for name, view in named.items()}


def _check_total(views: list[View]) -> None:
    """Many names for one storage must not multiply it."""
    storages = {id(view.storage): view.storage.nbytes for view in views}
    if sum(view.nbytes for view in views) > 2 * sum(storages.values()) + 2**20:
        raise Unsafe("it refers to the same tensor too often")


def _from_module(generator: PickledModule, written_by: str) -> Found:
    if "Generator" not in generator.class_name:
        raise Unsafe(f"it holds a module {generator.class_name[:40]!r}, not a Generator")
    views: dict[str, View] = {}
    _walk(generator, "", views, [])
    _check_total(list(views.values()))
    arguments = plain({**_sizes(generator.state), **_clamps(generator)}, [])
    return Found(written_by, {name: view.array() for name, view in views.items()}, arguments)


def _sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a generator was made with: its arguments, or else its attributes of these names."""
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
    given = state.get("_init_kwargs", {})
    if not isinstance(given, dict):
        raise Unsafe("the arguments of its generator are not a dictionary")
    return {**{name: state[name] for name in names if name in state}, **cast(Any, given)}


def _clamps(generator: PickledModule) -> dict[str, Any]:
    """The clamp of the first layer: the two programs have different defaults."""
    found: Any = generator
    for name in ("synthesis", "b4", "conv1"):
        modules = found.state.get("_modules") if isinstance(found, PickledModule) else None
        found = cast(Any, modules).get(name) if isinstance(modules, dict) else None
    known = isinstance(found, PickledModule) and "conv_clamp" in found.state
    return {"conv_clamp": found.state["conv_clamp"]} if known else {}


def _walk(part: PickledModule, prefix: str, views: dict[str, View], seen: list[int]) -> None:
    """Parameters and lasting buffers of a module and all below it, under their dotted names."""
    seen.append(id(part))
    where = prefix[:60] or "at the top"
    if len(seen) > MAX_MODULES or prefix.count(".") > MAX_DEPTH:
        raise Unsafe("it holds more modules, or deeper ones, than a generator has")
    passing: Any = part.state.get("_non_persistent_buffers_set", set())
    tables: list[Any] = [part.state.get(f"_{n}") for n in ("parameters", "buffers", "modules")]
    if not isinstance(passing, set) or not all(isinstance(table, dict) for table in tables):
        raise Unsafe(f"its module {where} lacks parameters, buffers or modules")
    own, buffers, below = tables
    for name, value in {**below, **buffers, **own}.items():
        if not isinstance(name, str) or not name.isidentifier() or len(name) > 40:
            raise Unsafe(f"its module {where} has a part with an invalid name")
        if isinstance(value, PickledModule) and name in below:
            _walk(value, f"{prefix}{name}.", views, seen)
        elif isinstance(value, View) and name not in below:
            if name not in passing:
                views[prefix + name] = value
        elif value is not None:
            raise Unsafe(f"its module {where} holds a {kind(value)} as {name}")


def plain(value: Any, seen: list[int], depth: int = 0) -> Any:
    """A generator's argument as JSON: numbers, text, lists and tables of them."""
    seen.append(id(value))
    if len(seen) > MAX_PLAIN or depth > 4:
        raise Unsafe("it holds arguments of a generator that go deeper than any known")
    if isinstance(value, float) and not isfinite(value):
        raise Unsafe("it holds an argument of a generator that is not finite")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and len(value) < MAX_TEXT:
        return value
    if isinstance(value, NumpyArray) and value.value.size < MAX_PLAIN:
        return plain(value.value.tolist(), seen, depth + 1)
    if isinstance(value, list | tuple):
        return [plain(item, seen, depth + 1) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        table = cast(dict[Any, Any], value)
        return {str(name): plain(item, seen, depth + 1) for name, item in table.items()}
    raise Unsafe(f"it holds a {kind(value)} among the arguments of a generator")


def _from_networks(networks: list[Any]) -> Found:
    """The third of (G, D, Gs): the averaged generator."""
    if len(networks) != 3 or not all(isinstance(network, PickledNetwork) for network in networks):
        raise Unsafe("it holds TensorFlow networks, but not the three of a StyleGAN2 file")
    averaged = cast(PickledNetwork, networks[2])
    tables = {"": averaged.state}
    components = averaged.state.get("components", {})
    if not isinstance(components, dict):
        raise Unsafe("its TensorFlow network has no components")
    for name, part in components.items():
        if not isinstance(part, PickledNetwork):
            raise Unsafe("its TensorFlow network has components of a kind that is not read")
        tables[f"{name}/"] = part.state
    variables: dict[str, Array] = {}
    for prefix, state in tables.items():
        for entry in cast(list[Any], state.get("variables", [])):
            fits = isinstance(entry, tuple | list) and len(cast(Any, entry)) == 2
            if not fits or not isinstance(entry[1], NumpyArray):
                raise Unsafe("its TensorFlow network has variables that are not named arrays")
            variables[prefix + str(entry[0])] = entry[1].value
    told = averaged.state.get("static_kwargs", {})
    arguments = plain(told if isinstance(told, dict) else {}, [])
    return Found("NVIDIA's TensorFlow pickle", from_tensorflow(variables, arguments), {})
