"""Other programs' checkpoints: the right numbers from every layout; attacks run nothing."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickletools
import subprocess
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hostile
from hostile import ARGUMENTS, ATTACKS, MISFITS, Attack, smallest
from lookalikes import CORES, Call, Style, Word, dump, from_layout, tree, written, zipped
from tests.golden_drag import DragCase, arguments_of, drag_cases
from understudy import cli
from understudy.errors import ModelError
from understudy.generators import convert as convert_module
from understudy.generators import quarantine
from understudy.generators.convert import convert, read_checkpoint
from understudy.generators.files import find_generator
from understudy.generators.folder import load_generator

FIR = (np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64).astype(np.float32)
Arrays = dict[str, np.ndarray]


def network(case: DragCase) -> tuple[Arrays, dict[str, Any]]:
    """Weights and nested arguments of a recorded network."""
    weights = {n: t.numpy() for n, t in load_file(case.path / "weights.safetensors").items()}
    return weights, arguments_of(case.settings)


def is_small(case: DragCase) -> bool:
    """Whether files of the network are written in no time."""
    return arguments_of(case.settings)["img_resolution"] <= 64


def is_tensorflow(case: DragCase) -> bool:
    """Whether TensorFlow programs wrote such networks: small ones, without labels."""
    return is_small(case) and not arguments_of(case.settings).get("c_dim")


def equal(found: Any, wanted: Arrays) -> None:
    """Bit for bit, but for the filters that the configuration tells."""
    kept = {name: v for name, v in wanted.items() if not name.endswith("resample_filter")}
    assert found.keys() == kept.keys()
    for name, values in kept.items():
        assert np.array_equal(np.asarray(found[name]), values), name


# ---------------------------------------------------------------- layouts that exist


@drag_cases("f_safe_reader", "*torch*.json")
def test_golden_layouts(case: DragCase, tmp_path: Path) -> None:
    """Look-alikes of files of other programs' versions: same words, same names, same numbers."""
    layout, globals_ = case.settings, case.settings["globals_in_order_of_first_use"]
    old = any(name.startswith(CORES["old"] + " ") for name in globals_)
    protocol, packed = layout["pickle_protocol"], "zip_members" in layout
    style, found = Style(protocol, "old" if old else "new", packed), dict[str, np.ndarray]()
    generator = from_layout(layout["generator_layout"], style, found)
    keys = layout["top_level"]["keys_in_order"]
    value = generator if packed else {k: generator if k == "G_ema" else None for k in keys}
    data = zipped(value, style) if packed else dump(value, protocol)
    pickled = zipfile.ZipFile(io.BytesIO(data)).read("archive/data.pkl") if packed else data
    words = names_in(pickled)
    assert words[0] == globals_[0] and set(words) == set(globals_)
    read = find_generator(written(tmp_path / "network-snapshot.jpg", data))
    assert {n: list(v.shape) for n, v in read.tensors.items()} == {
        name: size for name, _, size in layout["generator_state_dict_names"]
    }
    for name, values in found.items():
        assert np.array_equal(read.tensors[name], values)
    quarantine.read(tmp_path / "network-snapshot.jpg", tmp_path)
    kind = json.loads((tmp_path / "found.json").read_text())["kind"]
    fourier = any("input.freqs" in name for name, _, _ in layout["generator_state_dict_names"])
    assert kind == ("stylegan3" if fourier else "stylegan2")


def names_in(pickled: bytes) -> list[str]:
    """The globals of a pickle, in order of first use."""
    words: dict[str, None] = {}
    texts: list[str] = []
    memo: list[str | None] = []
    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "STACK_GLOBAL":
            words[" ".join(texts[-2:])] = None
        if code.name == "GLOBAL":
            words[argument] = None
        if code.name == "MEMOIZE":
            memo.append(texts[-1] if texts else None)
        if code.name in ("SHORT_BINUNICODE", "BINUNICODE"):
            texts.append(argument)
        if code.name in ("BINGET", "LONG_BINGET") and argument < len(memo):
            texts.append(memo[argument] or "")
    return list(words)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("numpy", ["old", "new"])
