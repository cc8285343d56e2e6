"""Other programs' names for StyleGAN2's tensors, turned into NVIDIA's PyTorch names.

rosinality's stylegan2-pytorch and NVIDIA's TensorFlow code hold the same numbers in other shapes
and orders. NumPy only; the numbers stay bit for bit, but for a 1 that TensorFlow leaves out of the
styles' biases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from understudy.untrusted.numpy_pickles import Array
from understudy.untrusted.unpickling import Unsafe

Rename = Callable[[re.Match[str]], tuple[str, Callable[[Array], Array]]]
MAX_RESOLUTION_LOG2 = 12
FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64  # the one filter that is read
FILTERS = ("resample_filter", "kernel")
AVERAGE_OF = 10_000  # latents, where a file does not tell their average


def check_filters(tensors: Mapping[str, Array]) -> None:
    """Raise Unsafe if an up-sampling filter is not the usual one: the network has no other."""
    for name, values in tensors.items():
        if name.rpartition(".")[2] in FILTERS:
            total = values.sum(dtype=np.float64)
            if values.shape != (4, 4) or not np.allclose(values / total, FIR, atol=1e-6):
                raise Unsafe(f"its filter {name[:60]} is not the usual 1, 3, 3, 1")


def from_rosinality(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """g_ema and latent_avg of rosinality's .pt under NVIDIA's names."""
    check_filters(tensors)
    weights = {name: values for name, values in tensors.items() if not name.endswith(".kernel")}
    made = _renamed(weights, _ROSINALITY)
    if "mapping.w_avg" not in made:
        made["mapping.w_avg"] = average_latent(made)
    return _with_noise(made)


def from_tensorflow(
    variables: Mapping[str, Array], arguments: Mapping[str, Any]
) -> dict[str, Array]:
    """Variables of NVIDIA's TensorFlow StyleGAN2 under the PyTorch names.

    Raises Unsafe for labels (they were normalised together with z there) and another filter.
    """
    if any("LabelConcat" in name for name in variables):
        raise Unsafe("it is a TensorFlow generator with labels, which are not read")
    if any("AdaIN" in name or "StyleMod" in name for name in variables):
        raise Unsafe("it is a StyleGAN of the first generation; expected StyleGAN2")
    if arguments.get("resample_kernel") not in (None, [1, 3, 3, 1]):
        raise Unsafe("its filter is not the usual 1, 3, 3, 1")
    if arguments.get("mapping_lrmul", 0.01) != 0.01:
        raise Unsafe("its mapping network has a learning-rate multiplier other than 0.01")
    return _renamed({n: v for n, v in variables.items() if n != "lod"}, _TENSORFLOW)


def _renamed(tensors: Mapping[str, Array], rules: Mapping[str, Rename]) -> dict[str, Array]:
    """Every tensor under its new name, in its new shape."""
    made: dict[str, Array] = {}
    for name, values in tensors.items():
        matches = ((re.fullmatch(pattern, name), rename) for pattern, rename in rules.items())
        found = next(((match, rename) for match, rename in matches if match), None)
        if found is None:
            raise Unsafe(f"it holds a tensor {name[:60]!r}, which StyleGAN2 does not have")
        new, change = found[1](found[0])
        try:
            made[new] = np.ascontiguousarray(change(values)).reshape(change(values).shape)
        except (IndexError, ValueError):
            raise Unsafe(f"its tensor {name[:60]} has the shape {values.shape}") from None
    return made


def _block(log2: int) -> str:
    if not 2 <= log2 <= MAX_RESOLUTION_LOG2:
        raise Unsafe("it holds a block of a size that StyleGAN2 does not have")
    return f"synthesis.b{2**log2}"


def _layer(log2: int, second: bool) -> str:
    """conv0 doubles the size, conv1 follows; the 4-pixel block has conv1 alone."""
    return f"{_block(log2)}.conv{int(second)}"


def _conv(number: str) -> str:
    """Layer j of rosinality's `convs`: two a size, from 8 pixels on."""
    return _layer(3 + int(number) // 2, int(number) % 2 == 1)


def _noise(number: str) -> str:
    """Noise map n of both programs: one for 4 pixels, then two a size."""
    n = int(number)
    return "synthesis.b4.conv1" if n == 0 else _layer(3 + (n - 1) // 2, n % 2 == 0)


def _same(values: Array) -> Array:
    return values


def _first(values: Array) -> Array:
    """Without a leading axis of one."""
    if values.shape[:1] != (1,):
        raise ValueError("wanted an axis of one")
    return values.reshape(values.shape[1:])


def _flat(values: Array) -> Array:
    """Only the axis that is not one; a scalar where all are."""
    if values.size != max(values.shape, default=1):
        raise ValueError("wanted axes of one")
    return values.reshape(-1)


def _map(values: Array) -> Array:
    """A noise map: the last two of four axes."""
    return _first(_first(values))


_PART: Mapping[str, tuple[str, Callable[[Array], Array]]] = {
    "conv.weight": ("weight", _first),
    "conv.modulation.weight": ("affine.weight", _same),
    "conv.modulation.bias": ("affine.bias", _same),
    "noise.weight": ("noise_strength", _first),
    "activate.bias": ("bias", _same),
    "bias": ("bias", _flat),
}
_PARTS = "|".join(re.escape(part) for part in _PART)


def _with_part(layer: str, part: str) -> tuple[str, Callable[[Array], Array]]:
    name, change = _PART[part]
    return f"{layer}.{name}", change


_ROSINALITY: Mapping[str, Rename] = {
    r"latent_avg": lambda _: ("mapping.w_avg", _flat),
    r"style\.([1-9]\d?)\.(weight|bias)": lambda m: (f"mapping.fc{int(m[1]) - 1}.{m[2]}", _same),
    r"input\.input": lambda _: ("synthesis.b4.const", _first),
    rf"conv1\.({_PARTS})": lambda m: _with_part("synthesis.b4.conv1", m[1]),
    rf"convs\.(\d\d?)\.({_PARTS})": lambda m: _with_part(_conv(m[1]), m[2]),
    rf"to_rgb1\.({_PARTS})": lambda m: _with_part("synthesis.b4.torgb", m[1]),
    rf"to_rgbs\.(\d\d?)\.({_PARTS})": lambda m: _with_part(f"{_block(3 + int(m[1]))}.torgb", m[2]),
    r"noises\.noise_(\d\d?)": lambda m: (f"{_noise(m[1])}.noise_const", _map),
}


def _log2(side: str) -> int:
    if int(side) & (int(side) - 1):
        raise Unsafe("it holds a block of a size that StyleGAN2 does not have")
    return int(side).bit_length() - 1


def _kernel(values: Array) -> Array:
    """(h, w, in, out) -> (out, in, h, w)."""
    return values.transpose(3, 2, 0, 1)


def _turned(values: Array) -> Array:
    """The same, turned by half a circle: TensorFlow up-samples by correlation."""
    return _kernel(values[::-1, ::-1])


def _plus_one(values: Array) -> Array:
    return values + values.dtype.type(1)


_TF_LAYER: Mapping[str, tuple[str, Callable[[Array], Array]]] = {
    "weight": ("weight", _kernel),
    "bias": ("bias", _same),
    "noise_strength": ("noise_strength", _same),
    "mod_weight": ("affine.weight", np.transpose),
    "mod_bias": ("affine.bias", _plus_one),
}
_TF_PARTS = "|".join(_TF_LAYER)


def _tf(layer: str, part: str, up: bool = False) -> tuple[str, Callable[[Array], Array]]:
    name, change = _TF_LAYER[part]
    return f"{layer}.{name}", _turned if up and part == "weight" else change


_TENSORFLOW: Mapping[str, Rename] = {
    r"dlatent_avg": lambda _: ("mapping.w_avg", _same),
    r"mapping/Dense(\d\d?)/weight": lambda m: (f"mapping.fc{m[1]}.weight", np.transpose),
    r"mapping/Dense(\d\d?)/bias": lambda m: (f"mapping.fc{m[1]}.bias", _same),
    r"synthesis/4x4/Const/const": lambda _: ("synthesis.b4.const", _first),
    rf"synthesis/4x4/Conv/({_TF_PARTS})": lambda m: _tf("synthesis.b4.conv1", m[1]),
    rf"synthesis/(\d+)x\1/Conv0_up/({_TF_PARTS})": lambda m: _tf(
        _layer(_log2(m[1]), False), m[2], True
    ),
    rf"synthesis/(\d+)x\1/Conv1/({_TF_PARTS})": lambda m: _tf(_layer(_log2(m[1]), True), m[2]),
    rf"synthesis/(\d+)x\1/ToRGB/({_TF_PARTS})": lambda m: _tf(f"{_block(_log2(m[1]))}.torgb", m[2]),
    r"synthesis/(\d+)x\1/Skip/weight": lambda m: (f"{_block(_log2(m[1]))}.skip.weight", _turned),
    r"synthesis/noise(\d\d?)": lambda m: (f"{_noise(m[1])}.noise_const", _map),
}


def average_latent(tensors: Mapping[str, Array]) -> Array:
    """The average of W over latents of a fixed seed, where a file does not hold it.

    The mapping network of Karras et al. 2019 in float64: unit z, then linear layers (weights
    times 0.01 / sqrt(in), bias times 0.01), each with leaky ReLU of gain sqrt 2.
    """
    layers = [name for name in tensors if re.fullmatch(r"mapping\.fc\d+\.weight", name)]
    if "mapping.fc0.weight" not in tensors:
        raise Unsafe("it has no mapping network")
    width = tensors["mapping.fc0.weight"].shape[-1]
    x = np.random.RandomState(0).randn(AVERAGE_OF, width)
    x /= np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8)
    for index in range(len(layers)):
        weight = tensors.get(f"mapping.fc{index}.weight")
        bias = tensors.get(f"mapping.fc{index}.bias")
        if weight is None or bias is None or weight.shape != (len(bias), x.shape[1]):
            raise Unsafe("its mapping network does not fit together")
        x = x @ (weight.astype(np.float64).T * (0.01 / np.sqrt(x.shape[1]))) + bias * 0.01
        x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
    return x.mean(axis=0).astype(np.float32)


def _with_noise(tensors: dict[str, Array]) -> dict[str, Array]:
    """Noise maps where early files hold none: the network was trained on any, so draw some."""
    draw = np.random.RandomState(0)
    for name in sorted(tensors):
        layer = name.removesuffix(".noise_strength")
        if layer != name and f"{layer}.noise_const" not in tensors:
            side = int(layer.split(".")[1][1:])
            tensors[f"{layer}.noise_const"] = draw.randn(side, side).astype(np.float32)
    return tensors
