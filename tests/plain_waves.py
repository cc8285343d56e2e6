"""StyleGAN3 by the book: every sample written out, NumPy float64, nothing of ours imported.

Formulas are those of Karras et al. 2021 (section 3.2, appendix F) and of Kaiser's window. Slow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def kaiser(taps: int, beta: float) -> Array:
    """Kaiser's window by the power series of I0."""

    def i0(x: Array) -> Array:
        return sum(((x / 2) ** m / math.factorial(m)) ** 2 for m in range(40)) + 0 * x

    places = 2 * np.arange(taps) / (taps - 1) - 1
    return i0(beta * np.sqrt(np.maximum(1 - places**2, 0))) / i0(np.array(beta))


def beta_of(taps: int, width: float, rate: float) -> float:
    """Kaiser's rule: attenuation from length and transition width, then the window's shape."""
    attenuation = 2.285 * (taps - 1) * math.pi * (2 * width / rate) + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)


def separable(taps: int, cutoff: float, width: float, rate: float) -> Array:
    """sin(2 pi f t) / (pi t), windowed, sum 1."""
    t = (np.arange(taps) - (taps - 1) / 2) / rate
    f = np.sin(2 * np.pi * cutoff * t) / (np.pi * t) * kaiser(taps, beta_of(taps, width, rate))
    return f / f.sum()


def radial(taps: int, cutoff: float, width: float, rate: float) -> Array:
    """J1(2 pi f r) / r, windowed along both axes, sum 1; J1 by its power series."""
    t = (np.arange(taps) - (taps - 1) / 2) / rate
    r = np.sqrt(t[:, None] ** 2 + t[None, :] ** 2)
    z = 2 * np.pi * cutoff * r
    series = sum(
        (-1) ** m / (math.factorial(m) * math.factorial(m + 1)) * (z / 2) ** (2 * m + 1)
        for m in range(60)
    )
    window = kaiser(taps, beta_of(taps, width, rate))
    f = series / r * window[:, None] * window[None, :]
    return f / f.sum()


def convolved(x: Array, kernel: Array) -> Array:
    """(h, w) with a (k, m) kernel, only where it fits; a true convolution."""
    k, m = kernel.shape
    high, wide = x.shape[0] - k + 1, x.shape[1] - m + 1
    out = np.zeros((high, wide))
    for i in range(k):
        for j in range(m):
            out += kernel[k - 1 - i, m - 1 - j] * x[i : i + high, j : j + wide]
    return out


def resampled(x: Array, up: Array, down: Array, factors: tuple[int, int], size: int) -> Array:
    """One channel through the filtered leaky ReLU to (size, size), centre to centre.

    Zeros between the samples, far more of them around than needed, filter, leaky ReLU, filter;
    then the samples whose places are wanted, found by where each sample lies.
    """
    high = x.shape[0] * factors[0]
    around = 4 * (len(up) + len(down) + size)
    spread = np.zeros((high + 2 * around, high + 2 * around))
    spread[around : around + high : factors[0], around : around + high : factors[0]] = x
    wide = convolved(spread, np.outer(up, up) * factors[0] ** 2)
    wide = np.where(wide < 0, 0.2 * wide, wide) * math.sqrt(2)
    wide = np.clip(wide, -256, 256)
    wide = convolved(wide, down if down.ndim == 2 else np.outer(down, down))
    # Sample i of `wide` lies at (i + shift) steps from the first sample of x, times 1 / factor.
    shift = (len(up) - 1) / 2 + (len(down) - 1) / 2 - around
    centre = (x.shape[0] - 1) / 2 * factors[0]  # of x, in steps of the higher rate
    first = centre - (size - 1) / 2 * factors[1] - shift
    assert first == int(first), "samples fall on samples"
    rows = int(first) + factors[1] * np.arange(size)
    return wide[np.ix_(rows, rows)]


def layer(x: Array, w: Array, t: Mapping[str, Array], plan: Mapping[str, Any]) -> Array:
    """(i, n, n) -> (o, size, size): weights modulated, demodulated, then the activation."""
    style = t["affine.weight"] @ w / math.sqrt(len(w)) + t["affine.bias"]
    weight, gain = t["weight"], 1 / math.sqrt(float(t["magnitude_ema"]))
    o, i, k, _ = weight.shape
    if plan["paints"]:
        weight = weight * (style / math.sqrt(i * k * k))[None, :, None, None]
    else:
        weight = weight / np.sqrt((weight**2).mean(axis=(1, 2, 3), keepdims=True))
        weight = weight * (style / np.sqrt((style**2).mean()))[None, :, None, None]
        weight = weight / np.sqrt((weight**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
    made = []
    for one in range(o):
        total = sum(
            convolved(np.pad(gain * x[c], k - 1), weight[one, c, ::-1, ::-1]) for c in range(i)
        )
        total = total + t["bias"][one]
        if plan["paints"]:
            made.append(np.clip(total, -256, 256))
        else:
            made.append(
                resampled(total, t["up_filter"], t["down_filter"], plan["factors"], plan["size"])
            )
    return np.stack(made)


def waves(w: Array, t: Mapping[str, Array], size: int, rate: float, band: float) -> Array:
    """The input, sample by sample: (c, size, size)."""
    told = t["affine.weight"] @ w / math.sqrt(len(w)) + t["affine.bias"]
    cos, sin, right, lower = told / math.hypot(told[0], told[1])
    place = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    place = place @ np.array([[1, 0, -right], [0, 1, -lower], [0, 0, 1]]) @ t["transform"]
    out = np.zeros((len(t["phases"]), size, size))
    for c, (frequency, phase) in enumerate(zip(t["freqs"], t["phases"], strict=True)):
        heard = math.hypot(*(frequency @ place[:2, :2]))
        loud = min(max(1 - (heard - band) / (rate / 2 - band), 0), 1)
        for row in range(size):
            for column in range(size):
                at = [(column + 0.5 - size / 2) / rate, (row + 0.5 - size / 2) / rate, 1]
                turns = frequency @ (place @ at)[:2] + phase
                out[c, row, column] = loud * math.sin(2 * math.pi * turns)
    mixed = t["weight"] / math.sqrt(len(out))
    return np.einsum("oc,chw->ohw", mixed, out)


def mapped(z: Array, tensors: Mapping[str, Array], layers: int, label: Array | None) -> Array:
    """z -> w."""
    x = z / np.sqrt((z**2).mean() + 1e-8)
    if label is not None:
        y = tensors["mapping.embed.weight"] @ label / math.sqrt(len(label))
        y = y + tensors["mapping.embed.bias"]
        x = np.concatenate([x, y / np.sqrt((y**2).mean() + 1e-8)])
    for index in range(layers):
        weight, bias = (tensors[f"mapping.fc{index}.{n}"] for n in ("weight", "bias"))
        x = 0.01 * (weight @ x / math.sqrt(len(x)) + bias)
        x = np.where(x < 0, 0.2 * x, x) * math.sqrt(2)
    return x