def test_protocols(tmp_path: Path, protocol: int, numpy: str) -> None:
    tensors = {**smallest(), "synthesis.b4.resample_filter": FIR}
    made = tree(tensors, dict(ARGUMENTS), Style(protocol, numpy))
    file = written(tmp_path / "a.bin", dump({"G": None, "D": None, "G_ema": made}, protocol))
    assert {n: v.tobytes() for n, v in find_generator(file).tensors.items()} == {
        n: v.tobytes() for n, v in tensors.items()
    }


@drag_cases("a_generator")
def test_golden_pictures_after_conversion(case: DragCase, tmp_path: Path) -> None:
    """NVIDIA's layouts of the recorded networks, read in the child, give the recorded pictures."""
    weights, arguments = network(case)
    nested = case.get("layout_nested", "init_kwargs", default=arguments)
    flat = case.get("layout_flat", default=arguments)
    for style, how in ((Style(3, "old"), dict(nested)), (Style(4), dict(flat))):
        data = dump({"G_ema": tree(weights, how, style)}, style.protocol)
        found = find_generator(written(tmp_path / "net.pkl", data))
        equal({n: v for n, v in found.tensors.items() if "resample" not in n}, weights)
    equal(convert(tmp_path / "net.pkl", tmp_path / "net").tensors, weights)
    model, gold = load_generator(tmp_path / "net", device="cpu"), case.arrays()
    if "ws_psi0.7" in gold:
        ws = model.latents(gold["z"], gold.get("label"), truncation=0.7)
        assert (ws - gold["ws_psi0.7"]).abs().max() <= 2e-5
    for name in [key for key in gold if key.startswith(f"img.b{model.config.img_resolution}")]:
        step = int(name.partition("stride")[2] or 1)
        with torch.no_grad():
            drawn = model.pictures(gold["ws_psi0.7"][:1])[..., ::step, ::step]
        assert (drawn - gold[name]).abs().max() <= 2e-5
    assert model.config.conv_clamp == synthesis_of(arguments).get("conv_clamp")


def synthesis_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """The synthesis network's arguments, nested or flat."""
    return arguments.get("synthesis_kwargs", arguments)


@drag_cases("a_generator", where=is_small)
def test_archives_of_modules(case: DragCase, tmp_path: Path) -> None:
    """PTI's files, written on a GPU by an old torch; then by this one, from real classes."""
    weights, arguments = network(case)
    style = Style(2, "old", zipped=True, location="cuda:0")
    old = written(tmp_path / "a.pkl", zipped(tree(weights, arguments, style), style))
    equal(read_checkpoint(old).tensors, weights)
    new = tmp_path / "b.pkl"
    with throwaway_modules() as persistent:
        torch.save(persistent(weights, arguments), new)
    found = find_generator(new)
    equal({n: v for n, v in found.tensors.items() if "resample" not in n}, weights)


class throwaway_modules:
    """Modules of the names that NVIDIA's code has, for the time of writing one file."""

    def __enter__(self) -> Any:
        persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("util")

        def _reconstruct_persistent_obj(meta: Any) -> Any:
            raise AssertionError("nobody may call this")

        _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
        _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
        persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
        names = {"torch_utils": types.ModuleType("torch_utils"), "dnnlib.util": util}
        sys.modules.update({**names, "torch_utils.persistence": persistence})
        self.names = [*names, "torch_utils.persistence"]

        class Saved:
            def __init__(self, prefix: str, weights: Arrays, arguments: Any) -> None:
                self.prefix, self.weights, self.arguments = prefix, weights, arguments

            def __reduce__(self) -> Any:
                inside = {
                    n[len(self.prefix) :]: torch.from_numpy(v)
                    for n, v in self.weights.items()
                    if n.startswith(self.prefix)
                }
                below = dict.fromkeys(n.partition(".")[0] for n in inside if "." in n)
                own = {n: t for n, t in inside.items() if "." not in n}
                state = {
                    "_parameters": {n: torch.nn.Parameter(t, False) for n, t in own.items()},
                    "_buffers": {},
                    "_non_persistent_buffers_set": set(),
                    "_modules": {
                        n: Saved(f"{self.prefix}{n}.", self.weights, self.arguments) for n in below
                    },
                    "gain": np.float64(2.0),
                    "_init_kwargs": self.arguments if not self.prefix else {},
                }
                meta = {"type": "class", "version": 6, "module_src": "raise SystemExit"}
                meta |= {"class_name": "Generator", "state": state}
                return _reconstruct_persistent_obj, (meta,)

        return lambda weights, arguments: Saved("", weights, arguments)

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            sys.modules.pop(name, None)


