"""StyleGAN3's checkpoints: the same numbers from every layout; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hostile import Attack
from lookalikes import Call, Style, Word, dump, tree, written, zipped
from test_stylegan3 import TINY, R, small
from understudy import cli
from understudy.errors import ModelError
from understudy.generators.convert import check_folder, convert, read_checkpoint
from understudy.generators.folder import load_generator, save_generator
from understudy.generators.stylegan3.config import StyleGAN3Config
from understudy.generators.stylegan3.generator import StyleGAN3

Arrays = dict[str, np.ndarray]
# What the authors' programs write down: sizes by name, filters' widths left to the defaults.
TOLD: dict[str, Any] = {
    "z_dim": 5, "c_dim": 0, "w_dim": 6, "mapping_kwargs": {"num_layers": 2}, "channel_base": 64,
    "channel_max": 4, "num_layers": 4, "num_critical": 1, "margin_size": 2, "num_fp16_res": 4,
    "magnitude_ema_beta": 0.999, "conv_clamp": 256, "img_resolution": 16, "img_channels": 3,
}  # fmt: skip


def network(labels: int = 0, **changes: Any) -> tuple[StyleGAN3Config, Arrays]:
    """A random generator's configuration and numbers."""
    config = StyleGAN3Config(**{**TINY.to_dict(), "c_dim": labels, **changes})
    model = small(config, 7, torch.float32)
    return config, {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def pickled(tensors: Arrays, told: dict[str, Any] = TOLD, style: Style | None = None) -> bytes:
    """NVIDIA's layout: G_ema among the others, what it was trained on behind them."""
    style = style or Style()
    made = tree(tensors, dict(told), style)
    whole = {"G": None, "D": None, "G_ema": made, "augment_pipe": None, "training_set_kwargs": {}}
    return dump(whole, style.protocol)


def equal(found: Any, wanted: Arrays) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.array_equal(np.asarray(found[name]), values), name
        assert np.asarray(found[name]).dtype == values.dtype


@pytest.mark.parametrize("kind", [{}, R], ids=["T", "R"])
@pytest.mark.parametrize("style", [(2, "old"), (3, "old"), (4, "new")])
def test_there_and_back_bit_for_bit(
    kind: dict[str, Any], style: tuple[int, str], tmp_path: Path
) -> None:
    """Checkpoint to folder to network: every number and the picture itself are the same."""
    config, tensors = network(**kind)
    data = pickled(tensors, {**TOLD, **kind}, Style(*style))
    found = convert(written(tmp_path / "net.pkl", data), tmp_path / "net")
    assert found.kind == "stylegan3" and found.written_by == "NVIDIA's pickle, G_ema"
    equal(found.tensors, tensors)
    equal(load_file(tmp_path / "net" / "generator.safetensors"), tensors)
    model = load_generator(tmp_path / "net", device="cpu")
    assert isinstance(model, StyleGAN3) and model.config == config
    known = small(config, 7, torch.float32)
    ws = model.latents(model.draw_z(3), truncation=0.7)
    assert torch.equal(ws, known.latents(known.draw_z(3), truncation=0.7))
    assert torch.equal(model.pictures(ws), known.pictures(ws))


def test_archives_labels_and_bare_numbers(tmp_path: Path) -> None:
    """A module saved by torch.save on a GPU, with labels; and a state_dict that tells nothing."""
    config, tensors = network(3)
    style = Style(2, "old", zipped=True, location="cuda:0")
    made = tree(tensors, {**TOLD, "c_dim": 3}, style)
    found = read_checkpoint(written(tmp_path / "a.pt", zipped(made, style)))
    assert found.config == config.to_dict()
    equal(found.tensors, tensors)
    config = StyleGAN3Config(z_dim=4, w_dim=4, img_resolution=16, channel_base=64, channel_max=4)
    bare = small(config, 1, torch.float32).state_dict()
    torch.save(bare, tmp_path / "b.pt")
    assert read_checkpoint(tmp_path / "b.pt").config == config.to_dict()


def changed(name: str, values: np.ndarray | None, **told: Any) -> bytes:
    """A whole file in which one tensor is another, or missing, or an argument is another."""
    _, tensors = network()
    if name:
        tensors.pop(name, None)
    if values is not None:
        tensors[name] = values
    return pickled(tensors, {**TOLD, **told})


def hostile_call(canary: Path) -> bytes:
    """A foreign name called where a layer keeps a number."""
    _, tensors = network()
    made = tree(tensors, dict(TOLD), Style())
    attack = Attack(canary)
    attack.part(made, "synthesis", "L1_20_4").arguments[0]["state"]["act_gain"] = attack.call()
    return dump({"G_ema": made})


def hostile_size(canary: Path) -> bytes:
    """The size of a layer as an array of objects, whose pickle calls a foreign name."""
    _, tensors = network()
    made = tree(tensors, dict(TOLD), Style())
    attack, style = Attack(canary), Style()
    start = (Word("numpy ndarray"), (0,), b"b")
    state = (1, (1,), style.dtype("f8"), False, [attack.call()])
    size = Call(Word("numpy._core.multiarray _reconstruct"), start, state)
    attack.part(made, "synthesis", "L1_20_4").arguments[0]["state"]["in_size"] = size
    return dump({"G_ema": made})


ROW = np.full(12, 1 / 12, np.float32)
REFUSED: dict[str, tuple[Any, str]] = {
    "a call": (hostile_call, "os.system"),
    "a call inside an array": (hostile_size, "os.system"),
    "no wave numbers": (lambda _: changed("synthesis.input.freqs", None), "input.freqs"),
    "a tensor too many": (lambda _: changed("synthesis.input.hook", ROW), "input.hook"),
    "another filter": (lambda _: changed("synthesis.L1_20_4.up_filter", ROW), "up_filter of its"),
    "a filter of another shape": (
        lambda _: changed("synthesis.L1_20_4.down_filter", np.outer(ROW, ROW)),
        "down_filter of its|filters",
    ),
    "no filter": (lambda _: changed("synthesis.L1_20_4.down_filter", None), "other filters"),
    "weights of another shape": (
        lambda _: changed("synthesis.L1_20_4.weight", np.ones((4, 4, 1, 1), np.float32)),
        "L1_20_4.weight' has the shape",
    ),
    "a picture of another size": (lambda _: changed("", None, img_resolution=32), "img_resolution"),
    "other critical layers": (lambda _: changed("", None, num_critical=2), "layer L2|L3|filter"),
    "another band": (
        lambda _: changed("", None, last_stopband_rel=1.5),
        "down_filter of its layer L2",
    ),
    "a stranger's argument": (lambda _: changed("", None, hook="x"), "hook"),
    "a filter for giants": (lambda _: changed("", None, filter_size=10**6), "filter_size"),
    "endless channels": (lambda _: changed("", None, channel_base=10**30), "channel_base"),
    "an argument of text": (lambda _: changed("", None, conv_clamp="1"), "conv_clamp"),
    "a layer that is missing": (
        lambda _: pickled({n: v for n, v in network()[1].items() if ".L2_" not in n}),
        "layers are not those",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the file and the reason; nothing run, nothing left behind."""
    make, reason = REFUSED[name]
    file = written(tmp_path / "a.pkl", make(tmp_path / "canary"))
    with pytest.raises(ModelError, match=reason) as told:
        read_checkpoint(file)
    assert str(file) in str(told.value) and "\n" not in str(told.value)
    assert "in an unexpected way" not in str(told.value)
    assert cli.main(["models", "convert", str(file), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "canary").exists() and not (tmp_path / "out").exists()


def test_convert_check_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands on a file and on its folder; then what a damaged folder says."""
    file = written(tmp_path / "net.pkl", pickled(network()[1]))
    assert cli.main(["models", "convert", str(file)]) == 0
    assert "stylegan3, 16 px" in capsys.readouterr().out
    for what in (file, tmp_path / "net"):
        assert cli.main(["models", "check", str(what), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["kind"] == "stylegan3" and told["config"]["conv_kernel"] == 3
    manifest = tmp_path / "net" / "generator.json"
    body = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**body, "config": {**body["config"], "channel_max": 3}}))
    for use in (check_folder, load_generator):
        with pytest.raises(ModelError):
            use(tmp_path / "net")


def test_what_wants_a_stylegan2_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, tensors = network()
    floats = {name: torch.from_numpy(values) for name, values in tensors.items()}
    save_generator(here / "gan", config, floats)
    from PIL import Image

    Image.new("RGB", (16, 16)).save(here / "a.png")
    words = ["project", "a.png", "--generator", "gan", "--device", "cpu", "--out", "a.safetensors"]
    assert cli.main(words) == 1
    assert "gan is a StyleGAN3" in capsys.readouterr().err