@drag_cases("b_rosinality")
@pytest.mark.parametrize("container", ["zip", "legacy", "training"])
def test_golden_rosinality(case: DragCase, container: str, tmp_path: Path) -> None:
    """rosinality's names: the tensors of the network they came from, and the recorded pictures."""
    joined = load_file(case.path / "checkpoint.safetensors")
    averaged = OrderedDict(
        (n.removeprefix("g_ema."), t) for n, t in joined.items() if n.startswith("g_ema.")
    )
    averaged._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]  # as state_dict() has
    whole: dict[str, Any] = {"g_ema": averaged, "latent_avg": joined["latent_avg"]}
    if container == "training":
        adam = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
        whole |= {"g": averaged, "g_optim": adam, "args": argparse.Namespace(lr=0.1, path="x")}
        del whole["latent_avg"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new = container != "legacy"
        torch.save(whole, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    convert(tmp_path / "a.pt", tmp_path / "a")
    model, gold = load_generator(tmp_path / "a", device="cpu"), case.arrays()
    equal(
        {n: t for n, t in model.state_dict().items() if n != "mapping.w_avg"},
        {
            n: t.numpy()
            for n, t in load_file(
                case.root / case.settings["same_weights_as"] / "weights.safetensors"
            ).items()
            if n != "mapping.w_avg"
        },
    )
    if container == "training":  # no average in the file: that of many latents
        mean = model.latents(
            torch.randn(4000, model.config.z_dim, generator=torch.Generator().manual_seed(1))
        )
        assert (model.mapping.w_avg - mean[:, 0].mean(0)).norm() < 0.1 * mean[:, 0].std(0).norm()
        return
    for name in (name for name in gold if name.startswith("latents_psi")):
        psi = name.removeprefix("latents_psi")
        assert (model.latents(gold["z"], truncation=float(psi)) - gold[name]).abs().max() <= 2e-5
        with torch.no_grad():
            drawn = model.pictures(gold[name])
        assert (drawn - gold[f"image_psi{psi}"]).abs().max() <= 2e-5


def test_early_rosinality_without_noise_maps(tmp_path: Path) -> None:
    torch.save(as_rosinality(smallest()), tmp_path / "a.pt")
    found = find_generator(tmp_path / "a.pt").tensors
    again = find_generator(tmp_path / "a.pt").tensors
    drawn = found["synthesis.b4.conv1.noise_const"]
    assert drawn.shape == (4, 4) and np.array_equal(drawn, again["synthesis.b4.conv1.noise_const"])


def as_rosinality(tensors: Arrays) -> dict[str, Any]:
    """A generator of 4 pixels under rosinality's names, without noise maps."""
    t = {n: torch.from_numpy(np.asarray(v)) for n, v in tensors.items()}
    layer, rgb = "synthesis.b4.conv1", "synthesis.b4.torgb"
    return {
        "latent_avg": t["mapping.w_avg"],
        "g_ema": {
            "style.1.weight": t["mapping.fc0.weight"],
            "style.1.bias": t["mapping.fc0.bias"],
            "input.input": t["synthesis.b4.const"][None],
            "conv1.conv.weight": t[f"{layer}.weight"][None],
            "conv1.conv.modulation.weight": t[f"{layer}.affine.weight"],
            "conv1.conv.modulation.bias": t[f"{layer}.affine.bias"],
            "conv1.noise.weight": t[f"{layer}.noise_strength"][None],
            "conv1.activate.bias": t[f"{layer}.bias"],
            "to_rgb1.conv.weight": t[f"{rgb}.weight"][None],
            "to_rgb1.conv.modulation.weight": t[f"{rgb}.affine.weight"],
            "to_rgb1.conv.modulation.bias": t[f"{rgb}.affine.bias"],
            "to_rgb1.bias": t[f"{rgb}.bias"].reshape(1, 3, 1, 1),
        },
    }


def as_tensorflow(weights: Arrays, style: Style, static: dict[str, Any]) -> tuple[Any, Arrays]:
    """(G, D, Gs) of the TensorFlow era, and what its tensors are in NVIDIA's PyTorch names."""
    mapping: list[Any] = []
    synthesis: list[Any] = []
    expected = dict(weights)
    for name, values in weights.items():
        part, _, rest = name.partition(".")
        if name == "mapping.w_avg" or name.endswith("resample_filter"):
            continue
        if part == "mapping":
            layer, kind = rest.split(".")
            values = values.T if kind == "weight" else values
            mapping.append((f"{layer.replace('fc', 'Dense')}/{kind}", style.array(values)))
            continue
        new, changed = tensorflow_layer(rest, values)
        if rest.endswith("affine.bias"):
            expected[name] = (values - np.float32(1)) + np.float32(1)
        synthesis.append((new, style.array(np.asarray(changed, np.float32))))

    def made(variables: list[Any], components: dict[str, Any]) -> Call:
        state = {"version": 4, "name": "G", "static_kwargs": style.easy(static)}
        state |= {"components": style.easy(components), "build_module_src": "raise SystemExit"}
        state |= {"build_func_name": "G_main", "variables": variables}
        return Call(Word("dnnlib.tflib.network Network"), (), state, new=True)

    inside = {"mapping": made(mapping, {}), "synthesis": made(synthesis, {})}
    own = [("lod", style.array(np.zeros((), np.float32)))]
    own.append(("dlatent_avg", style.array(weights["mapping.w_avg"])))
    return (made(own, {}), made(own, {}), made(own, inside)), expected


def tensorflow_layer(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """One tensor of the synthesis network under its TensorFlow name, in its shape there."""
    block, layer, *rest = name.split(".")
    side, kind = int(block[1:]), ".".join(rest)
    log2 = side.bit_length() - 1
    if layer == "const":
        return "4x4/Const/const", values[None]
    if kind == "noise_const":
        return f"noise{0 if side == 4 else 2 * log2 - (5 if layer == 'conv0' else 4)}", values[
            None, None
        ]
    where = {"conv0": "Conv0_up", "conv1": "Conv1", "torgb": "ToRGB", "skip": "Skip"}[layer]
    where = "Conv" if side == 4 and layer == "conv1" else where
    if kind == "weight":
        values = values.transpose(2, 3, 1, 0)
        values = values[::-1, ::-1] if layer in ("conv0", "skip") else values
    if kind == "affine.weight":
        values = values.T
    if kind == "affine.bias":
        values = values - np.float32(1)
    kind = kind.replace("affine.", "mod_")
    return f"{side}x{side}/{where}/{kind}", values


@drag_cases("a_generator", where=is_tensorflow)
def test_tensorflow_files(case: DragCase, tmp_path: Path) -> None:
    """Skip, resnet and orig networks as the TensorFlow era wrote them."""
    weights, arguments = network(case)
    style = Style(4, "old")
    static = {"resolution": arguments["img_resolution"], "resample_kernel": [1, 3, 3, 1]}
    value, expected = as_tensorflow(weights, style, static)
    found = read_checkpoint(written(tmp_path / "a.pkl", dump(value)))
    assert found.config["architecture"] == synthesis_of(arguments).get("architecture", "skip")
    equal(found.tensors, expected)


def test_rectangles_and_plain_state_dicts(tmp_path: Path) -> None:
    """StyleGAN-Human's pictures are twice as high as wide; G_ema may be alone in its file."""
    tensors = smallest()
    tensors["synthesis.b4.const"] = tensors["synthesis.b4.const"][:, :, :2].copy()
    tensors["synthesis.b4.conv1.noise_const"] = tensors["synthesis.b4.conv1.noise_const"][:, :2]
    arguments = {**ARGUMENTS, "square": False, "mapping_kwargs": {"num_layers": 1}}
    data = dump({"G_ema": tree(tensors, arguments, Style())})
    found = read_checkpoint(written(tmp_path / "a.pkl", data))
    assert found.config["start"] == [4, 2]
    torch.save({n: torch.from_numpy(np.array(v)) for n, v in tensors.items()}, tmp_path / "b.pt")
    equal(read_checkpoint(tmp_path / "b.pt").tensors, tensors)


def test_channels_last_weights_are_read(tmp_path: Path) -> None:
    """Half-precision layers are stored with other strides; the numbers are those of the view."""
    values = np.arange(24, dtype=np.float32)
    view = torch.from_numpy(values).as_strided((2, 3, 2, 2), (12, 1, 6, 3))
    whole = {n: torch.from_numpy(np.array(v)) for n, v in smallest().items()}
    torch.save({**whole, "synthesis.b4.torgb.weight": view}, tmp_path / "a.pt")
    found = find_generator(tmp_path / "a.pt").tensors["synthesis.b4.torgb.weight"]
    assert np.array_equal(found, view.numpy()) and found.flags.c_contiguous


# ---------------------------------------------------------------- files that attack


def test_there_are_many_attacks_and_the_plain_file_is_fine(tmp_path: Path) -> None:
    assert len(ATTACKS) >= 40
    attack = Attack(tmp_path / "canary")
    for data in (attack.pkl(), attack.pkl(protocol=2), attack.zip(location="cuda:7")):
        equal(find_generator(written(tmp_path / "a.pkl", data)).tensors, smallest())


@pytest.fixture(scope="module")
def came(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of every attack: the message, the seconds, and what was left behind."""
    tests = Path(__file__).parent
    folder = tmp_path_factory.mktemp("attacks")
    done = subprocess.run(
        [sys.executable, str(tests / "run_attacks.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": f"{tests.parent / 'src'}{os.pathsep}{tests}"},
        capture_output=True,
        check=True,
    )
    told = json.loads(done.stdout)
    return {**told["attacks"], "": told["holes"]}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_run_nothing(came: dict[str, Any], name: str) -> None:
    """Refused in one line, within seconds of processor time, nothing run and nothing left."""
    message = came[name]["message"]
    assert message != "read without complaint"
    assert "\n" not in message and 8 < len(message) < 250
    assert came[name]["seconds"] < 20
    assert not came[name]["left"]


def test_damaged_files_are_read_or_refused(came: dict[str, Any]) -> None:
    assert came[""] == []


@pytest.mark.parametrize("name", hostile.NAMES.replace("\n", "|").split("|"))
def test_refused_names_are_told(came: dict[str, Any], name: str) -> None:
    assert f"it names {name.replace(' ', '.')}, " in came[name]["message"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_source_text_is_dropped_unread(protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    style = Style(protocol)
    made = tree(smallest(), dict(ARGUMENTS), style)
    made.arguments[0]["module_src"] = f"open({str(canary)!r}, 'w').close()"
    file = written(tmp_path / "a.pkl", dump({"G_ema": made}, protocol))
    convert(file, tmp_path / "a")
    assert not canary.exists()
    for left in (tmp_path / "a").iterdir():
        assert b"open(" not in left.read_bytes()


@pytest.mark.parametrize("name", [*MISFITS, "os system", "zip bomb", "cut in half", "looped"])
def test_refusals_through_the_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line that names the file, exit code 1, and nothing left behind."""
    canary = tmp_path / "canary"
    file = written(tmp_path / "a.pkl", {**ATTACKS, **MISFITS}[name](Attack(canary)))
    out = tmp_path / "out"
    assert cli.main(["models", "convert", str(file), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(file) in error and "bug" not in error
    assert not canary.exists() and not out.exists()


def test_the_child_has_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that hangs or eats memory is ended, and said so."""
    monkeypatch.setattr(convert_module, "processor_seconds", lambda size: 0.005)
    file = written(tmp_path / "a.pkl", Attack(tmp_path / "canary").pkl())
    with pytest.raises(ModelError, match="took more than"):
        read_checkpoint(file)
    code = (
        "from understudy.generators import quarantine; quarantine.limit(1000)\n"
        "try: bytes(3 * 2**30)\nexcept MemoryError: print('limited')"
    )
    source = str(Path(quarantine.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == b"limited"


@pytest.mark.parametrize("what", ["missing", "folder", "pipe"])
def test_what_is_no_file(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    if what == "folder":
        path.mkdir()
    if what == "pipe":
        os.mkfifo(path)
    with pytest.raises(ModelError, match=r"a\.pkl"):
        read_checkpoint(path)


def test_convert_check_and_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "net.pkl", Attack(tmp_path / "canary").pkl())
    assert cli.main(["models", "convert", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    folder = Path(told["folder"])
    assert folder == tmp_path / "net" and told["kind"] == "stylegan2"
    for what in (file, folder):
        assert cli.main(["models", "check", str(what), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["config"]["img_resolution"] == 4
    weights = folder / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert cli.main(["models", "check", str(folder)]) == 1
    assert "Convert it again" in capsys.readouterr().err
    assert cli.main(["models", "check", "toybox"]) == 0
